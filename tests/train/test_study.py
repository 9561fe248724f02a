"""Studies: which runs they are, what they leave, what stops one at once, and what a kill leaves."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fer_fast.errors import InputError
from fer_fast.train import study as studies
from fer_fast.train.config import RunConfig, changed, config_parser, recipe_layer, resolve, to_dict
from fer_fast.train.folder import claimed
from fer_fast.train.loop import Trainer
from fer_fast.train.run import train
from fer_fast.train.shown import HEADLINES
from fer_fast.train.study import Study, read_study, run_study
from stub_datasets import photograph, put, put_classes
from tiny_backbone import quicken

SMALL = (
    *("--backbone", "tiny", "--epochs", "2", "--batch_size", "16", "--augment.size", "32", "--data.image_size", "32"),
    *("--data.options", "{faces: {samples: 32}}", "--hardware.precision", "float32"),
)
HELPERS = Path(__file__).parents[1] / "helpers"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    quicken(monkeypatch)


def configure(*flags):
    return resolve(config_parser(), [*SMALL, *flags], [recipe_layer("quick")])[0]


def seeds(count, *flags):
    return Study(configure(*flags), {"seed": tuple(range(count))})


def numbers(folder):
    """metrics.json of a study without its seconds."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    metrics.pop("resumed", None)  # what a run says of the processes it took
    for row in (metrics, *metrics["runs"]):
        assert row.pop("seconds") > 0
    return metrics


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Which runs


def test_runs_are_every_combination_outermost_axis_first():
    base = configure("--loss", "lmcl", "--objective.options", "{lmcl: {m: 0.2}}", "--seed", "4")
    axes = {"seed": (4, 5), "objective.options.lmcl.s": (20, 30.5), "data.fold": (1, 2), "optimiser.rate": (0.1,)}
    runs = Study(base, axes).runs
    expected = list(itertools.product((20, 30.5), (0.1,), (4, 5), (1, 2)))
    assert [(*run.point.values(), run.seed, run.fold) for run in runs] == expected
    assert [run.folder for run in runs[:3]] == [
        "s-20_rate-0.1/seed-4/fold-1",
        "s-20_rate-0.1/seed-4/fold-2",
        "s-20_rate-0.1/seed-5/fold-1",
    ]
    for run, (s, rate, seed, fold) in zip(runs, expected, strict=True):
        config = run.config
        assert config.objective.options == {"lmcl": {"m": 0.2, "s": s}}  # what lies beside a value stays
        assert (config.optimiser.rate, config.seed, config.data.fold) == (rate, seed, fold)
        assert config.epochs == base.epochs


@pytest.mark.parametrize(
    ("axes", "folders"),
    [
        ({"seed": (7,)}, ["seed-7"]),
        ({"data.fold": (1, 2)}, ["fold-1", "fold-2"]),
        ({"augment.scale": ([0.9, 1.1],), "data.balanced": (True, False)}, None),
        ({"backbone": ("../a b", "/a?b")}, ["backbone-..-ab", "backbone--a-b"]),
        ({"backbone": ("a/b", "A?B")}, ["backbone-a-b-1", "backbone-A-B-2"]),
        (
            {"objective.options.lmcl.m": (0.1,), "objective.options.arcface.m": (0.2,)},
            ["objective.options.lmcl.m-0.1_objective.options.arcface.m-0.2"],
        ),
        ({"objective.extra.ensc.mva": (-0.5, 1e-5)}, ["mva--0.5", "mva-1e-05"]),
    ],
)
def test_folders_are_safe_and_different(axes, folders):
    found = [run.folder for run in Study(RunConfig(), axes).runs]
    assert found == (folders or ["scale-0.9-1.1_balanced-true", "scale-0.9-1.1_balanced-false"])


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"epohs": (1,)}, 'did you mean "epochs"'),
        ({"data.foldd": (1,)}, 'did you mean "fold"'),
        ({"epochs.x": (1,)}, "epochs has none below it"),
        ({"data": ({},)}, "data is a group"),
        ({"recipe": ("quick", "lmcl")}, "'recipe' is not one of"),
        ({"objective.options.": (1,)}, "objective.options has none below it"),
        ({"": (1,)}, "axis : no such key"),
        ({"epochs": ()}, "axis epochs has no values"),
        ({"epochs": (None,)}, "null is no value of it"),
        ({"epochs": ("many",)}, "epochs-many: --epochs: expected a whole number. Got value: many"),
        ({"epochs": (2, 0)}, "epochs-0: epochs is 0; allowed: 1 or more"),
        ({"optimiser.rate": (float("nan"),)}, "holds what is no number"),
        ({"objective.options.lmcl.s": ({1, 2},)}, "holds what is no number"),
        ({"epochs": (3, 5, 3)}, "axis epochs: 3 and 3 would be the same run; give each value once"),
        ({"objective.options.lmcl.s": (30, 40, 30.0)}, "s: 30 and 30.0 would be the same run"),
        ({"objective.options.lmcl.s": (True, 1)}, "s: true and 1 would be the same run"),
        ({"augment.scale": ([1, 2], [1.0, 2])}, "scale: [1, 2] and [1.0, 2] would be the same run"),
        ({"epochs": (3, "3")}, "would be the same run"),
        ({"seed": tuple(range(40)), "epochs": tuple(range(1, 40))}, "1,560 runs; allowed: up to 1,000"),
    ],
)
def test_axes_that_are_none(axes, message):
    with pytest.raises(InputError) as error:
        _ = Study(RunConfig(), axes).runs
    assert message in str(error.value)


