"""`fer-fast compare`: the tests against other ways to work them out, the page, and what is refused."""

import json
import re
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.stats import binomtest

from fer_fast.cli import main
from fer_fast.data.dataset import FaceDataset
from fer_fast.train.compare import holm, mcnemar
from fer_fast.train.metrics import evaluate
from fer_fast.train.predictions import PREDICTIONS, load_predictions, save_predictions
from html_page import Page
from one_line import fails

CLASSES = ("asleep", "awake", "yawning")


def dataset(labels, seed=0, size=4, names=True, **columns):
    """Images of noise."""
    images = torch.randint(256, (len(labels), 1, size, size), generator=torch.Generator().manual_seed(seed)).byte()
    named = tuple(f"{i}.png" for i in range(len(labels))) if names else None
    return FaceDataset(images, torch.tensor(labels), CLASSES, "test", names=named, **columns)


def written(folder, predicted, of, classes=CLASSES, units=None, **metrics):
    """What an evaluation leaves, of which a comparison reads two files."""
    folder.mkdir(parents=True)
    scores = torch.full((len(predicted), len(classes)), 0.1).scatter(1, torch.tensor(predicted)[:, None], 0.8)
    numbers = {**evaluate(of.labels, scores, classes, units), "intervals_by": "image", **metrics}
    (folder / "metrics.json").write_text(json.dumps(numbers))
    save_predictions(folder, of.labels, scores, classes, of)
    return folder


TRUTH = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
FIRST = [0, 0, 0, 1, 1, 1, 0, 0, 2, 0]  # 6 right
SECOND = [0, 0, 0, 0, 1, 0, 1, 1, 2, 2]  # 9 right: 4 that the first is not, 1 less


@pytest.fixture
def runs(tmp_path):
    return [written(tmp_path / name, said, dataset(TRUTH)) for name, said in (("one", FIRST), ("two", SECOND))]


@pytest.mark.parametrize("pair", [(0, 0), (1, 0), (0, 7), (4, 1), (5, 5), (3, 12), (80, 41), (500, 499), (0, 3000)])
def test_mcnemar_is_the_exact_binomial_test(pair):
    wanted = binomtest(pair[0], sum(pair)).pvalue if sum(pair) else 1.0
    assert mcnemar(*pair) == pytest.approx(wanted, rel=1e-9)
    assert mcnemar(*pair) == mcnemar(*pair[::-1])


def test_mcnemar_by_hand():
    """5 pairs that differ, one or less of one kind: 2 · (1 + 5) / 2^5."""
    assert mcnemar(1, 4) == 12 / 32


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.4]) == pytest.approx([0.8, 0.8])
    assert holm([0.9, 0.001, 0.6]) == pytest.approx([1.0, 0.003, 1.0])
    assert holm([0.2]) == [0.2]


def test_two_runs(runs, tmp_path, capsys):
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "page.html")]) == 0
    told = capsys.readouterr().out
    assert "test split, 10 images" in told
    assert re.search(rf"A: {runs[0]} +0\.6000 \[", told)
    assert re.search(r"A → B +\+0\.3000 +1 +4 +0\.375\n", told)
    assert "Holm" not in told
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert "60.0 [" in page.words
    assert "A → B +30.00 5 1 4 0 0.375" in page.words
    # Truth 0: one more right, one less taken for 1; truth 1: one more right, one less for 0; truth 2: one each.
    assert "asleep +25.0 +1 -25.0 -1 0 awake -25.0 -1 +25.0 +1 0 yawning -50.0 -1 0 +50.0 +1" in page.words
    assert not [link for link in page.links if not link.startswith("#")]
    assert "script" not in page.tags
    colours = re.findall(r"background: color-mix\(in srgb, (\S+) (\S+)%, transparent\)\">([+-])", text)
    assert {(sign, "accent" in colour) for colour, _, sign in colours} == {("+", True), ("-", False)}


