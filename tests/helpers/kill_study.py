"""Kill studies at random moments and resume them: what they leave is what a study leaves that was never killed.

    PYTHONPATH=tests/helpers OMP_NUM_THREADS=1 python tests/helpers/kill_study.py DIR [KILLS] [SEED]

Half the kills come by the clock, at any moment of a process's life; the other half right before or after a file is
flushed, renamed or removed. Processes are forked from this one, so that none of their time goes into imports. POSIX.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from fer_fast.cli import main
from fer_fast.cli import sweep as _imported  # noqa: F401, before the first fork
from fer_fast.train import metrics, report  # noqa: F401
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.checkpoint import load_checkpoint
from tiny_backbone import TINY

STUDY = (
    *("sweep", "--loss", "lmcl", "--grid", "objective.options.lmcl.s=[20,30]", "--seeds", "2", "--backbone", "tiny"),
    *("--epochs", "3", "--batch_size", "16", "--augment.size", "32", "--data.image_size", "32", "--ema", "0.9"),
    *("--data.options", "{faces: {samples: 48}}"),
)
STEPS = 60  # before and after each flush, rename and removal; a study takes about four times as many


def begin(arguments: list[str], log: Path, dies_at: int) -> int:
    """The process id of a fork that runs a command, and dies at the step of that number (0: it does not)."""
    if pid := os.fork():
        return pid
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    left = dies_at

    def step() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def deadly(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments, **keywords):
            step()
            result = real(*arguments, **keywords)
            step()
            return result

        setattr(os, name, call)

    for name in ("fsync", "replace", "unlink"):
        deadly(name)
    os._exit(main(arguments))


def live(arguments: list[str], log: Path, *, seconds: float = 0, step: int = 0) -> int | None:
    """Run a command until it ends or is killed; its exit status, None for a kill."""
    pid = begin(arguments, log, step)
    until = time.monotonic() + (seconds or 600)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def left(out: Path) -> tuple:
    """All that a study leaves besides weights and times: files, numbers, logs."""
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    numbers = {path: timeless(json.loads((out / path).read_text())) for path in files if path.endswith("metrics.json")}
    logs = {
        path: [timeless(json.loads(line)) for line in (out / path).read_text().splitlines()]
        for path in files
        if path.endswith("log.jsonl")
    }
    return files, numbers, logs


def timeless(value):
    if isinstance(value, dict):
        own = ("seconds", "images_per_second", "date", "command", "resumed")  # of the processes that a run took
        return {key: timeless(item) for key, item in value.items() if key not in own}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def same_weights(one: Path, other: Path) -> bool:
    pairs = [
        (load_checkpoint(path.parent)[0], load_checkpoint(other / path.parent.relative_to(one))[0])
        for path in one.rglob("checkpoint.safetensors")
    ]
    return all(a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs)


def kill_until_done(out: Path, log: Path, whole_seconds: float, chance: random.Random) -> int:
    """Begin, kill and resume one study until it ends; how often it was killed."""
    kills = 0
    while True:
        begun = (out / "study.json").exists()
        arguments = [chance.choice(("train", "sweep")), "--resume"] if begun else [*STUDY]
        how = (
            {"seconds": chance.uniform(0.001, whole_seconds)}
            if chance.random() < 0.5
            else {"step": chance.randint(1, STEPS)}
        )
        status = live([*arguments, "--out", str(out)], log, **how)
        if status is None:
            kills += 1
        elif status == 0 or (status == 2 and (out / "metrics.json").exists()):  # killed after its last file
            return kills
        else:
            raise SystemExit(f"exit status {status}: {log.read_text().splitlines()[-1]}")


def run(folder: Path, kills: int, seed: int) -> int:
    """Kill that often in all; the exit status is 1 where a study ended otherwise than the one never killed."""
    folder.mkdir(parents=True)
    BACKBONES["tiny"] = TINY
    torch.set_num_threads(1)
    chance, whole, log = random.Random(seed), folder / "whole", folder / "log"
    started = time.monotonic()
    if live([*STUDY, "--out", str(whole)], log):
        raise SystemExit(log.read_text())
    seconds, expected = time.monotonic() - started, left(whole)
    print(f"never killed: {seconds:.1f} s, {len(expected[0])} files", flush=True)
    done = studies = wrong = 0
    while done < kills:
        out = folder / f"killed-{studies}"
        count = kill_until_done(out, log, seconds, chance)
        done, studies = done + count, studies + 1
        good = left(out) == expected and same_weights(whole, out)
        wrong += not good
        print(
            f"study {studies}: {count} kills, {'the same' if good else f'DIFFERENT, see {out}'}; {done} in all",
            flush=True,
        )
        if good:
            shutil.rmtree(out)
    print(f"{done} kills in {studies} studies, {time.monotonic() - started:.0f} s: {wrong} ended otherwise")
    return int(wrong > 0)


if __name__ == "__main__":
    given = sys.argv[1:]
    raise SystemExit(run(Path(given[0]), int((given[1:] or [100])[0]), int((given[2:] or [0])[0])))
