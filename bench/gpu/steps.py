"""Whole training steps: launched one by one, replayed from a CUDA graph, and replayed with a compiled network."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch

from fer_fast.data import CLASSES
from fer_fast.data.dataset import FaceDataset
from fer_fast.train.config import RunConfig

from .. import steps
from .step import Asked, Case, Result, main

RECIPES, BATCHES = ("speedrun", "ecan", "quick"), (256, 1024)
WAYS = ("none", "graph", "network")  # of hardware.compile; the last takes a minute to compile
STEPS = 30  # timed
ASKED = ("--hardware.precision", "auto", "--backbone", "resnet18", "--augment.size", "48", "--augment.channels", "1")
REHEARSED = (*ASKED[2:], "--backbone", "mobilenetv3", "--augment.size", "32", "--batch_size", "4")
REHEARSED += ("--hardware.precision", "float32")


@dataclass
class Taken(Result):
    """Steps of a recipe. `wrong`, without times, where the losses of replayed steps are not those of steps run."""

    recipe: str
    batch: int
    way: str
    precision: str
    images_per_second: float
    seconds: float  # median of a step
    first_seconds: float  # of the first step, compilation included
    shares: dict[str, float]  # of the phases of steps that are launched one by one


def cases(asked: Asked) -> Iterator[Case]:
    few = slice(1 if asked.rehearse else None)
    for way, recipe, batch in product(WAYS[: 2 if asked.rehearse else None], RECIPES[few], BATCHES[few]):
        yield f"{recipe} {batch} {way}", partial(measure, recipe, batch, way, asked)


def measure(recipe: str, batch: int, way: str, asked: Asked) -> Iterator[Taken]:
    """Random images, whose losses nothing but the step decides. Rehearsed, nothing is captured, nor compiled."""
    flags, timed = (REHEARSED, 1) if asked.rehearse else ((*ASKED, "--batch_size", str(batch)), STEPS)
    config = steps.configured(recipe, list(flags), timed)
    splits = _split(config, config.data.options["faces"]["samples"]["train"], "train"), _split(config, 64, "val")
    if way == "none":
        row = steps.measure(config, splits, "auto", timed)
    else:
        row = steps.whole(config, splits, "none" if asked.rehearse else way)
    yield Taken(
        recipe,
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
