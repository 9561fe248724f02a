"""Several processes train what one does: the same images, losses, weights and numbers, and one end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import trained_together as together
from fer_fast.cli import main
from fer_fast.cli.train import ABOUT, _asked
from fer_fast.errors import InputError
from fer_fast.train.checkpoint import load_resume
from fer_fast.train.folder import claimed
from fer_fast.train.hardware import Hardware
from fer_fast.train.processes import Processes
from fer_fast.train.step import replays
from one_line import fails
from processes import group
from tiny_backbone import configure

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="gloo is not there")
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
SECONDS = 240  # of a machine that is busy
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="which processes there are is in /proc")


@pytest.fixture(scope="module")
def three():
    with group(3) as processes:
        yield processes


@pytest.mark.parametrize("sizes", [(4, 0, 3), (1, 1, 0)])
def test_batch_norm_of_shares_is_that_of_the_batch(sizes, three):
    layers, images = together.norms(sum(sizes))
    images.requires_grad_()
    layers(images).square().sum().backward()
    expected = [*(parameter.grad for parameter in layers.parameters()), *layers.buffers()]
    for (own, *found), whole in zip(three.run(together.normed, sizes), images.grad.split(sizes), strict=True):
        np.testing.assert_allclose(own, whole, rtol=0, atol=1e-11)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("run", [run for run in together.RUNS if run != "apart"])
def test_three_processes_learn_what_one_does(run, three, monkeypatch):
    """Also from shares of other sizes, and none; on all of them."""
    together.in_float64(monkeypatch)
    tensors, rows, scores = together.trained(run)
    for theirs, their_rows, their_scores in three.run(together.trained_in_float64, run):
        assert theirs.keys() == tensors.keys()
        for name, value in tensors.items():
            np.testing.assert_allclose(theirs[name], value, rtol=1e-9, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(their_rows, rows, rtol=1e-6)  # losses are summed in float32
        np.testing.assert_allclose(their_scores, scores, atol=1e-9)


def test_processes_with_batch_norms_of_their_own_end_with_one_network(three, monkeypatch):
    (tensors, rows, scores), *others = three.run(together.trained_in_float64, "apart")
    for theirs, their_rows, their_scores in others:
        assert [name for name in tensors if not np.array_equal(theirs[name], tensors[name])] == []
        assert their_rows == rows
        assert np.array_equal(their_scores, scores)
    together.in_float64(monkeypatch)
    alone, *_ = together.trained("apart")
    assert any(not np.allclose(tensors[name], alone[name], rtol=1e-3) for name in tensors)


# The command, as torchrun starts it.

SMALL = (
    *("--batch_size", "64", "--epochs", "1", "--schedule.name", "constant", "--hardware.precision", "float32"),
    *("--optimiser.name", "sgd", "--optimiser.rate", "0.005", "--augment.size", "32", "--data.image_size", "32"),
    *("--data.options", "{faces: {samples: {train: 192, val: 40, test: 40}}}"),
)


def torchrun(*arguments):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m")
    return started(*launcher, "fer_fast", "train", *arguments)


def started(*command, **variables):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **variables}
    command = [*map(str, command)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run of two processes, and what they said."""
    folder = tmp_path_factory.mktemp("two") / "run"
    process = torchrun(*SMALL, "--out", folder)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    return folder, out, err


def test_two_processes_of_32_reach_the_weights_of_one_of_64(two, tmp_path):
    folder, *_ = two
    assert main(["train", *SMALL, "--out", str(tmp_path / "one")]) == 0
    (tensors, state), (expected, alone) = load_resume(folder), load_resume(tmp_path / "one")
    assert tensors.keys() == expected.keys()
    torch.testing.assert_close(tensors, expected, rtol=1e-4, atol=1e-5)
    (row,), (other,) = state["history"], alone["history"]
    for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        assert row[key] == pytest.approx(other[key], rel=1e-5)


def test_two_processes_write_and_say_what_one_does(two):
    folder, out, err = two
    assert err == ""
    lines = out.splitlines()
    assert lines[0].endswith("cpu float32, 2 processes")
    assert [line[:10] for line in lines if line.startswith("epoch ")] == ["epoch 1/1 ", "epoch 1 of"]
    assert {path.name for path in folder.iterdir()} == {
        *("checkpoint.json", "checkpoint.safetensors", "config.yaml", "log.jsonl", "metrics.json"),
        *("predictions.safetensors", "report.html"),
        "resume.safetensors",
    }
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["command"].startswith("torchrun --nproc_per_node 2 -m fer_fast train --batch_size 64 ")
    assert metrics["device"]["count"] == 2


