"""`fer-fast eval` and `--resume` on other data than a run began with: another copy, another dataset, another fold. What
an evaluation tells, and that the test split selects nothing."""

import json
import shutil

import pytest
import torch

from fer_fast.cli import main
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.checkpoint import load_checkpoint
from layouts import LAYOUTS
from stub_datasets import put_classes
from tiny_backbone import TINY


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch, tmp_path_factory):
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def fer_fast(capsys):
    """Runs a command: its exit status and, where it failed, the line that says why."""

    def run(*arguments):
        status = main(list(map(str, arguments)))
        said = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
        assert len(said) == (status == 2)
        return said[0] if said else status

    return run


@pytest.fixture
def trained(fer_fast, tmp_path):
    """Trains on a layout with these options; gives what to run again."""

    def run(name, *options, into="run", **keywords):
        build, dataset, order = LAYOUTS[name]
        root = tmp_path / name
        if not root.exists():
            build(root)
        command = ["train", "--backbone=tiny", "--batch_size=4", "--augment.size=32", "--hardware.device=cpu"]
        command += ["--epochs=1"]
        command += [f"--dataset={dataset}", f"--root={root}", f"--out={tmp_path / into}", *options]
        command += [f"--data.order={order}"] if order else []
        assert fer_fast(*command) == 0
        return command, root, tmp_path / into

    return run


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("named", [(), ("--dataset=ckplus",)])
def test_a_run_by_fold_is_evaluated_on_no_other_fold(trained, fer_fast, tmp_path, named):
    _, _, out = trained("ckplus", "--data.fold=3")
    command = ("eval", "--checkpoint", out, "--device=cpu", *named, "--out")
    assert fer_fast(*command, tmp_path / "same") == fer_fast(*command, tmp_path / "again", "--fold=3") == 0
    assert (
        metrics(tmp_path / "again")["data"]
        == metrics(tmp_path / "same")["data"]
        == {"test": metrics(out)["data"]["test"]}
    )
    for split in ("train", "val", "test"):
        line = fer_fast(*command, tmp_path / "none", "--fold=4", "--split", split)
        assert "fold is 4; of ckplus only fold 3 is unseen by this run" in line
    assert not (tmp_path / "none").exists()
    assert fer_fast(*command, tmp_path / "val", "--split=val") == 0
    assert metrics(tmp_path / "val")["split"] == "val"


def test_a_fold_does_not_follow_to_another_dataset(trained, fer_fast, tmp_path):
    """Nor does anything else that was said of the copy that was trained on."""
    _, _, out = trained("fer2013 parquet", "--data.unreadable=skip", "--data.duplicates=drop")
    LAYOUTS["oulu_casia"].build(tmp_path / "oulu")
    LAYOUTS["rafdb"].build(tmp_path / "rafdb")
    command = ("eval", "--checkpoint", out, "--device=cpu", "--dataset")
    assert fer_fast(*command, "oulu-casia", "--root", tmp_path / "oulu", "--fold=2") == 0
    assert fer_fast(*command, "rafdb", "--root", tmp_path / "rafdb") == 0
    assert "does not know contempt" in fer_fast(*command, "faces")


def test_an_order_belongs_to_a_copy(trained, fer_fast, tmp_path):
    _, root, out = trained("fer2013 parquet")
    LAYOUTS["fer2013 folders"].build(tmp_path / "named")
    command = ("eval", "--checkpoint", out, "--device=cpu")
    assert fer_fast(*command) == 0
    assert fer_fast(*command, "--root", tmp_path / "named") == 0
    assert "leave order out" in fer_fast(*command, "--root", tmp_path / "named", "--order=official")
    assert "the class numbers have no names" in fer_fast(*command, "--root", root)
    assert fer_fast(*command, "--root", root, "--order=official") == 0


def test_a_run_goes_on_with_the_same_pictures_alone(trained, fer_fast):
    command, root, _ = trained("folder")
    picture = root / "train" / "awake" / "1.png"
    again = picture.read_bytes()
    picture.unlink()
    line = fer_fast(*command, "--epochs=2", "--resume")
    assert "the data changed; the digest of" in line
    picture.write_bytes(b"no picture")
    assert "1 of 8 train images cannot be read" in fer_fast(*command, "--epochs=2", "--resume")
    picture.write_bytes(again)  # decoded anew, for its time is another; the pixels are the same
    assert fer_fast(*command, "--epochs=2", "--resume") == 0


def test_a_run_goes_on_where_the_cache_was_cleared(trained, fer_fast, tmp_path, monkeypatch):
    command, _, _ = trained("folder")
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path / "another"))
    assert fer_fast(*command, "--epochs=2", "--resume") == 0


