"""Whether a training step waits for its images: images a second where they lie on the device, and where batches are
gathered from a mapped file and sent ahead."""

import mmap
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from fer_fast.data import CLASSES
from fer_fast.data.cache import read_only
from fer_fast.data.dataset import FaceDataset, Images
from fer_fast.train.config import RunConfig, config_parser, recipe_layer, resolve
from fer_fast.train.feed import Feed
from fer_fast.train.loop import Trainer
from fer_fast.train.progress import LineProgress

from .capture import wait
from .step import Asked, Case, Result, main

SIZES = ((48, 1, 28_000), (224, 3, 20_000))  # side, channels, images
ASKED = ("--batch_size", "256", "--epochs", "3", "--hardware.precision", "bfloat16")  # the first epoch warms up
REHEARSED = ("--batch_size", "16", "--epochs", "2", "--backbone", "mobilenetv3")


@dataclass
class Fed(Result):
    """Images a second of a quick recipe's training, the best epoch after the first, and of its batches alone."""

    size: int
    channels: int
    images: int
    resident: float
    streamed: float
    alone: float  # the batches without a network


def cases(asked: Asked) -> Iterator[Case]:
    for size, channels, count in ((32, 1, 16),) if asked.rehearse else SIZES:
        yield f"{size}×{size}×{channels}", partial(measure, size, channels, count, asked)


def measure(size: int, channels: int, count: int, asked: Asked) -> Iterator[Fed]:
    """The same images both ways, in a file as the cache of a dataset is."""
    train = _dataset(Path(asked.folder) / f"{size}.u8", size, channels, count)
    flags = ["--augment.size", str(size), "--augment.channels", str(channels)]
    flags += REHEARSED if asked.rehearse else ASKED
    config, _ = resolve(config_parser(), flags, [recipe_layer("quick")])
    resident, streamed = (_speed(config, train, asked, resident=resident) for resident in (True, False))
    yield Fed(size, channels, count, resident, streamed, _alone(train, config.batch_size, asked))


class _Silent(LineProgress):
    def finish(self, row: dict, epochs: int) -> None:
        """Standard output is the rows'."""


def _speed(config: RunConfig, train: FaceDataset, asked: Asked, *, resident: bool) -> float:
    trainer = Trainer(config, train, train.subset(range(min(len(train), 512)), "val"))
    trainer.feed = Feed(train.images, trainer.feed.labels, asked.device, resident)
    trainer.fit(_Silent(), lambda: None)
    return max(row["images_per_second"] for row in trainer.history[1:])


def _alone(train: FaceDataset, batch: int, asked: Asked) -> float:
    feed = Feed(train.images, train.labels, asked.device, resident=False)
    start = time.perf_counter()
    for _ in feed.batches(torch.randperm(len(train)).split(batch)):
        pass
    wait(asked.device)
    return len(train) / (time.perf_counter() - start)


def _dataset(path: Path, size: int, channels: int, count: int) -> FaceDataset:
    with path.open("wb") as file:
        for _ in range(count):
            file.write(os.urandom(size * size * channels))
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    stored = read_only(mapped).view(count, size, size, channels)
    images = Images(stored, torch.zeros(count, 16, dtype=torch.uint8), torch.arange(count), mapped)
    return FaceDataset(images, torch.arange(count) % len(CLASSES), CLASSES, "train")


if __name__ == "__main__":
    main(cases)
