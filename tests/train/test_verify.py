"""`fer-fast verify`: a run that holds, and whatever is changed of its numbers, its weights or its data."""

import copy
import functools
import json
import operator
import re
import shutil
from dataclasses import replace

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from fer_fast.cli import main
from fer_fast.train import provenance, verify
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.checkpoint import load_checkpoint, save_checkpoint
from fer_fast.train.data import load_splits
from fer_fast.train.evaluation import load_trained, measure
from fer_fast.train.predictions import PREDICTIONS, load_predictions, save_predictions
from stub_datasets import photograph, put, put_classes
from tiny_backbone import TINY
from verified_runs import COUNTS, elsewhere, turned


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch, tmp_path_factory):
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of pictures and a finished run on them."""
    folder = tmp_path_factory.mktemp("made")
    put_classes(folder / "data", COUNTS)
    command = ["train", "--backbone=tiny", "--dataset=folder", f"--root={folder / 'data'}", "--batch_size=8"]
    command += ["--augment.size=32", "--augment.crops=5", "--epochs=3", "--optimiser.rate=0.02", "--ema=0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", TINY)
        patch.setenv("FER_FAST_CACHE", str(folder / "cache"))
        assert main([*command, "--hardware.device=cpu", "--schedule.name=constant", f"--out={folder / 'run'}"]) == 0
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """The run and its data, to be changed."""
    for name in ("data", "run"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def verified(folder, capsys):
    """Verifies the copy: its exit status, what each line says by what it is about, and the conclusion."""

    def verify(*options, root=None):
        capsys.readouterr()
        status = main(["verify", str(folder / "run"), f"--root={root or folder / 'data'}", "--device=cpu", *options])
        *lines, end = capsys.readouterr().out.splitlines()
        verdicts = {line[9:27].strip(): (line[:7].strip(), line[29:]) for line in lines}
        return status, verdicts, end

    return verify


def differing(verdicts):
    return {what for what, (verdict, _) in verdicts.items() if verdict == "differs"}


def edit(folder, change):
    """Change the numbers that a run states."""
    path = folder / "run" / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    change(metrics)
    path.write_text(json.dumps(metrics), encoding="utf-8")


def test_a_run_holds_wherever_its_data_lies(verified, made, folder):
    status, verdicts, end = verified()
    metrics = json.loads((folder / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert status == 0
    assert verdicts.pop("seconds") == verdicts.pop("report.html") == ("note", "not looked at")
    assert {verdict for verdict, _ in verdicts.values()} == {"holds"}
    assert end == f"{folder / 'run'} holds: {len(verdicts)} statements"
    assert verdicts["data"] == verdicts["splits"] == ("holds", "train 24, val 12, test 18 images")
    assert verdicts["accuracy"] == ("holds", f"{metrics['accuracy']:.4f}")
    assert verdicts["confusion_matrix"] == ("holds", "0 of 18 predictions differ")
    stated = {*metrics} - {"seconds", "data", "splits", "confusion_matrix"}
    recorded = {"recipe", "seed", "epoch", "epochs", "step", "notes"}
    recorded |= {"command", "commit", "versions", "device", "resumed", "date", "counts"}
    assert verdicts.keys() >= stated - recorded  # the record is one line
    assert recorded <= stated
    assert verified(root=made / "data")[0] == 0


PLACES = {
    "accuracy": ("accuracy",),
    "average_accuracy": ("average_accuracy",),
    "macro_f1": ("macro_f1",),
    "cohen_kappa": ("cohen_kappa",),
    "krippendorff_alpha": ("krippendorff_alpha",),
    "auc": ("auc",),
    "auc_pr": ("auc_pr",),
    "intervals": ("intervals", "macro_f1", 0),
    "per_class": ("per_class", "yawning", "recall"),
    "confusion_matrix": ("confusion_matrix", 2, 2),
    "crops": ("crops", "1", "accuracy"),
    "calibration": ("calibration", "temperature"),
    "parameters": ("parameters",),
    "images": ("images",),
    "classes": ("classes", 0),
    "weights": ("weights",),
    "intervals_by": ("intervals_by",),
}


@pytest.fixture(scope="module")
def numbers(made):
    """The numbers that the run states, and those that are found again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", TINY)
        patch.setenv("FER_FAST_CACHE", str(made / "cache"))
        trained = load_trained(made / "run", "cpu")
        splits = load_splits(trained.config)
        found = measure(trained, splits.test, validation=splits.val).metrics
    return json.loads((made / "run" / "metrics.json").read_text(encoding="utf-8")), found