def test_what_two_processes_measured_one_finds_again_and_goes_on_from(two, capsys):
    folder, *_ = two
    assert main(["verify", str(folder)]) == 0, capsys.readouterr()
    assert main(["train", "--resume", "--out", str(folder), "--epochs", "2"]) == 0
    metrics = json.loads((folder / "metrics.json").read_text())
    assert [len(load_resume(folder, tensors=False)[1]["history"]), metrics["epochs"]] == [2, 2]
    assert [each["device"]["count"] for each in (metrics, *metrics["resumed"])] == [2, 1]


def test_bad_input_is_one_line_and_status_2_of_all(three, tmp_path):
    with claimed(tmp_path):  # which only the first process looks at
        line = f"fer-fast: error: another run is writing in {tmp_path}; choose another --out, or wait for it\n"
        found = three.run(together.commanded, ["train", *SMALL, "--out", str(tmp_path)])
    assert found == [(2, "", line), (2, "", ""), (2, "", "")]
    flags = ("--hardware.sync_batchnorm", "false", "--backbone", "normed", "--batch_size", "4")
    found = three.run(together.commanded, ["train", *SMALL, *flags, "--out", str(tmp_path / "run")])
    line = "fer-fast: error: one of 3 processes gets 1 image of a batch of 4, and BatchNorm needs two without "
    assert [status for status, *_ in found] == [2, 2, 2]
    assert [err[: len(line)] for _, _, err in found] == [line, "", ""]
    assert not (tmp_path / "run").exists()


def both(*arguments):
    """Two processes as torchrun starts them, without it: what each ends with is to be seen."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = (sys.executable, "-m", "fer_fast", "train", *arguments)
    return [started(*command, **told, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")]


def begun(process):
    for line in process.stdout:
        if line.startswith("writing in"):
            return


@posix_only
def test_ctrl_c_ends_all_with_one_line(tmp_path):
    processes = both(*SMALL, "--epochs", "50", "--out", tmp_path)
    begun(processes[0])
    for process in processes:
        process.send_signal(signal.SIGINT)
    again = f"torchrun --nproc_per_node 2 -m fer_fast train --resume --out {tmp_path}"
    said = [process.communicate(timeout=SECONDS)[1] for process in processes]
    assert said == [f"fer-fast: interrupted; continue with: {again}\n", ""]
    assert [process.returncode for process in processes] == [130, 130]


@linux_only
def test_a_killed_process_ends_all_with_one_line(tmp_path):
    launcher = torchrun(*SMALL, "--epochs", "50", "--out", tmp_path)
    begun(launcher)
    workers = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    assert len(workers) == 2
    os.kill(int(workers[1]), signal.SIGKILL)
    _, err = launcher.communicate(timeout=SECONDS)
    assert launcher.returncode != 0
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    ours = [line for line in err.splitlines() if line.startswith("fer-fast")]
    assert ours == ["fer-fast: error: torchrun ended all processes, as one of them or it was ended; --resume continues"]


# What several processes cannot do is said before anything is read.


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--hardware.device", "cuda:1"), "hardware.device is cuda:1; several processes take cpu, or cuda"),
        (("--hardware.device", "cuda"), "process 1 has no GPU: this machine has 0"),
        (("--virtual_batch", "2"), "virtual_batch 2 is for one process; on 2 a batch_size of 16 gives the same loss"),
        (("--hardware.compile", "graph"), "hardware.compile graph cannot repeat what processes tell each other"),
    ],
)
def test_what_several_processes_cannot_do(flags, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    processes, config = Processes(1, 2, 1), configure(*flags)
    with pytest.raises(InputError, match=re.escape(message)):
        replays(config, Hardware(config.hardware, processes), processes)


def test_runs_of_a_study_and_other_commands_are_for_one_process(monkeypatch, capsys):
    with pytest.raises(InputError, match=r"train one run at a time, not quick .*: 2 runs over seed; start it with"):
        _asked(["--seeds", "2"], ABOUT, False, Processes(0, 2))
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert "fer-fast eval is for one process; start it without torchrun" in fails(["eval", "--checkpoint", "x"], capsys)