def test_titles_say_what_all_runs_are_of():
    base = configure("--loss", "lmcl")
    assert Study(base, {"seed": (0,)}).title == "quick · lmcl · tiny · faces: 1 run over seed"
    axes = {"loss": ("lmcl", "arcface"), "optimiser.rate": (0.1, 0.2)}
    assert Study(base, axes).title == "quick · tiny · faces: 4 runs over loss, rate"


# Running


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study of three seeds."""
    out = tmp_path_factory.mktemp("study") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        run_study(seeds(3), out)
    return out


def test_a_study_leaves_its_runs_and_the_numbers_of_all(whole, tmp_path):
    names = ("metrics.json", "report.html", "study.json")
    assert sorted(path.name for path in whole.iterdir()) == [*names[:2], "seed-0", "seed-1", "seed-2", names[2]]
    alone = tmp_path / "alone"
    train(configure("--seed", "1"), alone)
    assert tree(whole / "seed-1") == tree(alone)
    one, other = (json.loads((folder / "metrics.json").read_text()) for folder in (alone, whole / "seed-1"))
    assert {key: one[key] for key in HEADLINES} == {key: other[key] for key in HEADLINES}
    summary = numbers(whole)
    runs = [json.loads((whole / f"seed-{seed}" / "metrics.json").read_text()) for seed in range(3)]
    assert summary["accuracy"] == pytest.approx(np.mean([run["accuracy"] for run in runs]))
    assert summary["deviation"]["accuracy"] == pytest.approx(np.std([run["accuracy"] for run in runs], ddof=1))
    for row, run in zip(summary["runs"], runs, strict=True):
        log = (whole / row["folder"] / "log.jsonl").read_text().splitlines()
        assert row["val_accuracy"] == json.loads(log[run["epoch"] - 1])["val_accuracy"]
    assert read_study(whole) == seeds(3)
    with pytest.raises(InputError, match=r"nothing to resume: the study in .* is finished \(3 runs\)"):
        run_study(seeds(3), whole, resume=True)


KILL = """
import os, signal, sys
from pathlib import Path
from fer_fast.train import run
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.study import read_study, run_study
from tiny_backbone import TINY
BACKBONES["tiny"] = TINY
def keep(folder, tensors, state, real=run.save_checkpoint):
    real(folder, tensors, state)
    if folder.name == "seed-1":
        os.kill(os.getpid(), signal.SIGKILL)
