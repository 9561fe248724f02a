"""A run that is stopped at any moment and resumed ends with the same bits as one that was never stopped."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from itertools import cycle

import pytest
import torch

from fer_fast.cli import main
from fer_fast.data.dataset import FaceDataset
from fer_fast.data.labels import CLASSES
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.checkpoint import below, load_checkpoint, load_resume, save_resume
from fer_fast.train.config import config_parser, recipe_layer, resolve
from fer_fast.train.loop import Trainer
from fer_fast.train.progress import LineProgress

SMALL = (
    *("--epochs", "3", "--batch_size", "16", "--seed", "3", "--ema", "0.9"),
    *("--augment.size", "32", "--data.image_size", "32", "--data.options", "{faces: {samples: 48}}"),
)
TIMES = ("seconds", "images_per_second", "date")
SITTINGS = ("command", "commit", "resumed")  # what tells a run from another of the same numbers
# A shell lets what it starts in the background ignore Ctrl-C, and so do its children.
PROGRAM = """
import signal
from fer_fast.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
raise SystemExit(main())
"""


# Killed after the state of the second epoch, before the weights of it.
STOP_BEFORE_WEIGHTS = """
import os
from fer_fast.train import run
def keep(folder, tensors, state, real=run.save_checkpoint):
    os.kill(os.getpid(), signal.SIGKILL) if state["epoch"] > 1 else real(folder, tensors, state)
