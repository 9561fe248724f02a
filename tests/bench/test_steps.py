"""`python -m bench steps`: marks close the right phases, and every recipe's loop passes all of them."""

import json
from collections import Counter

import pytest
import torch
from fer_fast.bench import steps
from fer_fast.bench.command import run

from fer_fast.errors import InputError

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