def wrong_numbers(stated, found):
    return {finding.what for finding in verify._numbers(stated, found, False) if finding.verdict == "differs"}


@pytest.mark.parametrize("what", PLACES)
def test_one_changed_number_is_found(numbers, what):
    stated, found = copy.deepcopy(numbers)
    assert wrong_numbers(stated, found) == set()
    *way, last = PLACES[what]
    values = functools.reduce(operator.getitem, way, stated)
    more = {str: "x", int: 1, float: 1e-12}[type(values[last])]
    values[last] += more
    assert wrong_numbers(stated, found) == {what}


@pytest.mark.parametrize("value", [None, "x", [], {}, [[1.5]], [["a"]], [[1], [2, 3]], [[0, 0, 0]] * 3])
def test_a_confusion_matrix_that_is_none_differs(numbers, value):
    stated, found = numbers
    assert wrong_numbers({**stated, "confusion_matrix": value}, found) == {"confusion_matrix"}


def test_one_changed_number_of_a_run_is_found(verified, folder):
    edit(folder, lambda metrics: metrics.update(auc=metrics["auc"] + 1e-12))
    status, verdicts, end = verified()
    assert (status, differing(verdicts)) == (1, {"auc"})
    assert re.fullmatch(rf"{folder / 'run'} does not hold: 1 of 2\d statements differ", end)


def test_stored_predictions_are_those_of_the_images(verified, folder, monkeypatch):
    stored = load_predictions(folder / "run")
    test = load_splits(load_trained(folder / "run", "cpu").config).test

    def keep(labels=stored.labels, scores=stored.scores, classes=stored.classes, of=test):
        save_predictions(folder / "run", labels, scores, classes, of)
        return verified()[1]["predictions"]

    assert keep() == ("holds", "0 of 18 predictions differ")
    assert keep(labels=stored.labels.flip(0)) == ("differs", "its images are others")
    assert keep(classes=("a", "b", "c")) == ("differs", "its images are others")
    assert keep(of=replace(test, images=255 - test.images[:])) == ("differs", "its images are others")
    other = stored.scores.clone()
    other[0] = other[0].roll(1)
    assert keep(scores=other) == ("differs", "1 of 18 predictions differ")
    elsewhere(monkeypatch)
    assert keep(scores=other) == ("holds", "1 of 18 predictions differ, 1 may")
    other[1] = other[1].roll(1)
    assert keep(scores=other) == ("differs", "2 of 18 predictions differ, 1 may")
    (folder / "run" / PREDICTIONS).unlink()
    assert verified()[1]["predictions"] == ("note", "not there")


def test_a_changed_record_is_found(verified, folder):
    edit(folder, lambda metrics: metrics.update(epoch=9))
    status, verdicts, _ = verified()
    assert (status, differing(verdicts)) == (1, {"record"})
    assert re.fullmatch(r"epoch: stated 9, found [123]", verdicts["record"][1])
    keys = ("val_accuracy", "epochs", "seed", "recipe", "command", "commit", "versions", "device", "notes")
    edit(folder, lambda metrics: metrics.update(dict.fromkeys(keys, "other")))
    assert verified()[1]["record"][1].endswith("(and 9 more)")


def test_one_changed_weight_is_found(verified, folder):
    path = folder / "run" / "checkpoint.safetensors"
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    next(iter(tensors.values())).view(-1)[0] += 1e-6  # too little for any prediction
    save_file(tensors, path, metadata)
    status, verdicts, _ = verified()
    assert status == 1
    assert "weights" in differing(verdicts)
    assert verdicts["confusion_matrix"][0] == "holds"


def _paint(data):
    put(data / "test" / "awake" / "3.png", photograph(999, size=32))


def _relabel(data):
    (data / "test" / "awake" / "3.png").rename(data / "test" / "asleep" / "9.png")


def _move(data):
    (data / "train" / "awake" / "7.png").rename(data / "test" / "awake" / "9.png")


