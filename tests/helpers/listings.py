"""Listings of pictures that are nowhere: their labels, subjects and groups, and the rows of a split."""

import numpy as np

from fer_fast.data.listing import Listing, Part
from fer_fast.data.pictures import Files
from fer_fast.data.splits import rows_of

CLASSES = ("happiness", "sadness", "fear")


def part(labels, subjects=None, groups=None) -> Part:
    names = tuple(f"{i}.png" for i in range(len(labels)))
    columns = [None if column is None else tuple(map(str, column)) for column in (subjects, groups)]
    return Part(Files(names), np.array(labels, np.int64), names, subjects=columns[0], groups=columns[1])


def listing(**parts: Part) -> Listing:
    return Listing("drawn", CLASSES, parts)


def rows(copy: Listing, split: str, *, seed: int = 0, fold: int | None = None, **protocol) -> set[int]:
    return set(rows_of(copy, split, seed=seed, fold=fold, name="drawn", **protocol)[1].tolist())


def picked(column: tuple[str, ...], of: set[int]) -> set[str]:
    return {column[row] for row in of}
