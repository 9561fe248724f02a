"""Small copies of datasets for tests: empty files where only names are read, drawn pictures where pixels are."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def draw(path: Path, width: int = 100, height: int = 100, seed: int = 0) -> Path:
    """A picture of noise in colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


def shuffled(sizes: Mapping[str, int], numbers: Mapping[int, str] | None = None, seed: int = 0) -> list:
    """The names of `sizes`, each as often as it says, in random order; as `numbers` calls them, where given."""
    called = {name: number for number, name in (numbers or {}).items()}
    words = [called.get(name, name) for name, count in sizes.items() for _ in range(count)]
    return [words[i] for i in np.random.default_rng(seed).permutation(len(words))]


def scaled(sizes: Mapping[str, Mapping[str, int]], by: float) -> dict[str, dict[str, int]]:
    return {part: {name: round(count * by) for name, count in counts.items()} for part, counts in sizes.items()}


def by_name(listing) -> dict[str, str]:
    """Name of a picture -> its class."""
    return {
        name: listing.classes[label]
        for part in listing.parts.values()
        for name, label in zip(part.names, part.labels.tolist(), strict=True)
    }
