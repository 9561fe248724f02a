"""Which pictures of a copy are trained on, select the model, and are reported: official parts, cuts and folds."""

import numpy as np

from fer_fast.data.dataset import SPLITS, VALIDATION_FRACTION
from fer_fast.data.listing import Listing, Part
from fer_fast.errors import InputError

FOLDS = 10
TEST_FRACTION = 0.2  # where the data has neither an official test part nor subjects


def rows_of(listing: Listing, split: str, *, seed: int, fold: int | None, name: str) -> tuple[str, np.ndarray]:
    """The part that `split` is taken from, and its rows.

    An official part is taken as it is. Where there is no validation part, one eighth of the training pictures is, by
    class, whole groups. Data without official parts is cut by subject: ten folds of the sorted subjects, subject i in
    fold i mod 10; `fold` is the test split, the next one the validation split. Without subjects a fifth of the
    pictures, by class and whole groups, is the test split.

    Args:
        listing: of the copy.
        split: "train", "val" or "test".
        seed: decides the cuts.
        fold: 1 to 10, for data that is cut by subject.
        name: of the dataset, for errors.

    Raises:
        InputError: no such split here, or a fold where there are no subjects.
    """
    if split not in SPLITS:
        raise InputError(f"{name} has no split {split!r}; allowed: {', '.join(SPLITS)}")
    if "all" in listing.parts:
        return "all", _of_all(listing.parts["all"], split, seed, fold, name)
    if fold is not None:
        raise InputError(f"{name} ({listing.layout}) has official parts ({', '.join(listing.parts)}); leave fold out")
    part = "train" if split == "val" and "val" not in listing.parts else split
    if part not in listing.parts:
        raise InputError(f"{name} ({listing.layout}) has no {part} images; it has: {', '.join(listing.parts)}")
    rows = np.arange(len(listing.parts[part]))
    if part == split and (split != "train" or "val" in listing.parts):
        return part, rows
    held_out = cut(listing.parts[part], rows, VALIDATION_FRACTION, seed)
    return part, rows[held_out if split == "val" else ~held_out]


def subject_folds(subjects: tuple[str, ...], folds: int = FOLDS) -> np.ndarray:
    """The fold, 0 to folds - 1, of each picture: subject i of the sorted ones is in fold i mod `folds`."""
    numbers = {subject: i % folds for i, subject in enumerate(sorted(set(subjects)))}
    return np.array([numbers[subject] for subject in subjects], np.int64)


def cut(part: Part, rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """bool (len(rows),): which of the rows are cut off, about `fraction` of each class; `seed` alone decides.

    Whole groups (else subjects, else single pictures) are cut off, class by class of their first picture, in random
    order, at least one where a class has two or more.
    """
    column = part.groups or part.subjects
    groups = (
        np.unique([column[row] for row in rows.tolist()], return_inverse=True)[1] if column else np.arange(len(rows))
    )
    first = np.unique(groups, return_index=True)[1]
    sizes, labels = np.bincount(groups), part.labels[rows][first]
    generator = np.random.default_rng(seed)
    off = np.zeros(len(sizes), bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        if len(members) > 1:
            wanted = max(1.0, fraction * sizes[members].sum())
            # A group goes over where it brings the number nearer; the first always does, the last never.
            before = np.cumsum(sizes[members]) - sizes[members]
            over = before + sizes[members] / 2 <= wanted
            over[0], over[-1] = True, False
            off[members[over]] = True
    if not off.any():
        raise InputError("no class has the two training images that cutting a validation part needs")
    return off[groups]


def _of_all(part: Part, split: str, seed: int, fold: int | None, name: str) -> np.ndarray:
    rows = np.arange(len(part))
    if part.subjects is not None:
        test = (fold or 1) - 1
        if not 0 <= test < FOLDS:
            raise InputError(f"fold is {fold}; allowed: 1 to {FOLDS}")
        folds = subject_folds(part.subjects)
        val = (test + 1) % FOLDS
        wanted = {"test": folds == test, "val": folds == val, "train": (folds != test) & (folds != val)}
        return rows[wanted[split]]
    if fold is not None:
        raise InputError(
            f"{name}: this copy does not say who is in a picture, so there are no folds by subject; leave fold out"
        )
    test = cut(part, rows, TEST_FRACTION, seed)
    if split == "test":
        return rows[test]
    rest = rows[~test]
    val = cut(part, rest, VALIDATION_FRACTION, seed + 1)
    return rest[val if split == "val" else ~val]