def test_three_runs_are_corrected(runs, tmp_path, capsys):
    third = written(tmp_path / "three", TRUTH, dataset(TRUTH))
    assert main(["compare", *map(str, (*runs, third)), "--out", str(tmp_path / "page.html")]) == 0
    rows = re.findall(r"(\w) → (\w) +(\S+) +(\d+) +(\d+) +(\S+) +(\S+)", capsys.readouterr().out)
    values = [mcnemar(1, 4), mcnemar(0, 4), mcnemar(0, 1)]
    assert [row[:2] for row in rows] == [("A", "B"), ("A", "C"), ("B", "C")]
    assert [float(row[5]) for row in rows] == pytest.approx(values, rel=1e-2)
    assert [float(row[6]) for row in rows] == pytest.approx(holm(values), rel=1e-2)
    assert Page((tmp_path / "page.html").read_text()).tags.count("details") == 3


def test_images_that_belong_together_are_said_to(tmp_path, capsys):
    for name, said in (("one", FIRST), ("two", SECOND)):
        written(tmp_path / name, said, dataset(TRUTH), intervals_by="subject")
    assert main(["compare", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "page.html")]) == 0
    caution = "Images of one subject are not independent: these p may be too small."
    assert caution in capsys.readouterr().out
    assert caution in Page((tmp_path / "page.html").read_text()).words


def test_the_same_images_at_another_size_are_the_same(runs, tmp_path):
    other = written(tmp_path / "large", SECOND, dataset(TRUTH, size=9))
    assert main(["compare", str(runs[0]), str(other)]) == 0


def test_a_page_of_hostile_names(tmp_path):
    names = ("<script>", "$x$", 'a" onload="x')
    of = FaceDataset(torch.zeros(10, 1, 4, 4, dtype=torch.uint8), torch.tensor(TRUTH), names, "test")
    folders = [written(tmp_path / f"<b>{i}", said, of, names) for i, said in enumerate((FIRST, SECOND))]
    assert main(["compare", *map(str, folders), "--out", str(tmp_path / "page.html")]) == 0
    page = Page((tmp_path / "page.html").read_text())
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert not [name for name in page.attributes if name.startswith("on")]


def test_predictions_come_back(tmp_path):
    of, scores = dataset(TRUTH), torch.rand(10, 3).softmax(1)
    save_predictions(tmp_path, of.labels, scores, CLASSES, of)
    found = load_predictions(tmp_path)
    assert torch.equal(found.scores, scores)
    assert torch.equal(found.labels, of.labels)
    assert (found.classes, found.split, found.data) == (CLASSES, "test", of.digest())
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREDICTIONS]


def test_what_cannot_be_compared(runs, tmp_path, capsys):
    one, two = runs

    def refused(*arguments):
        return fails(["compare", *arguments], capsys)

    assert "2 to 26 runs, got 1" in refused(one)
    assert "2 to 26 runs, got 27" in refused(*[one] * 27)
    assert "is given twice" in refused(one, two, one)
    assert "is given twice" in refused(one, one.parent / "." / "one")
    assert f"{tmp_path / 'none'} does not exist" in refused(one, tmp_path / "none")
    assert "is no folder of a run" in refused(one, one / "metrics.json")
    assert "is a folder; a file is needed" in refused(one, two, "--out", tmp_path)
    assert "cannot write" in refused(one, two, "--out", tmp_path / "missing" / "page.html")
    assert "cannot write" in refused(one, two, "--out", one / "metrics.json" / "page.html")
    for mine in ("metrics.json", "predictions.safetensors"):
        assert f"{mine} is there already; --force replaces it" in refused(one, two, "--out", one / mine)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").touch()
    assert "is a study of several runs" in refused(one, tmp_path / "study")
    (tmp_path / "begun").mkdir()
    assert "is not finished" in refused(one, tmp_path / "begun")

    others = {
        "images": (SECOND, dataset(TRUTH, seed=1, names=False), CLASSES),
        "labels": ([0] * 10, dataset([0] * 9 + [1]), CLASSES),
        "fewer": (SECOND[:5], dataset(TRUTH[:5]), CLASSES),
        "classes": (SECOND, dataset(TRUTH), (*CLASSES, "smiling")),
    }
    for name, (said, of, classes) in others.items():
        folder = written(tmp_path / name, said, of, classes)
        words = "different classes" if name == "classes" else "tested on different images"
        line = refused(one, folder)
        assert words in line
        assert str(one) in line
        assert str(folder) in line


