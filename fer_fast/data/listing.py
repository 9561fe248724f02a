"""What a copy of a dataset holds: the table of its pictures, read without decoding one."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from fer_fast.data.pictures import Pictures

FaceChoice = Literal["whole", "align", "box", "haar"]


@dataclass(frozen=True)
class Part:
    """One part of a copy, a row a picture.

    Args:
        pictures: where the pixels come from, (n).
        labels: int64 (n,), index into the classes of the listing.
        names: file, file and row, or file and frame of each picture, below the root; for people.
        boxes: float32 (n, 4), left, top, width, height of the face in pixels of the picture; NaN where there is none.
        subjects: who is in the picture, where known.
        groups: pictures that must not be cut apart, where there are such: frames of a sequence, faces of a photograph.
        votes: float32 (n, C) that sum to one: soft labels, where they are to be trained on.
    """

    pictures: Pictures
    labels: np.ndarray
    names: tuple[str, ...]
    boxes: np.ndarray | None = None
    subjects: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None
    votes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Part":
        """The rows of these numbers, in that order."""

        def words(column: tuple[str, ...] | None) -> tuple[str, ...] | None:
            return None if column is None else tuple(column[row] for row in rows.tolist())

        return replace(
            self,
            pictures=self.pictures.take(rows),
            labels=self.labels[rows],
            names=words(self.names),
            boxes=None if self.boxes is None else self.boxes[rows],
            subjects=words(self.subjects),
            groups=words(self.groups),
            votes=None if self.votes is None else self.votes[rows],
        )


@dataclass
class Listing:
    """A copy of a dataset on disk.

    Args:
        layout: how it lies on disk, for people: "csv with the column Usage", "official folders, aligned".
        classes: names of the classes, in the order of the labels.
        parts: "train", "val", "test", or "all" where the data has no official split. The part that papers report on is
            "test", whatever the copy calls it.
        sure: whether the copy can be nothing else; False for bare class folders, which several datasets are kept in.
        faces: what has to be done to its pictures where the user says nothing.
        problems: one line for each thing that is wrong with the data.
        notes: one line for each thing to know that is not wrong (a re-split copy, a part that is not there).
        ignored: why something was left aside -> how many files or folders.
        unlabelled: pictures without a label, left aside; sequences, where the data is of sequences.
        sequences: sequences among the labelled, where the data is of sequences.
        faults: one line for each row or file whose text is corrupt. Training refuses them, a check lists them.
        published: sizes of this edition (part -> class -> pictures), where they are not the dataset's own.
    """

    layout: str
    classes: tuple[str, ...]
    parts: dict[str, Part]
    sure: bool = True
    faces: FaceChoice = "whole"
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    unlabelled: int | None = None
    sequences: int | None = None
    faults: list[str] = field(default_factory=list)
    published: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def counts(self) -> dict[str, dict[str, int]]:
        """Part -> class -> pictures."""
        return {
            name: dict(zip(self.classes, np.bincount(part.labels, minlength=len(self.classes)).tolist(), strict=True))
            for name, part in self.parts.items()
        }

    def expected(self, published: Mapping[str, Mapping[str, int]]) -> dict[str, Mapping[str, int]]:
        """The published sizes of the parts that are here, of this edition where it has its own."""
        sizes = {**published, **self.published}
        return {name: sizes[name] for name in self.parts if name in sizes}

    def compare(self, published: Mapping[str, Mapping[str, int]]) -> None:
        """Adds a problem for each part whose sizes are not those published (part -> class -> pictures)."""
        for name, expected in self.expected(published).items():
            counts = self.counts()[name]
            if counts == {key: expected.get(key, 0) for key in counts}:
                continue
            wrong = [
                f"{key} {n} (published {expected.get(key, 0)})"
                for key, n in counts.items()
                if n != expected.get(key, 0)
            ]
            total, wanted = sum(counts.values()), sum(expected.values())
            self.problems.append(f"{name} has {total} images where {wanted} were published: {', '.join(wrong)}")