def _swap(data):
    (data / "val").rename(data / "other")
    (data / "test").rename(data / "val")
    (data / "other").rename(data / "test")


@pytest.mark.parametrize(
    ("change", "pixels", "names"),
    [
        (_paint, {"test"}, set()),
        (_relabel, {"test"}, {"test"}),  # a folder of a class is part of a name
        (_move, {"train", "test"}, {"train", "test"}),
        (_swap, {"val", "test"}, {"val", "test"}),
    ],
)
def test_changed_data_is_found(verified, folder, change, pixels, names):
    change(folder / "data")
    status, verdicts, _ = verified()
    assert status == 1
    for key, splits, what in (("data", pixels, "pixels and labels"), ("splits", names, "names")):
        if splits:
            assert verdicts[key] == (
                "differs",
                f"{', '.join(s for s in COUNTS if s in splits)}: other {what} than the run's",
            )
        else:
            assert verdicts[key][0] == "holds"


def test_another_epoch_than_the_selected_is_found(verified, folder):
    log = folder / "run" / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    best = max(row["val_accuracy"] for row in rows)
    rows[-1]["val_accuracy"] = best + 0.01
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, verdicts, _ = verified()
    assert (status, differing(verdicts)) == (1, {"selection"})


@pytest.mark.parametrize("name", ["config.yaml", "checkpoint.json"])
def test_a_changed_copy_of_the_settings_is_found(verified, folder, name):
    path = folder / "run" / name
    text = path.read_text(encoding="utf-8")
    assert "0.02" in text
    path.write_text(text.replace("0.02", "0.03", 1), encoding="utf-8")
    status, verdicts, _ = verified()
    assert (status, differing(verdicts)) == (1, {name})
    path.unlink()
    assert verified()[0] == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", None, "run is not finished: there is no metrics.json"),
        ("metrics.json", b"{", "metrics.json is damaged: "),
        ("metrics.json", b"[]", "metrics.json is damaged: it holds no mapping"),
        ("checkpoint.safetensors", None, "no checkpoint at "),
        ("checkpoint.safetensors", b"\0" * 100, "corrupt or unreadable"),
        ("checkpoint.json", b"\xff", "checkpoint.json is damaged: "),
        ("config.yaml", b"a: [", "config.yaml is not valid YAML"),
        ("log.jsonl", b"{}\n", "log.jsonl cannot be read"),
        ("log.jsonl", None, "log.jsonl cannot be read"),
    ],
)
def test_what_is_damaged_or_missing_cannot_be_verified(folder, capsys, name, content, message):
    path = folder / "run" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert main(["verify", str(folder / "run"), f"--root={folder / 'data'}"]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert message in error
    assert error.count("\n") == 1


def test_without_its_data_a_run_cannot_be_verified(folder, capsys):
    assert main(["verify", str(folder / "run"), f"--root={folder / 'none'}"]) == 2
    assert f"{folder / 'none'} does not exist" in capsys.readouterr().err


def test_what_is_no_run_is_named(folder, capsys, monkeypatch):
    def said(*arguments):
        assert main([*map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert f"{folder / 'none'} does not exist" in said("verify", folder / "none")
    shutil.copytree(folder / "run", folder / "evaluation", ignore=lambda *_: ["checkpoint.safetensors", "config.yaml"])
    (folder / "evaluation" / "resume.safetensors").unlink()
    line = said("verify", folder / "evaluation")
    assert (
        f"{folder / 'evaluation'} is of an evaluation, without a checkpoint; verify the run that was evaluated" in line
    )
    monkeypatch.chdir(folder / "run")
    line = said("verify", ".", "--root", "data")
    assert f"data does not exist in {folder / 'run'}; --root DIR says where it is" in line


def test_elsewhere_one_prediction_in_a_thousand_may_turn(verified, made, folder, monkeypatch):
    edit(folder, lambda metrics: turned(metrics, 1))
    assert "confusion_matrix" in differing(verified()[1])  # not on the same machine
    elsewhere(monkeypatch)
    status, verdicts, _ = verified()
    assert (status, differing(verdicts)) == (0, set())
    was = json.loads((made / "run" / "metrics.json").read_text(encoding="utf-8"))
    now = json.loads((folder / "run" / "metrics.json").read_text(encoding="utf-8"))
    for key in ("accuracy", "cohen_kappa"):
        assert was[key] != now[key]
        assert verdicts[key] == ("holds", f"stated {now[key]}, found {was[key]}")
    assert verdicts["intervals"][1].startswith("accuracy: stated ")
    assert verdicts["auc"] == ("holds", f"{was['auc']:.4f}")
    assert verdicts["device"] == ("note", "threads: stated 1, found 99; rounding may differ")
    assert verdicts["confusion_matrix"] == ("holds", "1 of 18 predictions differ, 1 may")
    edit(folder, lambda metrics: metrics.update(accuracy=metrics["accuracy"] + 1e-3))  # does not follow from the matrix
    assert differing(verified()[1]) == {"accuracy"}
    edit(folder, lambda metrics: turned(metrics, 1))
    assert "confusion_matrix" in differing(verified()[1])


def test_elsewhere_numbers_beside_the_matrix_are_near(numbers):
    def verdict(key, change, unit="image"):
        stated, found = copy.deepcopy(numbers)
        change(stated)
        stated["intervals_by"] = found["intervals_by"] = unit
        (told,) = (each for each in verify._numbers(stated, found, True) if each.what == key)
        return told.verdict, told.exact

    def moved(key, by):
        return lambda metrics: metrics.update({key: metrics[key] - by})

    def shifted(by):
        return lambda metrics: metrics["intervals"]["macro_f1"].__setitem__(0, metrics["intervals"]["macro_f1"][0] + by)

    for key in ("auc", "auc_pr"):
        assert verdict(key, moved(key, 0)) == ("holds", True)
        assert verdict(key, moved(key, 9e-4)) == ("holds", False)
        assert verdict(key, moved(key, 1.1e-3)) == ("differs", True)
    assert verdict("intervals", shifted(1e-5)) == ("differs", True)  # of images they follow from the matrix
    assert verdict("intervals", shifted(9e-3), "subject") == ("holds", False)
    assert verdict("intervals", shifted(1.1e-2), "subject") == ("differs", True)
    assert verdict("images", moved("images", 1)) == ("differs", True)
    negative = lambda metrics: metrics.update(confusion_matrix=[[7, -1, 0], [0, 6, 0], [0, 0, 6]])  # noqa: E731
    assert verdict("confusion_matrix", negative)[0] == "differs"


def test_other_versions_are_named(verified, monkeypatch):
    here = provenance.versions
    monkeypatch.setattr(provenance, "versions", lambda: {**here(), "numpy": "9.9"})
    status, verdicts, _ = verified()
    assert status == 0
    assert verdicts["versions"][1].endswith('found "9.9"; rounding may differ')


def test_a_run_that_does_not_tell_its_precision_is_not_of_elsewhere(verified, folder):
    tensors, state = load_checkpoint(folder / "run")
    del state["device"]["precision"]
    save_checkpoint(folder / "run", tensors, state)
    edit(folder, lambda metrics: metrics["device"].pop("precision"))
    status, verdicts, _ = verified()
    assert (status, "device" in verdicts) == (0, False)
    edit(folder, lambda metrics: metrics.update(auc=metrics["auc"] + 1e-12))
    assert differing(verified()[1]) == {"auc"}


def test_numbers_that_are_not_stated_are_named(verified, folder):
    edit(folder, lambda metrics: [metrics.pop(key) for key in ("intervals", "splits")])
    status, verdicts, _ = verified()
    assert (status, differing(verdicts)) == (0, set())
    assert verdicts["intervals"] == verdicts["splits"] == ("note", "not stated")


def test_what_differs_is_named_with_the_first_place():
    found = verify._compared("x", {"a": [1, {"b": 2.5}], "c": None}, {"a": [1, {"b": 2}], "d": "e"})
    assert found == verify.Finding("differs", "x", "a: b: stated 2.5, found 2 (and 1 more)")
    near = verify._compared("x", 0.1, 0.2, slack=0.11)
    assert near == verify.Finding("holds", "x", "stated 0.1, found 0.2", exact=False)
    assert verify._compared("x", float("nan"), 0.2, slack=1).verdict == "differs"
    assert verify._compared("x", [1], [1, 2]).verdict == verify._compared("x", "1", 1).verdict == "differs"
