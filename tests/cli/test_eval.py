"""`fer-fast eval` and `--resume` on other data than a run began with: another copy, another dataset, another fold."""

import json
import shutil

import pytest

from fer_fast.cli import main
from fer_fast.train.backbones import BACKBONES
from layouts import LAYOUTS
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
        command += [f"--dataset={dataset}", f"--root={root}", f"--out={tmp_path / into}", *options]
        command += [f"--data.order={order}"] if order else []
        assert fer_fast(*command, "--epochs=1") == 0
        return command, root, tmp_path / into

    return run


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_a_run_by_fold_is_evaluated_on_its_fold_and_on_others(trained, fer_fast, tmp_path):
    _, _, out = trained("ckplus", "--data.fold=3")
    command = ("eval", "--checkpoint", out, "--device=cpu", "--out")
    assert fer_fast(*command, tmp_path / "same") == 0
    assert fer_fast(*command, tmp_path / "next", "--fold=4") == 0
    assert metrics(tmp_path / "same")["data"] == {"test": metrics(out)["data"]["test"]}
    assert metrics(tmp_path / "next")["data"]["test"] == metrics(out)["data"]["val"]
    assert "fold is 11; allowed: 1 to 10" in fer_fast(*command, tmp_path / "none", "--fold=11")
    assert not (tmp_path / "none").exists()


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
