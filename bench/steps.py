"""`python -m bench steps`: images a second of whole training steps, and where a step's time goes.

A recipe's own training loop on generated faces, its batch size and augmentation as they are, with this library's losses
and with plain PyTorch's. Hooks mark where a phase ends; on a GPU they are events on the stream, so nothing waits. There
steps are replayed whole from a CUDA graph, too: `--hardware.compile` says how, and none leaves it out.
"""

import statistics
import time
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from fer_fast import dispatch
from fer_fast.cli.parser import Parser
from fer_fast.data.dataset import FaceDataset
from fer_fast.errors import InputError
from fer_fast.train.config import RunConfig, config_parser, recipe_layer, resolve
from fer_fast.train.data import open_data
from fer_fast.train.hardware import Hardware
from fer_fast.train.loop import Trainer
from fer_fast.train.models import Outputs
from fer_fast.train.progress import LineProgress
from fer_fast.train.step import Batches, Replay, replays

from . import rows
from .table import seconds_text

Splits = tuple[FaceDataset, FaceDataset]  # to train on, to validate on
PHASES = ("data", "network", "loss", "optimiser", "other")
WARM_UP = 3  # steps: the first compiles kernels, and is reported apart
SETTLED = 6  # steps after which a graph is captured, and has been replayed
CHECKED = 12  # steps whose losses are compared
TOLERANCE = 2**-8  # by what share a loss may differ: bfloat16 tells no nearer numbers apart


@dataclass(frozen=True)
class StepsRow:
    """Steps of one recipe on one backend. `shares` of the time go to drawing and augmenting images (data), encoders
    forward and backward (network), the losses and their gradients down to the features (loss), the update of the
    weights (optimiser), and averaged weights, key encoder and bank (other). Steps that are replayed have none, and no
    time where they are `wrong`."""

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
    wrong: str = ""
    compile: str = "none"


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
        config = configured(recipe, options, given.steps)
        data = open_data(config)
        splits = data.split("train"), data.split("val")
        measured = [measure(config, splits, backend, given.steps) for backend in ("reference", "auto")]
        if way := _way(config):
            measured.append(whole(config, splits, way))
        console.print(table(measured))
        if given.record:
            rows.append(Path(given.record), measured)
    return 0


def configured(recipe: str, options: list[str], steps: int) -> RunConfig:
    """The recipe on just as many generated faces as the steps take."""
    config, _ = resolve(config_parser(), [*options, "--dataset", "faces"], [recipe_layer(recipe)])
    images = config.loss_batch * config.accumulate * (SETTLED + max(steps, CHECKED))
    config.data.options["faces"] = {"num_classes": 7, "samples": {"train": images, "val": 64, "test": 64}}
    config.epochs, config.iterations = 1, 0
    config.data.image_size, config.data.channels = config.augment.size, config.augment.channels
    config.augment = replace(config.augment, crops=1)  # nobody times validation
    return config


def measure(config: RunConfig, splits: Splits, backend: str, steps: int) -> StepsRow:
    """Train for so many steps after the warm-up, all losses on the backend, every kernel launched by the host."""
    config = replace(config, iterations=WARM_UP + steps)
    with dispatch.backend(backend):
        trainer = _trainer(config, splits, "none")
        timeline = Timeline(trainer)
        trainer.fit(_Silent(), lambda: None)
    taken = timeline.steps()
    timed = taken[WARM_UP:]
    total = sum(sum(step.values()) for step in timed)
    shares = {phase: sum(step[phase] for step in timed) / total for phase in PHASES}
    return _row(trainer, backend, [sum(step.values()) for step in timed], sum(taken[0].values()), shares)


def _way(config: RunConfig) -> str:
    """How whole steps are to be repeated here, if at all."""
    hardware, wanted = Hardware(config.hardware), config.hardware.compile
    wanted = "graph" if wanted == "auto" and replays(config, hardware) else wanted
    return wanted if wanted in ("graph", "network") else ""


def whole(config: RunConfig, splits: Splits, way: str) -> StepsRow:
    """Train as `hardware.compile` of `way`, and hold every loss against that of the same steps run, and run again.

    The first loss, before any weight moved, is held against that of the network as it is.
    """
    plain = Steps(_trainer(replace(config, iterations=1), splits, "none")).losses()
    expected, again = (Steps(_trainer(config, splits, way), run=True).losses() for _ in range(2))
    steps = Steps(_trainer(config, splits, way))
    fault = _unlike(steps.losses()[:1], plain, plain) or _unlike(steps.losses(), expected, again)
    if isinstance(steps.inner, Replay) and not steps.inner.count:
        fault = "no step was replayed"
    times = steps.seconds()
    row = _row(steps.trainer, "auto", times[SETTLED:], times[0], {})
    return replace(row, wrong=fault, images_per_second=0.0, seconds=0.0) if fault else row


