"""Before the first batch: what cannot be trained, started from, reported or written ends the run at its beginning."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest
import torch
import yaml

from fer_fast.cli import main
from fer_fast.data import Drawn
from fer_fast.data.dataset import FaceDataset
from fer_fast.data.labels import CLASSES
from fer_fast.errors import InputError
from fer_fast.registry import available
from fer_fast.train import run
from fer_fast.train.backbones import BACKBONES, BackboneInfo
from fer_fast.train.checkpoint import load_checkpoint, load_resume, save_checkpoint, save_resume
from fer_fast.train.config import RECIPES, config_parser, recipe_layer, resolve
from fer_fast.train.idle import refuse_idle
from fer_fast.train.loop import Trainer
from fer_fast.train.preflight import REPORT_BYTES, check_model, needed_bytes
from fer_fast.train.progress import LineProgress
from one_line import fails
from tiny_backbone import Normed

TINY = (
    *("train", "--backbone", "tiny", "--epochs", "1", "--batch_size", "8", "--augment.size", "32"),
    *("--data.image_size", "32", "--data.options", "{faces: {samples: 16}}", "--hardware.precision", "float32"),
)


def _pad(network):
    network.conv.padding = (2, 2)


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch):
    monkeypatch.setitem(BACKBONES, "tiny", BackboneInfo("a test", 8, Normed, caffe=_pad))


@pytest.fixture
def unopened(monkeypatch):
    """Fails where a run comes as far as its data."""

    def load(*_):
        raise AssertionError("the data was opened")

    monkeypatch.setattr(run, "load_splits", load)


def configure(*flags, recipe="quick"):
    return resolve(config_parser(), [*TINY[1:], *flags], [recipe_layer(recipe)])[0]


# Networks and weights, before the data


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "tiny"])
def test_every_backbone_can_be_tried_without_memory(name):
    check_model(configure("--backbone", name), None)
    with pytest.raises(InputError, match=r"model\.frozen_stages is 9"):
        check_model(configure("--backbone", name, "--model.frozen_stages", "9"), None)


@pytest.mark.parametrize("row", available(), ids=lambda row: row.name)
def test_every_loss_can_be_tried_without_memory(row):
    check_model(configure("--loss", row.name), None)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--backbone", "resnet81"), "resnet18"),
        (("--loss", "lmcl", "--objective.options", "{lmcl: {s: -1}}"), "objective.options.lmcl"),
        (("--hardware.device", "abacus"), "abacus"),
        (("--model.weights", "/nonexistent/w.pth"), "no weights file at /nonexistent/w.pth"),
        (
            ("--model.geometry", "caffe", "--backbone", "alexnet"),
            "'caffe' with stem standard does not exist for",
        ),
    ],
)
def test_mistakes_are_found_before_the_data(unopened, tmp_path, capsys, flags, message):
    assert message in fails([*TINY, *flags, "--out", tmp_path / "out"], capsys)
    assert not (tmp_path / "out").exists()


def test_weights_of_another_network_are_found_before_the_data(unopened, tmp_path, capsys):
    torch.save({"layer.weight": torch.zeros(2, 2)}, tmp_path / "w.pth")
    line = fails([*TINY, "--model.weights", tmp_path / "w.pth", "--out", tmp_path / "out"], capsys)
    assert "0 of 6 tensors match; it wants conv.weight" in line


# Everything a run needs to its end, before the first batch


@pytest.fixture
def untrained(monkeypatch):
    """Fails where a run comes as far as its first batch."""

    def fit(*_):
        raise AssertionError("training began")

    monkeypatch.setattr(Trainer, "fit", fit)


def test_a_test_split_that_cannot_be_opened(untrained, tmp_path, capsys, monkeypatch):
    real = Drawn.split

    def load(self, split):
        if split == "test":
            raise InputError("there is no private half")
        return real(self, split)

    monkeypatch.setattr(Drawn, "split", load)
    assert "there is no private half" in fails([*TINY, "--out", tmp_path / "out"], capsys)
    assert not (tmp_path / "out").exists()


def test_a_test_split_of_other_classes(untrained, tmp_path, capsys):
    classes = "{faces: {samples: 16, num_classes: {train: 7, val: 7, test: 8}}}"
    line = fails([*TINY, "--data.options", classes, "--out", tmp_path / "out"], capsys)
    assert "the model does not know contempt of the dataset" in line


def test_too_little_room(untrained, tmp_path, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 1_000_000))
    assert "has 1 MB free; the run's files need 34 MB" in fails([*TINY, "--out", tmp_path / "out"], capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("select", ["best", "last"])
@pytest.mark.parametrize("ema", ["0", "0.9"])
@pytest.mark.parametrize(
    "optimiser", [("adamw",), ("sgd", "--optimiser.momentum", "0.9"), ("sgd", "--optimiser.momentum", "0")]
)
def test_the_room_a_run_needs_is_that_of_its_files(tmp_path, select, ema, optimiser):
    flags = ("--select", select, "--ema", ema, "--optimiser.name", *optimiser)
    images = torch.zeros(16, 1, 32, 32, dtype=torch.uint8)
    faces = FaceDataset(images, torch.arange(16) % 7, CLASSES[:7], "train")
    trainer = Trainer(configure(*flags, "--model.nodes", "4096"), faces, faces)
    before = needed_bytes(trainer, tmp_path) - REPORT_BYTES
    trainer.fit(LineProgress(), lambda: None)
    save_resume(tmp_path, trainer.tensors(), trainer.state())
    save_checkpoint(tmp_path, trainer.weights()[1], {})
    state, weights = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("resume", "checkpoint"))
    assert before == pytest.approx(2 * state + weights, rel=0.02)
    # What is there already is not needed again.
    assert needed_bytes(trainer, tmp_path) - REPORT_BYTES == pytest.approx(state, rel=0.04)


# What a run starts from


def test_weights_are_not_needed_again(tmp_path, capsys):
    weights = tmp_path / "w.pth"
    torch.save({f"module.{name}": value for name, value in Normed(1).state_dict().items()}, weights)
    out = tmp_path / "out"
    assert main([*TINY, "--model.weights", str(weights), "--out", str(out)]) == 0
    assert f"weights {weights}: 6 of 6 tensors matched\n" in capsys.readouterr().out
    weights.unlink()
    assert main(["train", "--resume", "--out", str(out), "--epochs", "2"]) == 0
    assert "extended from 1 to 2 epochs" in capsys.readouterr().out
    assert main(["eval", "--checkpoint", str(out)]) == 0


def test_an_earlier_run_of_other_classes_is_a_start(tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main([*TINY, "--out", str(first)]) == 0
    options = ("--data.options", "{faces: {samples: 16, num_classes: 8}}", "--optimiser.rate", "1e-12")
    capsys.readouterr()
    assert main([*TINY, *options, "--ema", "0", "--model.weights", str(first), "--out", str(second)]) == 0
    assert "checkpoint.safetensors: 6 of 6 tensors matched; the classifier starts anew" in capsys.readouterr().out
    (one, _), (other, about) = load_checkpoint(first), load_checkpoint(second)
    assert len(about["classes"]) == 8
    name = "encoder.backbone.network.conv.weight"
    torch.testing.assert_close(one[name], other[name])


def test_the_geometry_of_the_weights_is_kept_with_the_run(tmp_path, capsys):
    weights = tmp_path / "w.pkl"
    state = {name: value.numpy() for name, value in Normed(3).state_dict().items() if "num_batches" not in name}
    weights.write_bytes(pickle.dumps({**state, "fc.weight": np.zeros((5, 8), np.float32)}, protocol=2))
    out, again = tmp_path / "out", tmp_path / "again"
    assert main([*TINY, "--model.weights", str(weights), "--out", str(out)]) == 0
    assert yaml.safe_load((out / "config.yaml").read_text())["model"]["geometry"] == "caffe"
    tensors, _ = load_checkpoint(out)
    assert tensors["encoder.backbone.network.conv.weight"].shape == (8, 3, 5, 5)  # of a run on gray images
    weights.unlink()
    capsys.readouterr()
    assert main(["eval", "--checkpoint", str(out), "--out", str(tmp_path / "eval")]) == 0
    accuracies = [json.loads((folder / "metrics.json").read_text())["accuracy"] for folder in (out, tmp_path / "eval")]
    assert accuracies[0] == accuracies[1]
    assert main([*TINY, "--resume", "--model.weights", str(weights), "--out", str(out), "--epochs", "2"]) == 0
    assert main([*TINY, "--model.weights", str(out), "--out", str(again)]) == 0
    assert load_resume(again, tensors=False)[1]["config"]["model"]["geometry"] == "caffe"


# Options that do nothing


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--objective.weight 0.5",
            "objective.weight does nothing in this run; it acts when --loss is an auxiliary",
        ),
        ("--objective.classifier lmcl --loss arcface", "objective.classifier does nothing"),
        (
            "--objective.options {center: {alpha: 0.1}}",
            "objective.options.center does nothing in this run",
        ),
        ("--objective.options.softmx.a 1 --loss center", "which reads those of softmax, center"),
        ("--objective.extra {ensc: {mva: 0.5}}", "objective.extra.ensc does nothing in this run"),
        ("--data.options {fer2013: {joined: true}}", "data.options.fer2013 does nothing in this run"),
        ("--data.fold 1", "data.fold does nothing in this run; it acts on a dataset that is read from a folder"),
        ("--data.faces align", "data.faces does nothing"),
        ("--data.unreadable skip", "data.unreadable does nothing"),
        ("--data.duplicates drop", "data.duplicates does nothing"),
        ("--data.order official", "data.order does nothing"),
        ("--model.embeddings 3 --loss center", "it acts with a loss on k embeddings"),
        ("--model {dropout: 0.1}", "model.dropout does nothing"),
        ("--model.key_momentum 0.9 --loss ad-corre", "model.key_momentum does nothing"),
        ("--model.bank_groups 2 --loss supcon", "esc, ensc or mva"),
        ("--model.stem auto", "model.stem does nothing in this run; it acts with a ResNet"),
        ("--augment.grayscale 0.1", "augment.grayscale does nothing"),
        ("--augment.saturation=0.1 --augment.channels 3", "augment.saturation does nothing"),
        ("--augment.erasing_area [0.1,0.2]", "it acts with augment.erasing above 0"),
        ("--optimiser.momentum 0.9", "it acts with optimiser.name sgd"),
        ("--optimiser.nesterov true", "optimiser.nesterov does nothing"),
        ("--optimiser.betas [0.8,0.9] --optimiser.name sgd", "it acts with optimiser.name adam or adamw"),
        ("--schedule.step_epochs 3", "it acts with schedule.name step"),
        ("--schedule.floor 0.1 --schedule.name step", "it acts with schedule.name cosine"),
        ("--schedule {decay: 0.1}", "it acts with schedule.name inverse"),
    ],
)
def test_options_that_do_nothing_are_refused(unopened, tmp_path, capsys, flags, message):
    words = [*flags.replace(": ", ":\0").split(), "--out", tmp_path / "out"]
    assert message in fails([*TINY, *(str(word).replace("\0", " ") for word in words)], capsys)


def test_no_face_can_be_missing_where_none_is_looked_for():
    arguments = ["--dataset=expw", "--data.faces=whole", "--data.no_face=skip"]
    config, _ = resolve(config_parser(), arguments, [recipe_layer("quick")])
    with pytest.raises(
        InputError, match=r"data\.no_face does nothing in this run; it acts unless data\.faces is whole"
    ):
        refuse_idle(config, arguments, recipe_layer("quick"), {})


@pytest.mark.parametrize(
    "flags",
    [
        "--loss center --objective.weight 0.5 --objective.classifier lmcl --objective.options.lmcl.s 20",
        "--loss ensc --objective.extra.ensc.mva 0.5 --model.bank_groups 2 --model.projection_dim 8",
        "--loss ad-corre --model.embeddings 3 --model.dropout 0.1",
        "--dataset ckplus --data.fold 2 --data.no_face skip --data.unreadable skip --data.duplicates drop",
        "--dataset expw --data.faces align --data.no_face skip",
        "--model.stem standard --backbone mobilenetv3",
        "--model.stem small --backbone resnet18",
        "--augment.channels 3 --data.channels 3 --augment.grayscale 0.1",
        "--optimiser.name sgd --optimiser.nesterov true --schedule.name step --schedule.factor 0.1",
        "--root a:b:{",
    ],
)
def test_options_that_act_are_taken(flags):
    arguments = flags.split()
    config, _ = resolve(config_parser(), arguments, [recipe_layer("quick")])
    refuse_idle(config, arguments, recipe_layer("quick"), {})


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_a_recipe_sets_is_its_own_affair(recipe):
    config, _ = resolve(config_parser(), ["--loss", "softmax"], [recipe_layer(recipe)])
    refuse_idle(config, ["--loss", "softmax"], recipe_layer(recipe), {})
    written = yaml.safe_load(run.to_yaml(config))
    refuse_idle(config, [], recipe_layer(recipe), written)


def test_a_file_is_asked_for_what_it_changes(tmp_path, capsys, unopened):
    path = tmp_path / "c.yaml"
    path.write_text("optimiser: {momentum: 0.5}\n")
    line = fails([*TINY, "--config", path, "--out", tmp_path / "out"], capsys)
    assert "optimiser.momentum does nothing in this run" in line


# Two runs at once


def test_two_runs_never_share_a_folder(tmp_path):
    flags = [*TINY, "--backbone", "mobilenetv3"]
    command = [sys.executable, "-c", "from fer_fast.cli import main; raise SystemExit(main())"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(*arguments):
        return subprocess.Popen(
            [*command, *flags, *arguments], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        )

    runs = [start("--out", "out"), start("--out", "out")]
    ends = [process.communicate(timeout=300)[1] for process in runs]
    codes = [process.returncode for process in runs]
    assert sorted(codes) == [0, 2], ends
    loser = ends[codes.index(2)]
    assert "another run is writing in out" in loser or "out already holds a run" in loser
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["epochs"] == 1
