"""`fer-fast verify` of a study: its runs, that they are those it asks for, and the summary that follows from them."""

import json
import shutil

import pytest

from fer_fast.cli import main
from fer_fast.train.backbones import BACKBONES
from stub_datasets import put_classes
from tiny_backbone import TINY
from verified_runs import COUNTS, elsewhere, turned


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch, tmp_path_factory):
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def study(tmp_path):
    """A finished study of two seeds."""
    put_classes(tmp_path / "data", COUNTS)
    command = ["train", "--backbone=tiny", "--dataset=folder", f"--root={tmp_path / 'data'}", "--batch_size=8"]
    command += ["--ema=0", "--augment.size=32", "--epochs=1", "--hardware.device=cpu", "--seeds=2"]
    assert main([*command, f"--out={tmp_path / 'study'}"]) == 0
    return tmp_path / "study"


def verified_study(study, capsys):
    capsys.readouterr()
    status = main(["verify", str(study), "--device=cpu"])
    *lines, end = capsys.readouterr().out.splitlines()
    assert end.startswith(f"{study} ")
    return status, [line.split(maxsplit=2)[:2] for line in lines], lines


def test_a_study_holds_with_all_its_runs(study, capsys):
    status, verdicts, _ = verified_study(study, capsys)
    assert (status, verdicts) == (0, [["holds", "seed-0"], ["holds", "seed-1"], ["holds", "summary"]])


def test_elsewhere_the_runs_of_a_study_share_what_may_turn(study, capsys, monkeypatch):
    """Two runs of 18 images: one prediction of all, not one of each."""
    elsewhere(monkeypatch)
    for count, (name, verdict) in enumerate((("seed-0", "holds"), ("seed-1", "differs")), 1):
        path = study / name / "metrics.json"
        metrics = json.loads(path.read_text())
        turned(metrics, 1)
        path.write_text(json.dumps(metrics))
        _, _, lines = verified_study(study, capsys)
        assert f"holds    {name}: confusion_matrix  1 of 18 predictions differ, 1 may" in lines
        moved = f"holds    {name}: macro_f1    stated {metrics['macro_f1']}, found "
        assert any(line.startswith(moved) for line in lines)
        (together,) = (line for line in lines if "all runs" in line)
        assert together == f"{verdict:7}  all runs: confusion_matrix  {count} of 36 predictions differ, 1 may"


def test_a_changed_run_of_a_study_is_found_though_the_summary_follows(study, capsys):
    path = study / "seed-1" / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["macro_f1"] += 1e-6
    path.write_text(json.dumps(metrics))
    status, verdicts, lines = verified_study(study, capsys)
    assert (status, verdicts) == (1, [["holds", "seed-0"], ["differs", "seed-1:"], ["differs", "summary"]])
    assert lines[1].split()[2] == "macro_f1"


def test_runs_in_the_place_of_others_are_found(study, capsys):
    (study / "seed-1").rename(study / "seed-2")
    shutil.copytree(study / "seed-0", study / "seed-1")
    status, verdicts, lines = verified_study(study, capsys)
    assert status == 1
    assert ["differs", "seed-1"] in verdicts
    assert "is not the run that study.json asks for: seed was 0 and is now 1" in lines[2]


def test_a_study_is_no_checkpoint_and_may_be_unfinished(study, capsys):
    assert main(["eval", "--checkpoint", str(study)]) == 2
    line = f"{study} is a study of several runs; evaluate one of them, such as {study / 'seed-0'}"
    assert line in capsys.readouterr().err
    (study / "metrics.json").unlink()
    assert main(["verify", str(study)]) == 2
    assert f"the study in {study} is not finished: there is no metrics.json" in capsys.readouterr().err


def test_a_study_without_one_of_its_runs_cannot_be_verified(study, capsys):
    shutil.rmtree(study / "seed-1")
    status, verdicts, _ = verified_study(study, capsys)
    assert (status, verdicts) == (2, [["holds", "seed-0"], ["failed", "seed-1"]])


def test_a_run_that_does_not_tell_what_the_study_needs_is_named(study, capsys):
    path = study / "seed-1" / "metrics.json"
    path.write_text(json.dumps({"accuracy": json.loads(path.read_text())["accuracy"]}))
    status, verdicts, lines = verified_study(study, capsys)
    assert status == 1
    assert ["failed", "summary"] in verdicts
    assert lines[-1].endswith("a run does not state what it is made of: 'average_accuracy'")


def test_a_changed_summary_is_found(study, capsys):
    path = study / "metrics.json"
    summary = json.loads(path.read_text())
    summary["deviation"]["accuracy"] = 0.0123
    path.write_text(json.dumps(summary))
    status, verdicts, lines = verified_study(study, capsys)
    assert (status, verdicts[-1]) == (1, ["differs", "summary"])
    assert "deviation: accuracy: stated 0.0123, found " in lines[-1]