run.save_checkpoint = keep
out = Path(sys.argv[1])
run_study(read_study(out), out, resume=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_study_that_was_killed_between_runs_and_inside_one_ends_as_another(whole, tmp_path, monkeypatch, capsys):
    out, study = tmp_path / "killed", seeds(3)

    def stop(config, folder, **_):
        if config.seed == 1:
            raise KeyboardInterrupt
        return train(config, folder)

    monkeypatch.setattr(studies, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, out)
    assert [folder.name for folder in out.iterdir() if folder.is_dir()] == ["seed-0"]
    (out / "seed-0" / ".lock").touch()  # what a kill right after the last file of a run leaves
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HELPERS)}
    killed = subprocess.run([sys.executable, "-c", KILL, out], env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (out / ".lock").exists()
    assert (out / "seed-1" / "resume.safetensors").exists()
    assert not (out / "seed-1" / "metrics.json").exists()

    begun = []

    def watched(config, folder, *, resume, **keywords):
        begun.append((folder.name, resume))
        return train(config, folder, resume=resume, **keywords)

    monkeypatch.setattr(studies, "train", watched)
    capsys.readouterr()
    run_study(study, out, resume=True)
    assert begun == [("seed-1", True), ("seed-2", False)]
    assert "run 1 of 3: seed-0 is finished" in capsys.readouterr().out
    assert numbers(out) == numbers(whole)
    assert tree(out) == tree(whole)


def test_a_run_that_fails_does_not_take_the_others_with_it(whole, tmp_path, monkeypatch, capsys):
    def fail(config, folder, **keywords):
        if config.seed != 1:
            raise InputError(f"the loss of seed {config.seed} became infinite")
        return train(config, folder, **keywords)

    monkeypatch.setattr(studies, "train", fail)
    out = tmp_path / "out"
    with pytest.raises(InputError) as error:
        run_study(seeds(3), out)
    assert str(error.value) == (
        "2 of 3 runs failed: seed-0 (the loss of seed 0 became infinite); also seed-2; the others are finished, "
        f"--resume --out {out} tries again"
    )
    assert "fer-fast: seed-2 failed: the loss of seed 2 became infinite" in capsys.readouterr().err
    assert not (out / "metrics.json").exists()
    monkeypatch.setattr(studies, "train", train)
    run_study(seeds(3), out, resume=True)
    assert numbers(out) == numbers(whole)


@pytest.mark.parametrize(
    ("axes", "counts", "names"),
    [
        ({"seed": (0, 1)}, {"train": 8, "val": 4, "test": 4}, "seed-0 and seed-1"),
        ({"seed": (0, 1)}, {"train": 8, "test": 4}, "seed-0 and seed-1"),  # the seed cuts val, and not test
        ({"optimiser.rate": (0.1, 0.2)}, {"train": 8, "test": 4}, "rate-0.1 and rate-0.2"),
    ],
)
def test_data_that_changed_between_two_runs_is_found(axes, counts, names, tmp_path, monkeypatch):
    data, out = tmp_path / "data", tmp_path / "out"
    put_classes(data, counts)
    study = Study(configure("--dataset", "folder", "--root", str(data), "--data.options", "{}"), axes)

    def change(config, folder, **keywords):
        metrics = train(config, folder, **keywords)
        put(data / "test" / "awake" / "1.png", photograph(99, size=32))
        return metrics

    monkeypatch.setattr(studies, "train", change)
    for resume in (False, True):  # found when all are finished, and before any is run
        with pytest.raises(InputError, match=rf"^{names} read other data \(test\), which changed between them"):
            run_study(study, out, resume=resume)
        assert not (out / "metrics.json").exists()
        monkeypatch.setattr(studies, "train", None)
    shutil.rmtree(out / study.runs[0].folder)
    monkeypatch.setattr(studies, "train", train)
    run_study(study, out, resume=True)


def test_too_little_memory_is_a_run_that_fails(tmp_path, monkeypatch):
    def fit(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "fit", fit)
    with pytest.raises(
        InputError, match=r"1 of 1 runs failed: seed-0 \(out of device memory: try a batch_size below 16"
    ):
        run_study(seeds(1), tmp_path / "out")


def test_data_may_have_moved_since_a_run_began():
    stored = to_dict(RunConfig(root="/there", test_root="/also"))
    assert changed(stored, RunConfig(root="/here", test_root="/too")) is None
    assert changed(stored, RunConfig(root="/here", epochs=3)) == "epochs was 10 and is now 3"


@pytest.fixture
def copied(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "copied"))


def test_a_run_that_is_missing_is_made_again(whole, copied):
    shutil.rmtree(copied / "seed-1")
    run_study(seeds(3), copied, resume=True)
    assert numbers(copied) == numbers(whole)


