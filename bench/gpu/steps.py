"""Whole training steps: launched one by one, replayed from a CUDA graph, and replayed with a compiled network; and
whether the steps of every loss can be replayed."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch

from fer_fast.data import CLASSES
from fer_fast.data.dataset import FaceDataset
from fer_fast.registry import LOSSES
from fer_fast.train.config import RunConfig

from .. import steps
from .step import Asked, Case, Result, main

RECIPES, BATCHES = ("speedrun", "ecan", "quick"), (256, 1024)
STEPS = 30  # timed
ASKED = ("--hardware.precision", "auto", "--backbone", "resnet18", "--augment.size", "48", "--augment.channels", "1")
REHEARSED = (*ASKED[2:], "--backbone", "mobilenetv3", "--augment.size", "32", "--batch_size", "4")
REHEARSED += ("--hardware.precision", "float32")


@dataclass
class Taken(Result):
    """Steps of a recipe. `wrong`, without times, where the losses of replayed steps are not those of steps run."""

    recipe: str
    loss: str
    batch: int
    way: str  # of hardware.compile
    precision: str
    images_per_second: float
    seconds: float  # median of a step
    first_seconds: float  # of the first step, compilation included
    shares: dict[str, float]  # of the phases of steps that are launched one by one


def cases(asked: Asked) -> Iterator[Case]:
    few = slice(1 if asked.rehearse else None)
    recipes = [(recipe, batch, ()) for recipe, batch in product(RECIPES[few], BATCHES[few])]
    every = [("quick", 64, ("--loss", loss)) for loss in list(LOSSES)[few]]
    ways = {"none": recipes, "graph": recipes + every, "network": recipes}
    if asked.rehearse:
        ways = {"none": recipes, "graph": every}
    for way, asked_of in ways.items():
        for recipe, batch, flags in asked_of:
            yield " ".join((recipe, str(batch), way, *flags[:2])), partial(measure, recipe, batch, way, flags, asked)


def measure(recipe: str, batch: int, way: str, flags: tuple[str, ...], asked: Asked) -> Iterator[Taken]:
    """Random images, whose losses nothing but the step decides. Rehearsed, nothing is captured, nor compiled."""
    size, timed = (REHEARSED, 1) if asked.rehearse else ((*ASKED, "--batch_size", str(batch)), STEPS)
    config = steps.configured(recipe, [*size, *flags], timed)
    splits = _split(config, config.data.options["faces"]["samples"]["train"], "train"), _split(config, 64, "val")
    if way == "none":
        row = steps.measure(config, splits, "auto", timed)
    else:
        row = steps.whole(config, splits, "none" if asked.rehearse else way)
    yield Taken(
        recipe,
        row.loss,
        batch,
        way,
        row.precision,
        row.images_per_second,
        row.seconds,
        row.first_seconds,
        row.shares,
        status="wrong" if row.wrong else "measured",
        reason=row.wrong,
    )


def _split(config: RunConfig, count: int, name: str) -> FaceDataset:
    generator = torch.Generator().manual_seed(count)
    shape = count, config.augment.channels, config.augment.size, config.augment.size
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return FaceDataset(images, torch.arange(count) % len(CLASSES), CLASSES, name)


if __name__ == "__main__":
    main(cases)