def test_the_cache_may_go_while_a_run_trains(trained, fer_fast, tmp_path, monkeypatch):
    _, _, whole = trained("folder", into="whole")
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path / "another"))
    monkeypatch.setattr("fer_fast.train.run.check_end", lambda *_: shutil.rmtree(tmp_path / "another"))
    _, _, out = trained("folder", into="without")
    assert not (tmp_path / "another").exists()
    assert metrics(out)["per_class"] == metrics(whole)["per_class"]


HEADLINES = ("accuracy", "average_accuracy", "macro_f1")


def test_crops_and_single_views_are_told_apart(trained, fer_fast, tmp_path):
    _, _, out = trained("fer2013 folders", "--augment.crops=5")
    told = metrics(out)
    assert told["crops"].keys() == {"1", "5"}
    for crops in ("1", "5", "10"):
        folder = tmp_path / crops
        assert fer_fast("eval", "--checkpoint", out, "--device=cpu", f"--crops={crops}", "--out", folder) == 0
    one, five, ten = (metrics(tmp_path / crops) for crops in ("1", "5", "10"))
    for found, crops in ((one, "1"), (five, "5"), (ten, "10")):
        apart = found.get("crops", {"1": found})
        assert {key: found[key] for key in HEADLINES} == {key: apart[crops][key] for key in HEADLINES}
    assert "crops" not in one
    assert five["crops"] == told["crops"]
    assert {key: five[key] for key in HEADLINES} == {key: told[key] for key in HEADLINES}
    assert ten["crops"].items() > told["crops"].items()
    assert len({found["auc"] for found in (one, five, ten)}) == 3
    assert "argument --crops: invalid choice" in fer_fast("eval", "--checkpoint", out, "--crops=3")


@pytest.mark.parametrize(
    ("name", "split", "unit"),
    [
        ("ckplus", "train", "subject"),
        ("ckplus", "test", "group"),  # sequences of one person
        ("expw", "test", "group"),  # faces of a photograph
        ("folder", "test", "image"),
    ],
)
def test_intervals_are_over_what_belongs_together(trained, fer_fast, tmp_path, name, split, unit):
    _, _, out = trained(name)
    assert fer_fast("eval", "--checkpoint", out, "--device=cpu", "--split", split, "--out", tmp_path / "eval") == 0
    found = metrics(tmp_path / "eval")
    assert found["intervals_by"] == unit
    assert all(low <= found[key] <= high for key, (low, high) in found["intervals"].items())


def test_an_evaluation_tells_what_made_it(trained, fer_fast, tmp_path):
    _, _, out = trained("folder")
    assert fer_fast("eval", "--checkpoint", out, "--split", "val", "--device=cpu", "--out", tmp_path / "val it is") == 0
    run, found = metrics(out), metrics(tmp_path / "val it is")
    assert found["command"] == f"fer-fast eval --checkpoint {out} --split val --device=cpu --out '{tmp_path}/val it is'"
    for key in ("commit", "versions", "device", "weights"):
        assert found[key] == run[key]
    for key in ("data", "splits"):
        assert found[key] == {"val": run[key]["val"]}
    assert found["accuracy"] == run["val_accuracy"]


def test_the_test_split_selects_nothing(trained, tmp_path):
    """Other labels of the test images leave the epoch, the weights and all that is seen in training as they are."""
    put_classes(tmp_path / "folder", {"train": 8, "val": 4, "test": 4})
    flags = ("--epochs=8", "--loss=weighted-cluster", "--optimiser.rate=0.05", "--schedule.name=constant")
    _, root, out = trained("folder", *flags, into="true")
    for name in ("asleep", "yawning"):
        for path in (root / "test" / name).iterdir():
            path.rename(root / "test" / "awake" / f"{name}-{path.name}")
    _, _, other = trained("folder", *flags, into="false")
    rows = [[json.loads(line) for line in (folder / "log.jsonl").open()] for folder in (out, other)]
    for row in (*rows[0], *rows[1]):
        del row["seconds"], row["images_per_second"]
    assert rows[0] == rows[1]
    (weights, state), (others, others_state) = load_checkpoint(out), load_checkpoint(other)
    assert state["epoch"] == others_state["epoch"] == metrics(other)["epoch"]
    assert weights.keys() == others.keys()
    assert all(torch.equal(value, others[name]) for name, value in weights.items())
    data, changed = metrics(out)["data"], metrics(other)["data"]
    assert {split for split in data if data[split] != changed[split]} == {"test"}
    assert metrics(other)["accuracy"] != metrics(out)["accuracy"]
    # There is something to select: neither the first epoch nor the last is the best.
    assert 1 < state["epoch"] < 8
