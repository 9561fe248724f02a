"""Weights of an earlier run: they must not know what is tested, and a run says what it started from."""

import hashlib
import json

import pytest
from safetensors.torch import save_file

from fer_fast.cli import main
from fer_fast.data.labels import CLASSES
from fer_fast.errors import InputError
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.checkpoint import load_checkpoint, save_checkpoint
from fer_fast.train.lineage import ancestors
from layouts import LAYOUTS
from stub_datasets import put_classes
from tiny_backbone import TINY


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fer_fast.train.report.write_report", lambda path, **_: path.touch())


@pytest.fixture
def trained(tmp_path, capsys):
    """Trains on a folder of `tmp_path`: None, or the line that says why it does not."""

    def run(out, dataset, *options, root=None):
        command = ["train", "--backbone=tiny", "--batch_size=4", "--augment.size=32", "--hardware.device=cpu"]
        command += ["--epochs=1", f"--dataset={dataset}", f"--root={tmp_path / (root or dataset)}", *options]
        status = main([*command, f"--out={tmp_path / out}"])
        said = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
        assert len(said) == (status == 2)
        return said[0].partition(": error: ")[2] if said else None

    return run


def told(tmp_path, out="second"):
    return json.loads((tmp_path / out / "metrics.json").read_text())


def test_a_run_of_another_fold_is_no_start(trained, tmp_path):
    """Two sequences of three frames are of each of ten people, one of them in each fold."""
    LAYOUTS["ckplus"].build(tmp_path / "ckplus")
    weights = f"--model.weights={tmp_path / 'first'}"
    trained("first", "ckplus", "--data.fold=2")
    line = trained("second", "ckplus", "--data.fold=1", weights)
    assert line == (
        f"the weights {tmp_path / 'first' / 'checkpoint.safetensors'} are of a run that was trained on or selected by "
        "6 of the 6 images that are tested here (of ckplus, there seed 0, fold 2 of 10); start from a run of the same "
        "fold and seed, or of another dataset"
    )
    assert "by 12 of the 18 images" in trained("second", "ckplus", "--data.fold=2", "--data.folds=3", weights)
    assert trained("second", "ckplus", "--folds=10", weights).startswith("fold-1: the weights")
    assert not (tmp_path / "second").exists()
    assert trained("second", "ckplus", "--data.fold=2", "--seed=7", weights) is None
    assert not any("may be among" in note for note in told(tmp_path)["notes"])


def test_all_that_a_run_was_trained_on_is_no_start_for_a_fold(trained, tmp_path):
    for name in ("ckplus", "expw"):
        LAYOUTS[name].build(tmp_path / name)
    trained("first", "ckplus", "--test_dataset=expw", f"--test_root={tmp_path / 'expw'}")
    weights = f"--model.weights={tmp_path / 'first'}"
    assert "6 of the 6 images that are tested here" in trained("second", "ckplus", weights)
    options = ("--test_dataset=ckplus", f"--test_root={tmp_path / 'ckplus'}")
    # Of 60 images 12 are of contempt, which the other dataset has not.
    assert "by 48 of the 48 images that are tested here" in trained("second", "expw", *options, weights)
    trained("third", "expw")
    assert trained("second", "expw", *options, f"--model.weights={tmp_path / 'third'}") is None
    assert not any("may be among" in note for note in told(tmp_path)["notes"])


def test_a_run_of_another_cut_is_no_start(trained, tmp_path):
    """Of 24 images of one folder a fifth is tested, which seed 1 cuts otherwise."""
    put_classes(tmp_path / "folder", {".": 8})
    trained("first", "folder")
    weights = f"--model.weights={tmp_path / 'first'}"
    assert "images that are tested here (of folder, there seed 0)" in trained("second", "folder", "--seed=1", weights)
    assert trained("study", "folder", "--seeds=2", weights).startswith("seed-1: the weights")
    assert not (tmp_path / "study").exists()
    assert trained("second", "folder", weights) is None
    assert told(tmp_path)["splits"]["test"] == told(tmp_path, "first")["splits"]["test"]


def test_what_lies_further_back_is_no_start_either(trained, tmp_path):
    """The images that are tested trained the run that began the run that began this one's weights."""
    for name in ("ckplus", "expw"):
        LAYOUTS[name].build(tmp_path / name)
    put_classes(tmp_path / "folder", {"train": 6, "val": 3, "test": 4})
    weights = [f"--model.weights={tmp_path / name}" for name in ("first", "second", "third")]
    trained("first", "ckplus", "--data.fold=2")
    assert trained("second", "expw", weights[0]) is None
    assert main(["train", "--resume", f"--out={tmp_path / 'second'}", "--epochs=2"]) == 0
    assert trained("third", "folder", weights[1]) is None
    for start in weights[1:]:
        line = trained("last", "ckplus", "--data.fold=1", start)
        assert "a run that goes back to one that was trained on or selected by 6 of the 6 images" in line
        assert "(of ckplus, there seed 0, fold 2 of 10)" in line
    assert trained("last", "ckplus", "--data.fold=2", weights[2]) is None
    assert told(tmp_path, "last")["notes"] == told(tmp_path, "first")["notes"]
    state = load_checkpoint(tmp_path / "last")[1]
    assert [each["dataset"] for each in state["ancestors"]] == ["folder", "expw", "ckplus"]
    assert state["ancestors"][2]["splits"] == told(tmp_path, "first")["splits"]
    assert "ancestors" not in load_checkpoint(tmp_path / "first")[1]


