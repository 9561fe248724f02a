"""``fer-fast enrol`` from files: what it writes and prints, and that everything wrong ends in one line."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import fer_fast
from fer_fast.cli import main
from fer_fast.data.faces import load_faces
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.checkpoint import load_checkpoint
from one_line import fails
from quarters import QUARTERS, SEVEN, picture, quarters_run
from tiny_backbone import TINY

RED, BLUE = (255, 200, 40, 0), (0, 30, 255, 120)


@pytest.fixture(autouse=True)
def backbones(monkeypatch, tmp_path_factory):
    monkeypatch.setitem(BACKBONES, "quarters", QUARTERS)
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path_factory.mktemp("cache")))


def photos(folder, quarters, count=5, first=0):
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}.png" for i in range(first, first + count)]
    for i, path in enumerate(paths, first):
        path.write_bytes(cv2.imencode(".png", picture(quarters, seed=i, noise=30))[1].tobytes())
    return paths


@pytest.fixture
def run(tmp_path):
    return quarters_run(tmp_path / "run")


@pytest.fixture
def enrol(run):
    """The beginning of a command that takes pictures of faces."""
    return ["enrol", "--checkpoint", run, "--faces", "whole"]


def test_a_class_is_written_and_recognised(enrol, tmp_path, capsys):
    given = photos(tmp_path / "contempt", RED)
    assert main([*map(str, enrol), "--name", "contempt", *map(str, given), "--out", str(tmp_path / "eight")]) == 0
    printed = capsys.readouterr()
    header, row, hint, classes, where = printed.out.splitlines()
    assert header.split("  ")[0] == "class"
    assert "left out: least" in header
    assert hint.startswith("--curve FILE.html tells how many faces of the other classes these take")
    assert row.split()[:2] == ["contempt", "5"]
    assert row.split()[5:8] == ["5", "of", "5"]
    assert (classes, where) == (
        "8 classes, threshold 0.6",
        f"checkpoint: {tmp_path / 'eight' / 'checkpoint.safetensors'}",
    )
    assert printed.err == ""
    model = fer_fast.load(tmp_path / "eight", "cpu")
    others = photos(tmp_path / "others", RED, 3, first=50)
    assert [face.label for (face,) in model.predict(others, faces="whole")] == ["contempt"] * 3


def test_several_classes_at_once_by_name_and_by_folder(enrol, tmp_path, capsys):
    for name, quarters in (("awe", RED), ("doubt", BLUE)):
        photos(tmp_path / "classes" / name, quarters, 3)
    photos(tmp_path / "more", (0, 255, 0, 255), 3)
    command = [*enrol, "--folder", tmp_path / "classes", "--name", "calm", tmp_path / "more", "--threshold", "0.3"]
    assert main([*map(str, command), "--out", str(tmp_path / "ten.safetensors")]) == 0
    assert "10 classes, threshold 0.3\n" in capsys.readouterr().out
    tensors, state = load_checkpoint(tmp_path / "ten.safetensors")
    assert state["classes"] == [*SEVEN, "calm", "awe", "doubt"]
    assert state["threshold"] == 0.3
    assert tensors["classifier.weight"].shape == (10, 4)
    back = ["enrol", "--checkpoint", tmp_path / "ten.safetensors", "--undo", "2", "--out", tmp_path / "eight"]
    assert main([*map(str, back)]) == 0
    assert capsys.readouterr().out.startswith("taken back: doubt\ntaken back: awe\n8 classes, threshold 0.3\n")
    assert load_checkpoint(tmp_path / "eight")[1]["classes"] == [*SEVEN, "calm"]
    assert main(["enrol", "--checkpoint", str(tmp_path / "eight"), "--undo", "--out", str(tmp_path / "seven")]) == 0
    assert "threshold" not in load_checkpoint(tmp_path / "seven")[1]


def test_a_refresh_a_threshold_and_undo_in_place(enrol, run, tmp_path, capsys):
    before, _ = load_checkpoint(run)
    command = [*enrol, "--name", "fear", tmp_path / "fear", "--refresh", "0.5", "--out", run]
    photos(tmp_path / "fear", BLUE)
    assert f"{run / 'checkpoint.safetensors'} is there already; --force replaces it" in fails(command, capsys)
    (tmp_path / "metrics.json").write_text("of a run")
    beside = [*command[:-1], tmp_path / "metrics.safetensors"]
    assert f"{tmp_path / 'metrics.json'} is there already; --force replaces it" in fails(beside, capsys)
    assert main([*map(str, command), "--force"]) == 0
    after, state = load_checkpoint(run)
    changed = (after["classifier.weight"] != before["classifier.weight"]).any(1)
    assert changed.tolist() == [False] * 4 + [True] + [False] * 2
    assert state["enrolled"][0]["op"] == "refresh"
    assert main([*map(str, (*enrol[:3], "--threshold", "-0.25", "--out", run, "--force"))]) == 0
    assert load_checkpoint(run)[1]["threshold"] == -0.25
    assert main([*map(str, (*enrol[:3], "--undo", "--out", run, "--force"))]) == 0
    undone, state = load_checkpoint(run)
    assert torch.equal(undone["classifier.weight"], before["classifier.weight"])
    assert not {"enrolled", "threshold"} & state.keys()
    assert "threshold none: every face is named" in capsys.readouterr().out


def test_a_name_of_any_letters(enrol, tmp_path, capsys):
    photos(tmp_path / "p", RED)
    name = "[b]Verachtung 軽蔑 'x' \"y\" <z>"
    command = [*enrol, "--name", name, tmp_path / "p", "--out", tmp_path / "out"]
    assert main([*map(str, command)]) == 0
    assert name in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "out")[1]["classes"][-1] == name


def test_every_broken_photo_is_named_and_nothing_is_written(enrol, tmp_path, capsys):
    good, broken = photos(tmp_path / "p", RED), tmp_path / "bro\nken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    command = [*enrol, "--name", "awe", *good, broken, "--name", "doubt", tmp_path / "missing.png"]
    assert main([*map(str, command), "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    first, second = captured.err.splitlines()
    assert r"bro\nken.jpg" in first
    assert f"{tmp_path / 'missing.png'}: No such file" in second
    assert captured.out == ""
    assert not (tmp_path / "out").exists()
    assert main([*map(str, (*enrol[:3], "--name", "awe", *good)), "--out", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert all("no face was found; faces whole takes pictures that are faces already" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to do"),
        (["--name", "awe"], "awe has no photos"),
        (["--name", "awe", "P"], "--out is needed"),
        (["--name", "awe", "P", "--name", "awe", "P", "--out", "O"], "the class 'awe' is given twice"),
        (["--name", "awe", "P", "--folder", "C", "--out", "O"], "the class 'awe' is given twice"),
        (["--name", "awe", "EMPTY", "--out", "O"], "awe has no photos"),
        (["--name", "fear", "P", "--out", "O"], "there is a class 'fear' already; refresh adds to it"),
        (["--name", "awe", "P", "--out", "O", "--refresh", "0.5"], "refresh: class: 'awe' is not one of neutral"),
        (["--name", "fear", "P", "--out", "O", "--refresh", "0"], "refresh is 0.0"),
        (["--name", "fear", "P", "--out", "O", "--refresh", "x"], "invalid float value: 'x'"),
        (["--name", "awe", "P", "--out", "O", "--threshold", "1"], "threshold is 1.0"),
        (["--name", "awe", "P", "--out", "O", "--threshold", "nan"], "threshold is nan"),
        (["--name", "unknown", "P", "--out", "O"], "cannot be called 'unknown'"),
        (["--name", "a\nb", "P", "--out", "O"], r"'a\\nb'"),
        (["--folder", "MISSING", "--out", "O"], "is no folder"),
        (["--folder", "P", "--out", "O"], "has no subfolders"),
        (["--refresh", "0.5", "--undo", "--out", "O"], "--undo takes classes back"),
        (["--refresh", "0.5", "--threshold", "0.2", "--out", "O"], "--refresh does nothing without --name"),
        (["--undo", "0", "--out", "O"], "undo is 0"),
        (["--undo", "--out", "O"], "nothing to undo"),
        (["--undo"], "--out is needed"),
        (["--threshold", "0.2"], "--out is needed"),
        (["--out", "O"], "nothing to do"),
        (["--curve", "X.html", "--out", "O"], "--out would be a mere copy"),
        (["--name", "awe", "P", "--out", "O", "--split", "val"], "--split does nothing without --curve"),
        (["--name", "awe", "P", "--out", "O", "--unknown", "P"], "--unknown does nothing without --curve"),
        (["--curve", "X.pdf"], "a file whose name ends in .html is needed"),
        (["--curve", "X.html", "--split", "test"], "invalid choice: 'test'"),
        (["--curve", "X.html", "--known", "C", "--dataset", "faces"], "--dataset is of a dataset"),
        (["--curve", "X.html", "--known", "C"], "refresh: class: 'awe'"),
        (["--curve", "X.html", "--unknown", "MISSING"], "is no folder"),
        (["--curve", "X.html", "--dataset", "facse"], "did you mean"),
        (["--curve", "X.html", "--dataset", "fer2013"], "fer2013"),
        (["--name", "awe", "P", "--out", "FILE/x"], "FILE is a file"),
        (["--checkpoint", "MISSING", "--undo", "--out", "O"], "no checkpoint at"),
        (["--checkpoint", "FILE", "--undo", "--out", "O"], "corrupt or unreadable"),
        (["--faces", "all", "--undo", "--out", "O"], "invalid choice: 'all'"),
        (["--nmae", "awe"], "did you mean --name?"),
    ],
)
def test_bad_input_ends_in_one_line(enrol, tmp_path, capsys, options, message):
    photos(tmp_path / "P", RED)
    photos(tmp_path / "C" / "awe", RED)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").write_text("x")
    names = ("P", "C", "EMPTY", "MISSING", "FILE", "O", "FILE/x", "X.html", "X.pdf")
    options = [tmp_path / word if word in names else word for word in options]
    assert message in fails([*enrol, *options], capsys)
    assert not (tmp_path / "O").exists()
    assert not (tmp_path / "X.html").exists()


def test_a_classifier_of_other_than_directions(tmp_path, capsys):
    run = quarters_run(tmp_path / "softmax", "--loss=softmax")
    photos(tmp_path / "p", RED)
    command = ["enrol", "--checkpoint", run, "--name", "awe", tmp_path / "p", "--out", tmp_path / "o"]
    line = fails(command, capsys)
    assert "as lmcl, arcface, a-softmax do; the classifier of this checkpoint is softmax" in line


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self").exists(), reason="anybody may write anywhere")
def test_a_folder_that_cannot_be_written(enrol, tmp_path, capsys):
    photos(tmp_path / "p", RED)
    assert "/proc/self/x" in fails([*enrol, "--name", "awe", tmp_path / "p", "--out", "/proc/self/x"], capsys)


# A trained run


@pytest.fixture(scope="module")
def faces_run(tmp_path_factory):
    """A tiny network on generated faces, and photos of generated people with contempt."""
    home = tmp_path_factory.mktemp("faces")
    patch = pytest.MonkeyPatch()
    patch.setitem(BACKBONES, "tiny", TINY)
    patch.setenv("FER_FAST_CACHE", str(home / "cache"))
    train = ["--backbone=tiny", "--loss=lmcl", "--augment.size=32", "--epochs=1", "--batch_size=8"]
    samples = "{faces: {samples: {train: 32, val: 56, test: 28}}}"
    assert main(["train", *train, f"--data.options={samples}", f"--out={home / 'run'}"]) == 0
    patch.undo()
    dataset = load_faces(split="test", num_classes=8, samples=64, image_size=48)
    shown = dataset.images[dataset.labels == dataset.classes.index("contempt")]
    (home / "contempt").mkdir()
    for i, image in enumerate(shown):
        cv2.imwrite(str(home / "contempt" / f"{i}.png"), image[0].numpy())
    return home


def test_what_else_reads_an_enrolled_checkpoint(faces_run, tmp_path, capsys):
    eight = str(tmp_path / "eight")
    command = ["enrol", "--checkpoint", str(faces_run / "run"), "--faces", "whole", "--threshold", "-1"]
    assert main([*command, "--name", "contempt", str(faces_run / "contempt"), "--out", eight]) == 0
    capsys.readouterr()
    assert main(["eval", "--checkpoint", eight, "--out", str(tmp_path / "eval")]) == 0
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["classes"][-1] == "contempt"
    assert len(metrics["confusion_matrix"]) == 8
    photo = str(faces_run / "contempt" / "0.png")
    assert main(["predict", "--checkpoint", eight, photo]) == 0
    assert main(["train", "--model.weights", eight, "--backbone=tiny", "--loss=lmcl", "--augment.size=32", "--epochs=1",
                 "--data.options={faces: {samples: 16}}", f"--out={tmp_path / 'on'}"]) == 0  # fmt: skip


def test_the_curve_of_a_run(faces_run, tmp_path, capsys):
    page = tmp_path / "new" / "curve.html"
    command = ["enrol", "--checkpoint", str(faces_run / "run"), "--curve", str(page)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "Known: val of faces. Unknown: the same, each class in turn, whose direction is left out." in printed
    assert f"curve: {page}, {page.with_suffix('.csv')}" in printed
    auroc = float(printed.partition("AUROC ")[2][:6])
    assert ("cosines hardly tell known faces from unknown ones" in printed) == (auroc < 0.7)
    assert ("; suggested: --threshold 0." in printed) == (auroc >= 0.7)
    assert "Over 336 decisions on faces of known classes and 56 on unknown ones." in page.read_text()
    assert f"{page} is there already" in fails(command, capsys)
    assert main([*command, "--force", "--dataset", "faces", "--split", "train"]) == 0
    assert "Known: train of faces." in capsys.readouterr().out


def test_what_an_enrolled_class_takes_of_the_others(faces_run, tmp_path, capsys):
    """The features of a network that learnt nothing all point the same way, which is where the new class lies."""
    command = ["enrol", "--checkpoint", str(faces_run / "run"), "--faces", "whole", "--out", str(tmp_path / "out")]
    command += ["--name", "contempt", str(faces_run / "contempt"), "--curve", str(tmp_path / "c.html")]
    assert main(command) == 0
    printed = capsys.readouterr()
    line = next(line for line in printed.out.splitlines() if line.startswith("of the faces of the 7 classes"))
    taken = float(line.rpartition("contempt ")[2].removesuffix(" %"))
    assert taken > 50
    assert "--refresh 1 with about ten photos of each other class makes all directions means" in printed.err


def test_the_curve_of_photos(enrol, tmp_path, capsys):
    for name, quarters in (("awe", RED), ("doubt", BLUE)):
        photos(tmp_path / "classes" / name, quarters, 6)
        photos(tmp_path / "known" / name, quarters, 4, first=20)
    photos(tmp_path / "strange" / "more", (0, 255, 0, 255), 5)
    photos(tmp_path / "strange", (255, 0, 255, 0), 3)
    (tmp_path / "strange" / "broken.png").write_bytes(b"")
    command = [*enrol, "--folder", tmp_path / "classes", "--out", tmp_path / "out", "--curve", tmp_path / "c.html"]
    command += ["--known", tmp_path / "known", "--unknown", tmp_path / "strange"]
    assert main([*map(str, command)]) == 0
    printed = capsys.readouterr()
    assert f"Unknown: the photos of {tmp_path / 'strange'}." in printed.out
    assert "Over 8 decisions on faces of known classes and 8 on unknown ones." in (tmp_path / "c.html").read_text()
    assert printed.err.count("warning") == 1
    assert f"{tmp_path / 'strange' / 'broken.png'}: " in printed.err
    assert printed.err.endswith("; left out\n")
    known = fer_fast.load(tmp_path / "out", "cpu").predict(sorted((tmp_path / "known").rglob("*.png")), faces="whole")
    share = np.mean([face.cosine > 0.6 for (face,) in known])
    marked = next(line for line in printed.out.splitlines() if line.startswith("the model's"))
    assert f" {100 * share:.1f} %" in marked
