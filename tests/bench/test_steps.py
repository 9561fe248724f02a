"""`python -m bench steps`: marks close the right phases, and every recipe's loop passes all of them."""

import json
import re
from collections import Counter

import pytest
import torch
from fer_fast.bench import steps
from fer_fast.bench.command import run
from rich.console import Console

from fer_fast.data.dataset import FaceDataset
from fer_fast.data.labels import CLASSES
from fer_fast.errors import InputError
from fer_fast.train import loop, step
from fer_fast.train.backbones import BACKBONES
from tape import Tape
from tiny_backbone import TINY as TINY_BACKBONE

TINY = ("--backbone", "mobilenetv3", "--batch_size", "4", "--augment.size", "32", "--hardware.precision", "float32")


def test_marks_close_the_phase_since_the_mark_before():
    timeline = object.__new__(steps.Timeline)
    timeline.device = torch.device("cpu")
    names = ("network", "other", "data", "network", "loss", "loss", "network", "optimiser", "other", "data")
    timeline.marks = list(zip(names, (0, 7, 8, 18, 20, 21, 51, 56, 57, 60), strict=True))
    first = {"data": 1, "network": 40, "loss": 3, "optimiser": 5, "other": 1}
    assert timeline.steps() == [Counter(first), Counter(data=3)]  # what comes before the first step is left out


@pytest.mark.parametrize("recipe", ["quick", "ecan", "ad-corre"])
def test_every_phase_of_a_recipe_is_seen(recipe, tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    assert run(["steps", "--recipe", recipe, "--steps", "2", "--record", str(file), *TINY]) == 0
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["backend"] for row in rows] == ["reference", "auto"]
    for row in rows:
        assert row["steps"] == 2
        assert row["batch_size"] == 4
        assert row["seconds"] > 0
        assert sum(row["shares"].values()) == pytest.approx(1)
        assert all(0 < row["shares"][phase] < 1 for phase in steps.PHASES)
        assert row["shares"]["network"] == max(row["shares"].values())
    assert f"{recipe}: mobilenetv3, 4 images of 32² pixels, float32" in capsys.readouterr().out


def test_bad_numbers_are_named():
    with pytest.raises(InputError, match="--steps: 0"):
        run(["steps", "--steps", "0"])


class Replayed(Tape):
    """A graph that may have lost the optimiser."""

    loses = False

    def capture(self, work):
        super().capture(work)
        if self.loses:
            self.operations = [line for line in self.operations if "fused" not in str(line[0])]


@pytest.fixture
def graphs(monkeypatch):
    """A CPU whose steps can be replayed."""
    for module in (steps, step, loop):
        monkeypatch.setattr(module, "replays", lambda config, *_: config.hardware.compile != "none")
    monkeypatch.setattr(step, "Graph", Replayed)
    monkeypatch.setitem(BACKBONES, "tiny", TINY_BACKBONE)


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize("loses", [False, True])
def test_replayed_steps_are_timed_if_their_losses_are_those_of_steps_that_are_run(loses, monkeypatch):
    monkeypatch.setattr(Replayed, "loses", loses)
    flags = ("--backbone", "tiny", "--optimiser.rate", "0.1", "--hardware.device", "cpu")
    config = steps.configured("quick", [*TINY, *flags], 2)
    images = torch.randint(0, 256, (72, 1, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    faces = FaceDataset(images, torch.arange(72) % 7, CLASSES, "train")
    row = steps.whole(config, (faces, faces.subset(range(8), "val")), "graph")
    assert (row.compile, row.shares, row.steps) == ("graph", {}, 18 - 6 - 1)
    # The fourth step is the first replayed: it leaves its weights to the fifth.
    assert re.match(r"the loss of step [5-9] is ", row.wrong) if loses else row.wrong == ""
    assert (row.seconds == 0) == (row.images_per_second == 0) == loses
    console = Console(width=80)
    with console.capture() as said:
        console.print(steps.table([row]))
    assert re.search(r"│ graph +│ wrong +│" if loses else r"│ graph +│ [\d,]+ +│ [\d.]+ .?s +│", said.get())
    assert ("graph: the loss of step" in said.get()) == loses


@pytest.mark.usefixtures("graphs")
def test_steps_that_were_not_replayed_are_told(monkeypatch):
    monkeypatch.setattr(step, "WARM_UP", 100)
    config = steps.configured("quick", [*TINY, "--backbone", "tiny", "--hardware.device", "cpu"], 2)
    faces = FaceDataset(torch.zeros(72, 1, 32, 32, dtype=torch.uint8), torch.arange(72) % 7, CLASSES, "train")
    assert steps.whole(config, (faces, faces), "graph").wrong == "no step was replayed"