def test_a_study_is_extended_by_seeds(whole, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run_study(Study(configure(), {"seed": (2, 0)}), out)
    one = (out / "seed-2" / "metrics.json").read_text()
    monkeypatch.setattr(Trainer, "fit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_study(seeds(3), out, resume=True)
    assert read_study(out).axes == {"seed": (2, 0, 1)}  # before any work, in the order they came in
    monkeypatch.undo()
    quicken(monkeypatch)
    train(configure("--seed", "1"), out / "seed-1", resume=True)  # the metrics are still those of two
    run_study(read_study(out), out, resume=True)
    assert (out / "seed-2" / "metrics.json").read_text() == one
    metrics, expected = numbers(out), numbers(whole)
    assert [run["folder"] for run in metrics["runs"]] == ["seed-2", "seed-0", "seed-1"]
    assert sorted(metrics["runs"], key=lambda run: run["seed"]) == expected["runs"]
    assert metrics["deviation"] == pytest.approx(expected["deviation"])


def test_values_that_would_rename_a_run_are_refused(tmp_path):
    (tmp_path / "study.json").write_text(json.dumps(Study(configure(), {"backbone": ("tiny",)}).as_dict()))
    with pytest.raises(InputError, match=r"with these values: backbone-tiny would have another name"):
        run_study(Study(configure(), {"backbone": ("tiny", "Tiny")}), tmp_path, resume=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("seed-1/metrics.json", "{", "seed-1 is damaged"),
        ("seed-1/metrics.json", "[]", "seed-1 is damaged"),
        ("seed-1/metrics.json", '{"epoch": 1}', "seed-1 is damaged"),
        ("seed-1/log.jsonl", "", "seed-1 is damaged"),
        ("seed-1/config.yaml", "epochs: 3", "cannot resume .*seed-1 with another configuration"),
        ("study.json", "{", "study.json is damaged"),
        ("study.json", "[]", "study.json is damaged"),
        ("study.json", '{"base": {}, "axes": {"seed": 3}}', "study.json is damaged"),
    ],
)
def test_what_is_damaged_is_named(copied, name, content, message):
    before = tree(copied)
    (copied / name).write_text(content)
    with pytest.raises(InputError, match=message):
        run_study(read_study(copied), copied, resume=True)
    assert tree(copied) == before


def test_a_study_is_not_another_and_no_run(copied, tmp_path):
    for study, message in (
        (seeds(2), r"seed was \[0, 1, 2\] and is now \[0, 1\]"),
        (Study(configure(), {"seed": (0, 1, 3, 4)}), r"seed was \[0, 1, 2\] and is now \[0, 1, 3, 4\]"),
        (seeds(3, "--epochs", "3"), r"epochs was 2 and is now 3; a study cannot be given more epochs$"),
        (seeds(3, "--optimiser.rate", "0.5"), r"optimiser.rate was [0-9.]+ and is now 0.5"),
        (Study(configure(), {**seeds(3).axes, "data.fold": (1, 2)}), r"data.fold was None and is now \[1, 2\]"),
    ):
        with pytest.raises(InputError, match=f"cannot resume .* with another configuration: {message}"):
            run_study(study, copied, resume=True)
    with pytest.raises(InputError, match=r"already holds a study \(study.json\)"):
        run_study(seeds(3), copied)
    with pytest.raises(InputError, match=r"already holds a study \(study.json\)"):
        train(configure(), copied)
    with pytest.raises(InputError, match=r"already holds a run"):
        run_study(seeds(3), copied / "seed-1")
    with pytest.raises(InputError, match=r"there is no study in .*seed-1 but a run"):
        run_study(seeds(3), copied / "seed-1", resume=True)
    (copied / "study.json").unlink()
    (copied / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"seed-0 already holds a run"):
        run_study(seeds(3), copied)
    with pytest.raises(InputError, match=r"nothing to resume: there is no study in .*none$"):
        run_study(seeds(3), tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


def test_a_study_is_written_by_one_process(tmp_path):
    out = tmp_path / "out"
    with claimed(out), pytest.raises(InputError, match="another run is writing in"):
        run_study(seeds(2), out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"backbone": ("tiny", "tinny")}, "backbone-tinny: backbone"),
        ({"loss": ("softmax", "lmlc")}, "loss-lmlc: loss: 'lmlc' is not one of"),
        ({"objective.options.softmax.s": (20, 30)}, "s-20: objective.options.softmax: 's' is not one of"),
        ({"model.weights": (None, "/nonexistent/w")}, "weights--nonexistent-w: "),
        ({"data.options.faces.samples": (32, 1)}, "samples-1: "),
        ({"data.fold": (1, 2)}, "fold-1: faces is drawn, so fold does nothing"),
    ],
)
def test_the_last_run_is_tried_before_the_first(axes, message, tmp_path):
    with pytest.raises(InputError) as error:
        run_study(Study(configure(), axes), tmp_path / "out")
    assert str(error.value).startswith(message)
    assert list(tmp_path.iterdir()) == []
