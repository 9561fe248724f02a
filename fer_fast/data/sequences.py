"""Data that is of sequences: which frames of one are taken, and the part that they make."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from fer_fast.data.files import shown
from fer_fast.data.listing import Part
from fer_fast.data.pictures import Files

FRAMES = 3  # of each sequence, as in the papers
Frame = TypeVar("Frame")


class Sequence(NamedTuple):
    """The frames of a sequence that are taken, what they show, and whose face it is.

    Attributes:
        frames: the files.
        name: of the sequence; its frames are not cut apart.
    """

    frames: list[Path]
    label: int
    subject: str
    name: str


def last(frames: list[Frame]) -> list[Frame]:
    """The peak of an expression that starts neutral."""
    return frames[-FRAMES:]


def middle(frames: list[Frame] | range) -> list[Frame]:
    """The peak of an expression that starts and ends neutral."""
    start = max(0, len(frames) // 2 - FRAMES // 2)
    return list(frames[start : start + FRAMES])


def some(names: list[str], what: str) -> list[str]:
    """One line of how many sequences there are that `what` is said of, and the first; none where there are none."""
    return [f"{len(names)} sequences {what}, the first: {names[0]}"] if names else []


def too_short(frames_of: Iterable[tuple[str, int]]) -> list[str]:
    """A line where sequences have less than the frames that are taken, from the name and the frames of each."""
    return some(
        [f"{name} ({count})" for name, count in frames_of if count < FRAMES], f"have fewer than {FRAMES} frames"
    )


def part_of(sequences: Iterable[Sequence], root: Path) -> Part:
    """A row a frame, sequence after sequence."""
    rows = [(frame, sequence) for sequence in sequences for frame in sequence.frames]
    return Part(
        Files([frame for frame, _ in rows]),
        np.array([sequence.label for _, sequence in rows], np.int64),
        tuple(shown(frame.relative_to(root)) for frame, _ in rows),
        subjects=tuple(sequence.subject for _, sequence in rows),
        groups=tuple(sequence.name for _, sequence in rows),
    )
