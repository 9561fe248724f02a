"""Training for the minutes that are left: accuracy by epoch and images a second."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from .step import Asked, Case, Result, main

# On FER2013 where its folder is given; else generated faces, which need no file.
RECIPES = {"fer2013": ("speedrun", "ecan", "quick"), "faces": ("quick",)}
REHEARSED = (
    *("--epochs", "1", "--backbone", "mobilenetv3", "--augment.size", "32", "--data.image_size", "32"),
    *("--data.options", '{"faces": {"num_classes": 7, "samples": {"train": 64, "val": 32, "test": 32}}}'),
)
LEAST, POLL = 20.0, 0.5  # seconds: fewer do not end an epoch; between two looks at the log
FIELDS = ("epoch", "train_accuracy", "val_accuracy", "images_per_second")


@dataclass
class Epoch(Result):
    """One line of a run's log as it comes, `running`; the last of them again, `measured`, when the run is over."""

    recipe: str
    dataset: str
    epoch: int
    train_accuracy: float
    val_accuracy: float
    images_per_second: float
    seconds: float  # since the run began


def cases(asked: Asked) -> Iterator[Case]:
    dataset = "fer2013" if asked.fer2013 else "faces"
    recipes = RECIPES[dataset]
    for place, recipe in enumerate(recipes):
        yield f"{recipe} on {dataset}", partial(train, recipe, dataset, asked, asked.left / (len(recipes) - place))


def train(recipe: str, dataset: str, asked: Asked, seconds: float) -> Iterator[Epoch]:
    """Run `fer-fast train` and hand its log on as it grows; it is stopped when the seconds are over."""
    if seconds < LEAST and not asked.rehearse:
        raise TimeoutError(f"{seconds:.0f} s are too few")
    folder = Path(asked.folder) / f"{recipe}-{dataset}-{time.time_ns()}"
    words = ["train", "--recipe", recipe, "--dataset", dataset, "--out", str(folder)]
    words += ["--root", asked.fer2013] if asked.fer2013 else []
    words += REHEARSED if asked.rehearse else ()
    program = f"import sys; from fer_fast.cli import main; sys.exit(main({words!r}))"
    begun, last, running = time.perf_counter(), None, True
    with tempfile.TemporaryFile("w+", dir=asked.folder) as errors:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=errors)
        try:
            while running and time.perf_counter() - begun < seconds:
                time.sleep(POLL)
                running = process.poll() is None  # before the log is read: what it wrote last is in it
                for line in _log(folder)[last.epoch if last else 0 :]:
                    given = {name: line[name] for name in FIELDS}
                    last = Epoch(recipe, dataset, **given, seconds=time.perf_counter() - begun, status="running")
                    yield last
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        why = f"no epoch in {seconds:.0f} s" if running else (errors.readlines() or ["no epoch"])[-1]
    if last is None:
        raise RuntimeError(why)
    yield replace(last, status="measured", reason="stopped when its time was over" if running else "")


def _log(folder: Path) -> list[dict]:
    try:
        return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):  # not there yet, or being written
        return []


if __name__ == "__main__":
    main(cases)