run.save_checkpoint = keep
"""


def fer_fast(*arguments, program=PROGRAM, **keywords):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords
    )


def run(*arguments):
    process = fer_fast(*arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def result(folder):
    """State, log and metrics of a run without its times; the selected weights are those of the state."""
    tensors, state = load_resume(folder)
    weights, about = load_checkpoint(folder)
    best = below("best", tensors)
    assert about["epoch"] == state["best"]["epoch"]
    assert weights.keys() == best.keys()
    assert all(torch.equal(weights[name], best[name]) for name in best)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert state["history"] == log
    rows = [{key: value for key, value in row.items() if key not in TIMES} for row in log]
    return tensors, rows, {key: value for key, value in metrics.items() if key not in (*TIMES, *SITTINGS)}


def assert_same(one, other):
    (tensors, *rest), (others, *other_rest) = one, other
    assert tensors.keys() == others.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], others[name])] == []
    assert rest == other_rest


def trainer(*flags, recipe="ecan"):
    """A trainer of one step an epoch, by default with all that a run can hold: key encoder, bank, moving centers."""
    small = ("--epochs", "2", "--batch_size", "4", "--augment.size", "32", "--augment.channels", "3")
    small += ("--augment.mean", "0.5", "--augment.deviation", "0.25", "--augment.crops", "1")
    small += ("--model.bank_groups", "2", "--model.stem", "standard", "--model.nodes", "16", "--hardware.device", "cpu")
    config, _ = resolve(config_parser(), [*small, *flags], [recipe_layer(recipe)])
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    faces = FaceDataset(images, torch.tensor([0, 1, 2, 0]), CLASSES[:3], "train")
    return Trainer(config, faces, faces)


def fitted(through, *flags, **recipe):
    """The bits of a trainer at its end, and what `through` makes of it after the first epoch."""
    whole, kept = trainer(*flags, **recipe), []
    whole.fit(LineProgress(), lambda: kept or kept.append(through(whole.tensors(), whole.state())))
    return bits(whole.tensors()), kept.pop()


def assert_resumes(through, *flags, **recipe):
    """A trainer that takes over after the first epoch what `through` makes of it ends with the same bits."""
    expected, kept = fitted(through, *flags, **recipe)  # two trainers of AlexNet at once are five gigabytes
    resumed = trainer(*flags, **recipe)
    resumed.resume(*kept)
    resumed.fit(LineProgress(), lambda: None)
    found = bits(resumed.tensors())
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def bits(tensors):
    """Dtypes, shapes and digests of tensors by name."""
    dense = {name: value.detach().contiguous() for name, value in tensors.items()}
    return {
        name: (value.dtype, value.shape, zlib.crc32(value.view(-1).view(torch.uint8).numpy()))
        for name, value in dense.items()
    }


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("ema", ["0", "0.9"])
@pytest.mark.parametrize("recipe", ["quick", "ecan"])
def test_whatever_a_run_holds_goes_on_from_a_file(recipe, ema, optimiser, tmp_path):
    def through(tensors, state):
        save_resume(tmp_path, tensors, state)
        return load_resume(tmp_path)

    assert_resumes(through, "--backbone", "resnet18", "--ema", ema, "--optimiser.name", optimiser, recipe=recipe)


@pytest.mark.parametrize(("backbone", "optimiser"), [*zip(BACKBONES, cycle(["sgd", "adamw"]), strict=False)])
def test_layers_of_every_kind_go_on_from_contiguous_tensors(backbone, optimiser):
    def through(tensors, state):  # as from a file, which would hold a gigabyte of AlexNet
        plain = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
        return plain, copy.deepcopy(state)

    assert_resumes(through, "--backbone", backbone, "--ema", "0.9", "--optimiser.name", optimiser)


posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
softmax_only = pytest.mark.parametrize("uninterrupted", ["softmax"], indirect=True)


@pytest.fixture(scope="module", params=["softmax", "ecan"])
def uninterrupted(request, tmp_path_factory):
    # At this rate the second epoch is better than the first.
    flags = [*SMALL, "--optimiser.rate", "0.001"]
    flags += ["--backbone", "resnet18" if request.param == "softmax" else "mobilenetv3"]
    if request.param == "ecan":
        flags += ["--recipe", "ecan", "--dataset", "faces", "--model.stem", "standard", "--model.bank_groups", "2"]
    folder = tmp_path_factory.mktemp(request.param) / "whole"
    status, _, err = run("train", *flags, "--out", folder)
    assert status == 0, err
    return flags, folder


@posix_only
def test_the_same_seed_gives_the_same_bits_after_a_kill(uninterrupted, tmp_path):
    flags, whole = uninterrupted
    folder = tmp_path / "killed"
    process = fer_fast("train", *flags, "--out", folder)
    # The second epoch is under way as soon as the first one's line is out; its state is written meanwhile.
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            break
    while not (folder / "resume.safetensors").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = load_resume(folder, tensors=False)[1]["epoch"]
    assert 1 <= done < 3
    assert not (folder / "metrics.json").exists()
    status, out, err = run("train", "--resume", "--out", folder)
    assert status == 0, err
    assert f"continuing after epoch {done}" in out
    assert_same(result(folder), result(whole))


@posix_only
@softmax_only
def test_ctrl_c_ends_with_one_line_and_can_be_resumed(uninterrupted, tmp_path):
    flags, whole = uninterrupted
    folder = tmp_path / "stopped"
    process = fer_fast("train", *flags, "--out", folder)
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == f"fer-fast: interrupted; continue with: fer-fast train --resume --out {folder}\n"
    status, _, err = run("train", "--resume", *flags, "--out", folder)
    assert status == 0, err
    assert_same(result(folder), result(whole))


@softmax_only
def test_resuming_what_cannot_be_resumed(uninterrupted, tmp_path, capsys):
    flags, whole = uninterrupted
    assert main(["train", "--resume", "--out", str(tmp_path / "none")]) == 2
    assert "no checkpoint at" in capsys.readouterr().err
    assert main(["train", "--resume", "--out", str(whole)]) == 2
    assert "is finished (3 epochs)" in capsys.readouterr().err
    assert main(["train", "--resume", "--out", str(whole), "--optimiser.rate", "0.5"]) == 2
    assert "optimiser.rate was " in capsys.readouterr().err
    assert main(["train", *flags, "--out", str(whole)]) == 2
    assert "already holds a run" in capsys.readouterr().err


@softmax_only
def test_a_run_killed_before_its_report_is_completed(uninterrupted, tmp_path):
    _, whole = uninterrupted
    folder = tmp_path / "unreported"
    folder.mkdir()
    for name in ("resume.safetensors", "config.yaml"):
        (folder / name).write_bytes((whole / name).read_bytes())
    status, _, err = run("train", "--resume", "--out", folder)
    assert status == 0, err
    first, again = (json.loads((each / "checkpoint.json").read_text()) for each in (whole, folder))
    assert again.pop("resumed") != first.pop("resumed") == []
    assert again == first
    assert_same(result(folder), result(whole))


@softmax_only
def test_the_resolved_configuration_given_back_repeats_the_run(uninterrupted, tmp_path):
    _, whole = uninterrupted
    status, _, err = run("train", "--config", whole / "config.yaml", "--out", tmp_path / "again")
    assert status == 0, err
    assert_same(result(tmp_path / "again"), result(whole))


@softmax_only
def test_a_kill_between_state_and_weights_leaves_weights_to_use_and_a_run_to_resume(uninterrupted, tmp_path):
    flags, whole = uninterrupted
    folder = tmp_path / "between"
    stop = PROGRAM.replace("raise SystemExit", STOP_BEFORE_WEIGHTS + "raise SystemExit")
    process = fer_fast("train", *flags, "--out", folder, program=stop)
    assert process.wait(timeout=300) == -signal.SIGKILL
    state, weights = load_resume(folder, tensors=False)[1], load_checkpoint(folder)[1]
    assert (state["epoch"], weights["epoch"]) == (2, 1)
    status, _, err = run("eval", "--checkpoint", folder)
    assert status == 0, err
    status, _, err = run("train", "--resume", "--out", folder)
    assert status == 0, err
    assert_same(result(folder), result(whole))


# A finished run of fewer epochs


@pytest.fixture(scope="module")
def constant(tmp_path_factory):
    """Flags of runs whose rate does not know their length, and a run of three epochs."""
    flags = [*SMALL, "--backbone", "resnet18", "--schedule.name", "constant"]
    whole = tmp_path_factory.mktemp("constant") / "whole"
    status, _, err = run("train", *flags, "--out", whole)
    assert status == 0, err
    return flags, whole


def test_a_finished_run_that_is_extended_ends_as_a_longer_one(constant, tmp_path):
    flags, whole = constant
    folder = tmp_path / "extended"
    assert main(["train", *flags, "--epochs", "1", "--out", str(folder)]) == 0
    first = json.loads((folder / "metrics.json").read_text())
    assert first["epochs"] == 1
    status, out, err = run("train", "--resume", "--out", folder, "--epochs", "3")
    assert status == 0, err
    assert "extended from 1 to 3 epochs: learning rate 2.00e-03 at the end of epoch 1, then 2.00e-03 (schedule" in out
    assert_same(result(folder), result(whole))
    assert (folder / "config.yaml").read_text() == (whole / "config.yaml").read_text()


def test_the_extension_of_a_run_is_kept_from_its_start(constant, tmp_path, monkeypatch):
    flags, _ = constant
    folder = tmp_path / "extended"
    assert main(["train", *flags, "--epochs", "1", "--out", str(folder)]) == 0
    monkeypatch.setattr(Trainer, "fit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["train", "--resume", "--out", str(folder), "--epochs", "2"]) == 130
    monkeypatch.undo()
    assert json.loads((folder / "metrics.json").read_text())["epochs"] == 1  # until there are others
    assert main(["train", "--resume", "--out", str(folder)]) == 0
    assert json.loads((folder / "metrics.json").read_text())["epochs"] == 2


def test_what_cannot_be_extended(constant, tmp_path, capsys):
    flags, whole = constant
    for more, message in (
        (("--epochs", "2"), "epochs was 3 and is now 2"),
        (("--epochs", "4", "--seed", "4"), "seed was 3 and is now 4"),
    ):
        assert main(["train", "--resume", "--out", str(whole), *more]) == 2
        assert message in capsys.readouterr().err
    limited = tmp_path / "limited"
    assert main(["train", *flags, "--iterations", "2", "--out", str(limited)]) == 0
    assert main(["train", "--resume", "--out", str(limited), "--epochs", "9"]) == 2
    assert "it ends with iteration 2" in capsys.readouterr().err
