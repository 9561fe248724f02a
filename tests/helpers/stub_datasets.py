"""Datasets that exist in a test alone: pictures of their own, listings of them, rows of the table."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np

from fer_fast.data import DATASETS
from fer_fast.data.listing import Listing, Part
from fer_fast.data.pictures import Files
from fer_fast.data.table import DatasetInfo


def photograph(seed: int, channels: int = 1, size: int = 48) -> np.ndarray:
    """A smooth picture unlike that of any other seed, uint8 (size, size, channels)."""
    rough = np.random.default_rng(seed).integers(0, 256, (9, 9, channels), dtype=np.uint8)
    return cv2.resize(rough, (size, size), interpolation=cv2.INTER_CUBIC).reshape(size, size, channels)


def put(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image)[1])
    return path


def put_classes(root: Path, counts: dict[str, int], classes: Sequence[str] = ("asleep", "awake", "yawning")) -> None:
    """A folder of split/class/number.png, so many pictures a class, brighter by class: something to learn."""
    seed = 0
    for split, count in counts.items():
        for label, name in enumerate(classes):
            for i in range(count):
                put(root / split / name / f"{i}.png", photograph(seed, size=32) // 2 + 40 * label)
                seed += 1


def listed(
    paths: Sequence[Path], classes: Sequence[str] = ("a", "b"), labels=None, part: str = "train", **columns
) -> Listing:
    """A listing of one part with these files."""
    labels = np.zeros(len(paths), np.int64) if labels is None else np.array(labels, np.int64)
    names = tuple(path.name for path in paths)
    return Listing("files", tuple(classes), {part: Part(Files(paths), labels, names, **columns)})


def row(read: Callable, name: str = "stub", classes: Sequence[str] = ("a", "b"), **about) -> DatasetInfo:
    return DatasetInfo(name=name, classes=tuple(classes), description="", read=read, size=48, channels=1, **about)


@contextmanager
def table_of(*rows: DatasetInfo) -> Iterator[None]:
    """These rows alone are in the table."""
    with patch.dict(DATASETS, {info.name: info for info in rows}, clear=True):
        yield