def _unlike(found: list[float], expected: list[float], again: list[float]) -> str:
    """The first step whose loss is not the expected one, as near as the same steps come to it when they run again."""
    for step, (loss, right, other) in enumerate(zip(found, expected, again, strict=True), 1):
        if not abs(loss - right) <= TOLERANCE * abs(right) + 4 * abs(other - right):  # nor is what is no number
            return f"the loss of step {step} is {loss:.5f}, not {right:.5f}"
    return ""


def _trainer(config: RunConfig, splits: Splits, compiled: str) -> Trainer:
    return Trainer(replace(config, hardware=replace(config.hardware, compile=compiled)), *splits)


def _row(trainer: Trainer, backend: str, times: list[float], first: float, shares: dict[str, float]) -> StepsRow:
    config = trainer.config
    images = config.loss_batch * config.accumulate
    return StepsRow(
        table="steps",
        recipe=config.recipe,
        loss=config.loss,
        backbone=config.backbone,
        image_size=config.augment.size,
        batch_size=images,
        precision=trainer.hardware.precision,
        backend=backend,
        compile=config.hardware.compile,
        images_per_second=images * len(times) / sum(times),
        seconds=statistics.median(times),
        first_seconds=first,
        shares=shares,
        steps=len(times),
        environment=rows.environment(trainer.hardware.device),
    )


class Steps:
    """Every step of a trainer, taken, or `run` where it would be replayed: when each began, and its loss."""

    def __init__(self, trainer: Trainer, run: bool = False):
        self.trainer, self.device = trainer, trainer.hardware.device
        self.inner, trainer.take_step = trainer.update if run else trainer.take_step, self._step
        self.begun: list[Any] = []
        self.sums: list[torch.Tensor] = []  # of the losses of all images so far
        trainer.fit(_Silent(), lambda: None)

    def _step(self, batches: Batches) -> None:
        self.begun.append(_now(self.device))
        self.inner(batches)
        self.sums.append(self.trainer.update.running.sums[0].clone())

    def seconds(self) -> list[float]:
        """From the beginning of each step to that of the next; the last one has no next."""
        return [_between(start, end) for start, end in pairwise(self.begun)]

    def losses(self) -> list[float]:
        """Of each of the first steps, the mean over its images."""
        sums = [0.0, *torch.stack(self.sums[:CHECKED]).tolist()]
        images = self.trainer.config.loss_batch * self.trainer.config.accumulate
        return [(after - before) / images for before, after in pairwise(sums)]


def _now(device: torch.device) -> Any:
    if device.type != "cuda":
        return time.perf_counter()
    now = torch.cuda.Event(enable_timing=True)
    now.record()
    return now


def _between(start: Any, end: Any) -> float:
    """Seconds from one moment to a later one."""
    if not isinstance(start, torch.cuda.Event):
        return end - start
    end.synchronize()
    return start.elapsed_time(end) / 1e3


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
        self.marks.append((phase, _now(self.device)))

    def steps(self) -> list[Counter]:
        """Seconds of each phase, a counter for each step; the last step has no "other", which nothing closed."""
        steps = []
        for (before, start), (phase, end) in zip(self.marks, self.marks[1:], strict=False):
            if before == "other":
                steps.append(Counter())
            elif not steps:  # the bank is filled before the first step
                continue
            steps[-1][phase] += _between(start, end)
        return steps


class _Silent(LineProgress):
    def finish(self, row: dict[str, Any], epochs: int) -> None:
        pass


def table(measured: list[StepsRow]) -> Table:
    """One recipe: plain PyTorch's losses, ours, and ours in steps replayed whole; `first` is the first step, with all
    that it compiles."""
    row = measured[0]
    title = f"{row.recipe}: {row.backbone}, {row.batch_size} images of {row.image_size}² pixels, {row.precision}"
    result = Table("steps", "images/s", "step", "first", *PHASES, title=title)
    for row in measured:
        times = (f"{row.images_per_second:,.0f}", seconds_text(row.seconds), seconds_text(row.first_seconds))
        shares = (f"{row.shares[phase]:.1%}" for phase in PHASES if row.shares)
        name = "plain" if row.backend == "reference" else "ours" if row.compile == "none" else row.compile
        result.add_row(name, *(("wrong",) if row.wrong else (*times, *shares)))
        result.caption = f"{name}: {row.wrong}" if row.wrong else None
    return result