def test_predictions_that_are_missing_or_damaged(runs, tmp_path, capsys):
    one, two = runs

    def refused():
        return fails(["compare", one, two], capsys)

    path = two / PREDICTIONS
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in ("labels", "scores")}
    save_file({**tensors, "scores": tensors["scores"].flip(1).contiguous()}, path, metadata)
    assert "of different predictions" in refused()
    for changes in ({"scores": tensors["scores"][:5]}, {"labels": tensors["labels"] + 1}, {"labels": None}):
        kept = {name: value for name, value in {**tensors, **changes}.items() if value is not None}
        save_file({name: value.contiguous() for name, value in kept.items()}, path, metadata)
        assert f"{path} is damaged" in refused()
    save_file(tensors, path, {"format": "another"})
    assert "holds no predictions of fer-fast (format 'another')" in refused()
    path.write_bytes(b"nothing")
    assert f"{path} is damaged" in refused()
    path.unlink()
    assert "fer-fast eval --checkpoint RUN --out DIR" in refused()
    (two / "checkpoint.safetensors").touch()
    assert f"fer-fast eval --checkpoint {two} --out DIR" in refused()
    (two / "metrics.json").write_text("[]")
    assert "it holds no mapping" in refused()


def test_runs_and_evaluations_leave_what_is_compared(tmp_path, monkeypatch, capsys):
    """Trained, evaluated, compared; an evaluation on the test split of the run's own has its temperature."""
    from fer_fast.train.backbones import BACKBONES
    from stub_datasets import put_classes
    from tiny_backbone import TINY

    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path / "cache"))
    put_classes(tmp_path / "data", {"train": 8, "val": 5, "test": 6})
    shutil.copy(tmp_path / "data" / "test" / "awake" / "0.png", tmp_path / "data" / "train" / "awake" / "more.png")
    command = ["train", "--backbone=tiny", "--dataset=folder", f"--root={tmp_path / 'data'}", "--batch_size=8"]
    command += ["--augment.size=32", "--epochs=2", "--hardware.device=cpu", "--ema=0"]
    for seed in ("1", "2"):
        assert main([*command, f"--seed={seed}", f"--out={tmp_path / seed}"]) == 0
    evaluate = ["eval", "--device=cpu", f"--checkpoint={tmp_path / '2'}"]
    assert main([*evaluate, f"--out={tmp_path / 'again'}"]) == 0
    assert main([*evaluate, "--split=val", f"--out={tmp_path / 'val'}"]) == 0
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "1"), str(tmp_path / "2"), str(tmp_path / "again")]) == 0
    assert re.search(r"B → C +\+0\.0000 +0 +0 +1 +1\n", capsys.readouterr().out)
    assert "tested on different images" in fails(["compare", tmp_path / "1", tmp_path / "val"], capsys)

    shutil.copytree(tmp_path / "data" / "test", tmp_path / "alone" / "test")
    assert main([*evaluate, f"--root={tmp_path / 'alone'}", f"--out={tmp_path / 'without'}"]) == 0
    assert json.loads((tmp_path / "without" / "metrics.json").read_text())["calibration"].keys() == {"bins", "ece"}

    run, again, val = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("2", "again", "val"))
    assert run["calibration"].keys() == {"bins", "ece", "temperature", "ece_tempered"}
    assert again["calibration"] == run["calibration"]
    assert val["calibration"].keys() == {"bins", "ece"}
    assert "also in the test split, pixel for pixel or nearly: 1 image of train and val" in run["notes"][-1]
    assert again["notes"] == run["notes"]
    assert run["counts"] == {"train": 25, "val": 15, "test": 18}
    assert run["parameters"] == again["parameters"] > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", run["date"])
    words = Page((tmp_path / "2" / "report.html").read_text()).words
    for shown in ("25 train images, 15 val images, 18 test images", "What the model looks at", "at the temperature"):
        assert shown in words
    assert "Learning curves" not in Page((tmp_path / "again" / "report.html").read_text()).words
