"""A run that is stopped at any moment and resumed ends with the same bits as one that was never stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from fer_fast.cli import main
from fer_fast.train.checkpoint import load_checkpoint

SMALL = (
    *("--backbone", "mobilenetv3", "--epochs", "4", "--batch_size", "16", "--seed", "3", "--ema", "0.9"),
    *("--augment.size", "32", "--data.image_size", "32", "--data.options", "{faces: {samples: 48}}"),
)
TIMES = ("seconds", "images_per_second")


def fer_fast(*arguments, **keywords):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", "from fer_fast.cli import main; raise SystemExit(main())", *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords
    )


def run(*arguments):
    process = fer_fast(*arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def result(folder):
    """Weights, log and metrics of a run without its times."""
    tensors, state = load_checkpoint(folder)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert state["history"] == log
    rows = [{key: value for key, value in row.items() if key not in TIMES} for row in log]
    return tensors, rows, {key: value for key, value in metrics.items() if key not in TIMES}


def assert_same(one, other):
    (tensors, *rest), (others, *other_rest) = one, other
    assert tensors.keys() == others.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], others[name])] == []
    assert rest == other_rest


posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
softmax_only = pytest.mark.parametrize("uninterrupted", ["softmax"], indirect=True)


@pytest.fixture(scope="module", params=["softmax", "ecan"])
def uninterrupted(request, tmp_path_factory):
    flags = [*SMALL, *(("--recipe", "ecan", "--dataset", "faces") if request.param == "ecan" else ())]
    if request.param == "ecan":
        flags += ["--model.stem", "standard", "--model.bank_groups", "2"]
    folder = tmp_path_factory.mktemp(request.param) / "whole"
    status, _, err = run("train", *flags, "--out", folder)
    assert status == 0, err
    return flags, folder


@posix_only
def test_the_same_seed_gives_the_same_bits_after_a_kill(uninterrupted, tmp_path):
    flags, whole = uninterrupted
    folder = tmp_path / "killed"
    process = fer_fast("train", *flags, "--out", folder)
    # The second epoch is under way as soon as the first one's line is out.
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            break
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = load_checkpoint(folder)[1]["epoch"]
    assert 1 <= done < 4
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
    assert "is finished (4 epochs)" in capsys.readouterr().err
    assert main(["train", "--resume", "--out", str(whole), "--optimiser.rate", "0.5"]) == 2
    assert "optimiser.rate was " in capsys.readouterr().err
    assert main(["train", *flags, "--out", str(whole)]) == 2
    assert "already holds a run" in capsys.readouterr().err


@softmax_only
def test_a_run_killed_before_its_report_is_completed(uninterrupted, tmp_path):
    _, whole = uninterrupted
    folder = tmp_path / "unreported"
    folder.mkdir()
    for name in ("checkpoint.safetensors", "config.yaml"):
        (folder / name).write_bytes((whole / name).read_bytes())
    status, _, err = run("train", "--resume", "--out", folder)
    assert status == 0, err
    assert json.loads((folder / "checkpoint.json").read_text()) == json.loads((whole / "checkpoint.json").read_text())
    assert_same(result(folder), result(whole))


@softmax_only
def test_the_resolved_configuration_given_back_repeats_the_run(uninterrupted, tmp_path):
    _, whole = uninterrupted
    status, _, err = run("train", "--config", whole / "config.yaml", "--out", tmp_path / "again")
    assert status == 0, err
    assert_same(result(tmp_path / "again"), result(whole))