def test_what_lies_further_back_is_not_evaluated_on_either(trained, tmp_path, capsys):
    LAYOUTS["ckplus"].build(tmp_path / "ckplus")
    for classes in (CLASSES[:4], CLASSES[4:]):
        put_classes(tmp_path / "folder", {"train": 3, "val": 2, "test": 2}, classes)
    trained("first", "ckplus", "--data.fold=2")
    assert trained("second", "folder", f"--model.weights={tmp_path / 'first'}") is None
    run = str(tmp_path / "second")
    command = ["eval", f"--checkpoint={run}", "--device=cpu"]
    of_other = [*command, "--dataset=ckplus", f"--root={tmp_path / 'ckplus'}"]
    for fold, status in ((1, 2), (2, 0)):
        assert main([*of_other, f"--fold={fold}"]) == status
        line = f"{run} goes back to a run that was trained on or selected by 6 of the 6 images that are tested here "
        assert (f"{line}(of ckplus, there seed 0, fold 2 of 10)\n" in capsys.readouterr().err) is (status == 2)
    assert main([*of_other, "--fold=1", "--split=train"]) == 0
    assert main(command) == 0


def test_a_run_that_does_not_tell_what_it_goes_back_to_is_noted(trained, tmp_path):
    """One of an earlier version; one that began with the file of another program has nothing to tell."""
    for name in ("ckplus", "expw"):
        LAYOUTS[name].build(tmp_path / name)
    trained("zeroth", "expw")
    tensors, _ = load_checkpoint(tmp_path / "zeroth")
    save_file(
        {name: tensor for name, tensor in tensors.items() if name.startswith("encoder.")}, tmp_path / "w.safetensors"
    )
    assert trained("first", "expw", f"--model.weights={tmp_path / 'w.safetensors'}") is None
    weights = f"--model.weights={tmp_path / 'first'}"
    note = f"starts from {tmp_path / 'first' / 'checkpoint.safetensors'}, "
    note += "which goes back to weights of which it does not say what they were trained on"
    for earlier, out in ((False, "second"), (True, "third")):
        if earlier:
            tensors, state = load_checkpoint(tmp_path / "first")
            assert state.pop("ancestors") == []
            save_checkpoint(tmp_path / "first", tensors, state)
        assert trained(out, "ckplus", weights) is None
        assert (note in told(tmp_path, out)["notes"]) is earlier
    assert trained("fourth", "ckplus", f"--model.weights={tmp_path / 'third'}") is None
    note = note.replace("first", "third")
    assert note in told(tmp_path, "fourth")["notes"]


@pytest.mark.parametrize("told", [None, "expw", [{}], [{"dataset": "expw"}, None]])
def test_a_checkpoint_that_tells_nonsense_of_its_ancestors_is_refused(told):
    config = {"dataset": "ckplus", "root": "somewhere"}
    with pytest.raises(InputError, match=r"^the checkpoint run/checkpoint\.safetensors is corrupt: ancestors$"):
        ancestors({"config": config, "ancestors": told}, "run/checkpoint.safetensors")


@pytest.mark.parametrize("earlier", [False, True])
def test_what_cannot_be_told_is_noted(trained, tmp_path, earlier):
    """Another folder, or a checkpoint of a version that did not say which images were in which split."""
    for name, count in (("one", 4), ("other", 5)):
        put_classes(tmp_path / name, {"train": 6, "val": 3, "test": count})
    trained("first", "folder", root="one")
    if earlier:
        tensors, state = load_checkpoint(tmp_path / "first")
        save_checkpoint(tmp_path / "first", tensors, {key: state[key] for key in state if key != "splits"})
    weights = f"--model.weights={tmp_path / 'first'}"
    assert trained("second", "folder", weights, root="one" if earlier else "other") is None
    path = tmp_path / "first" / "checkpoint.safetensors"
    note = f"starts from {path}, trained on folder: images of the test split may be among those"
    assert told(tmp_path)["notes"] == [note]
    began = {"path": str(tmp_path / "first"), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert told(tmp_path)["started_from"] == load_checkpoint(tmp_path / "second")[1]["started_from"] == began
    path.unlink()
    assert main(["train", "--resume", f"--out={tmp_path / 'second'}", "--epochs=2"]) == 0
    assert (told(tmp_path)["notes"], told(tmp_path)["started_from"]) == ([note], began)


def test_the_same_official_parts_are_a_start(trained, tmp_path):
    put_classes(tmp_path / "folder", {"train": 6, "val": 3, "test": 4})
    trained("first", "folder")
    assert "started_from" not in told(tmp_path, "first")
    weights = f"--model.weights={tmp_path / 'first'}"
    assert trained("second", "folder", "--seed=3", weights) is None
    assert told(tmp_path)["notes"] == []
