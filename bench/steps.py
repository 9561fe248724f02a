"""`python -m bench steps`: images a second of whole training steps, and where a step's time goes.

A recipe's own training loop on generated faces, its batch size and augmentation as they are, with this library's losses
and with plain PyTorch's. Hooks mark where a phase ends; on a GPU they are events on the stream, so nothing waits.
"""

import statistics
import time
from argparse import Namespace
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from fer_fast import dispatch
from fer_fast.cli.parser import Parser
from fer_fast.errors import InputError
from fer_fast.train.config import RunConfig, config_parser, recipe_layer, resolve
from fer_fast.train.data import open_data
from fer_fast.train.loop import Trainer
from fer_fast.train.models import Outputs
from fer_fast.train.progress import LineProgress

from . import rows
from .table import seconds_text

PHASES = ("data", "network", "loss", "optimiser", "other")
WARM_UP = 3  # steps: the first compiles kernels, and is reported apart


@dataclass(frozen=True)
class StepsRow:
    """Steps of one recipe on one backend. `shares` of the time go to drawing and augmenting images (data), encoders
    forward and backward (network), the losses and their gradients down to the features (loss), the update of the
    weights (optimiser), and averaged weights, key encoder and bank (other)."""

    table: str
    recipe: str
    loss: str
    backbone: str
    image_size: int
    batch_size: int
    precision: str
    backend: str
    images_per_second: float
    seconds: float  # median of a step
    first_seconds: float  # of the first step, compilation included
    shares: dict[str, float]
    steps: int
    environment: dict[str, Any]


def run(argv: list[str]) -> int:
    """Measure as the arguments say and print the table."""
    parser = Parser(
        prog="fer-fast bench steps", description=__doc__, epilog="Options of fer-fast train are laid over the recipe."
    )
    parser.add_argument("--recipe", action="append", help="one recipe (may be repeated; default: quick)")
    parser.add_argument("--steps", type=int, default=10, help="timed steps (default: 10)")
    parser.add_argument("--threads", type=int, help="threads of PyTorch on a CPU")
    parser.add_argument("--record", metavar="FILE", help="append the rows to a file, one JSON object a line")
    given, options = parser.parse_known_args(argv)
    if given.steps < 1:
        raise InputError(f"--steps: {given.steps} is not above zero")
    if given.threads:
        torch.set_num_threads(given.threads)
    console = Console(highlight=False)
    for recipe in given.recipe or ["quick"]:
        config = _config(recipe, options, given)
        measured = [measure(config, backend, given.steps) for backend in ("reference", "auto")]
        console.print(table(measured))
        if given.record:
            rows.append(Path(given.record), measured)
    return 0


def _config(recipe: str, options: list[str], given: Namespace) -> RunConfig:
    """The recipe on just as many generated faces as the steps take."""
    config, _ = resolve(config_parser(), [*options, "--dataset", "faces"], [recipe_layer(recipe)])
    images = config.loss_batch * config.accumulate * (WARM_UP + given.steps)
    config.data.options["faces"] = {"num_classes": 7, "samples": {"train": images, "val": 64, "test": 64}}
    config.epochs, config.iterations = 1, 0
    config.data.image_size, config.data.channels = config.augment.size, config.augment.channels
    return config


def measure(config: RunConfig, backend: str, steps: int) -> StepsRow:
    """Train for so many steps after the warm-up, all losses on the backend."""
    with dispatch.backend(backend):
        data = open_data(config)
        trainer = Trainer(config, data.split("train"), data.split("val"))
        timeline = Timeline(trainer)
        trainer.fit(_Silent(), lambda: None)
    taken = timeline.steps()
    timed = taken[WARM_UP:]
    total = sum(sum(step.values()) for step in timed)
    return StepsRow(
        table="steps",
        recipe=config.recipe,
        loss=config.loss,
        backbone=config.backbone,
        image_size=config.augment.size,
        batch_size=config.loss_batch * config.accumulate,
        precision=trainer.hardware.precision,
        backend=backend,
        images_per_second=config.loss_batch * config.accumulate * len(timed) / total,
        seconds=statistics.median(sum(step.values()) for step in timed),
        first_seconds=sum(taken[0].values()),
        shares={phase: sum(step[phase] for step in timed) / total for phase in PHASES},
        steps=len(timed),
        environment=rows.environment(trainer.hardware.device),
    )


class Timeline:
    """Marks in a trainer's steps, each closing a phase that began at the mark before it."""

    def __init__(self, trainer: Trainer):
        self.device = trainer.hardware.device
        self.marks: list[tuple[str, Any]] = []
        learner, optimiser = trainer.learner, trainer.update.optimiser
        learner.register_forward_pre_hook(lambda *_: self._mark("data"))
        learner.recogniser.encoder.register_forward_hook(self._after_encoder)
        if learner.key is not None:
            learner.key.register_forward_hook(lambda *_: self._mark("network"))
        optimiser.register_step_pre_hook(lambda *_: self._mark("network"))
        optimiser.register_step_post_hook(lambda *_: self._mark("optimiser"))
        begin = optimiser.zero_grad

        def begin_step(*args: Any, **keywords: Any) -> None:
            self._mark("other")  # the first of a step's calls ends the step before
            begin(*args, **keywords)

        optimiser.zero_grad = begin_step

    def _after_encoder(self, _module: object, _args: object, outputs: Outputs) -> None:
        self._mark("network")
        for output in outputs:
            if output is not None and output.requires_grad:
                # A tensor's hook runs once its gradient is complete: the losses are done with it.
                output.register_hook(lambda _: self._mark("loss"))

    def _mark(self, phase: str) -> None:
        if self.device.type == "cuda":
            now = torch.cuda.Event(enable_timing=True)
            now.record()
        else:
            now = time.perf_counter()
        self.marks.append((phase, now))

    def steps(self) -> list[Counter]:
        """Seconds of each phase, a counter for each step; the last step has no "other", which nothing closed."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        steps = []
        for (before, start), (phase, end) in zip(self.marks, self.marks[1:], strict=False):
            if before == "other":
                steps.append(Counter())
            elif not steps:  # the bank is filled before the first step
                continue
            steps[-1][phase] += start.elapsed_time(end) / 1e3 if self.device.type == "cuda" else end - start
        return steps


class _Silent(LineProgress):
    def finish(self, row: dict[str, Any], epochs: int) -> None:
        pass


def table(measured: list[StepsRow]) -> Table:
    """One recipe, a line for each backend; `first` is the first step, with whatever it compiles."""
    row = measured[0]
    title = f"{row.recipe}: {row.backbone}, {row.batch_size} images of {row.image_size}² pixels, {row.precision}"
    result = Table("losses", "images/s", "step", "first", *PHASES, title=title)
    for row in measured:
        times = (f"{row.images_per_second:,.0f}", seconds_text(row.seconds), seconds_text(row.first_seconds))
        shares = (f"{row.shares[phase]:.1%}" for phase in PHASES)
        result.add_row("plain" if row.backend == "reference" else "ours", *times, *shares)
    return result
