"""Which pictures of a copy are trained on, select the model, and are reported: official parts, cuts and folds."""

from typing import Any

import numpy as np

from fer_fast.data.dataset import SPLITS, VALIDATION_FRACTION
from fer_fast.data.listing import Listing, Part
from fer_fast.errors import InputError

FOLDS = 10
TEST_FRACTION = 0.2  # where the data has neither an official test part nor subjects


def rows_of(listing: Listing, split: str, *, seed: int, fold: int | None, name: str) -> tuple[str, np.ndarray]:
    """The part that `split` is taken from, and its rows, in order.

    An official part is taken as it is. Where there is no validation part, one eighth of the training pictures is, by
    class and whole units. Data without official parts is cut by subject into ten folds: `fold` is the test split, the
    next one (after the last the first) the validation split. Without subjects a fifth of the pictures, by class and
    whole units, is the test split.

    Args:
        listing: of the copy.
        split: "train", "val" or "test".
        seed: decides the cuts; folds do not depend on it.
        fold: 1 to 10, for data that is cut by subject; None is 1.
        name: of the dataset, for errors.

    Raises:
        InputError: no such split here, a fold where there are no subjects, or too few subjects for it.
    """
    if split not in SPLITS:
        raise InputError(f"{name} has no split {split!r}; allowed: {', '.join(SPLITS)}")
    if fold is not None:
        _check_fold(listing, fold, name)
    if "all" in listing.parts:
        part = listing.parts["all"]
        return "all", _fold(part, split, fold or 1, name) if part.subjects else _share(part, split, seed)
    source = "train" if split == "val" and "val" not in listing.parts else split
    if source not in listing.parts:
        raise InputError(f"{name} ({listing.layout}) has no {source} images; it has: {', '.join(listing.parts)}")
    rows = np.arange(len(listing.parts[source]))
    if source != "train" or "val" in listing.parts:
        return source, rows
    held_out = cut(listing.parts[source], rows, VALIDATION_FRACTION, seed)
    return source, rows[held_out if split == "val" else ~held_out]


def folds_of(part: Part) -> np.ndarray:
    """The fold, 0 to 9, of each picture: subject i of the sorted ones is in fold i mod 10.

    Subjects that share a group (two people in a photograph) stand together where the first of them does.
    """
    units = _units(part, np.arange(len(part)))
    firsts: dict[int, str] = {}
    for unit, subject in zip(units.tolist(), part.subjects or (), strict=True):
        firsts[unit] = min(subject, firsts.get(unit, subject))
    numbers = {unit: i % FOLDS for i, unit in enumerate(sorted(firsts, key=firsts.__getitem__))}
    return np.array([numbers[unit] for unit in units.tolist()], np.int64)


def manifest(listing: Listing) -> dict[str, dict[str, Any]] | None:
    """What the folder of a run says of the folds: fold -> its subjects, its images of each class, the classes it lacks.

    Returns:
        "1" to "10" -> {"subjects": [...], "images": {class: n}, "absent": [...]}; None where the data is not cut by
        subject.
    """
    part = listing.parts.get("all")
    if part is None or part.subjects is None:
        return None
    folds, about = folds_of(part), {}
    for fold in range(FOLDS):
        rows = np.flatnonzero(folds == fold)
        images = _images(listing, part.labels[rows])
        about[str(fold + 1)] = {
            "subjects": sorted({part.subjects[row] for row in rows.tolist()}),
            "images": images,
            "absent": [name for name, count in images.items() if count == 0],
        }
    return about


def absences(listing: Listing, labels: np.ndarray, split: str, fold: int | None) -> tuple[str, ...]:
    """A line where a split that accuracies are computed on lacks a class of the data.

    Args:
        listing: of the copy.
        labels: of the pictures of the split.
        split: its name.
        fold: the test fold that was asked for.
    """
    absent = [name for name, count in _images(listing, labels).items() if count == 0]
    if not absent or split == "train":
        return ()
    part = listing.parts.get("all")
    folded = part is not None and part.subjects is not None
    shown = ((fold or 1) - (split == "test")) % FOLDS + 1  # the validation split is the fold after the test fold
    where = f"fold {shown}" if folded else f"the {split} split"
    return (f"{where} has no {' and no '.join(absent)}: mean accuracy is over the classes present",)


def cut(part: Part, rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """bool (len(rows),): which of the rows are cut off, about `fraction` of each class; `seed` alone decides.

    What must not be cut apart (groups, subjects, else single pictures) goes as a whole, in random order; the rarest
    class first, since a unit of several classes counts for all of them. Of two units or more whose rarest class is the
    same, at least one is cut off, and one is not.

    Raises:
        InputError: no class has two units.
    """
    units, labels = np.unique(_units(part, rows), return_inverse=True)[1], part.labels[rows]
    held = np.zeros((units.max(initial=-1) + 1, labels.max(initial=-1) + 1), np.int64)  # pictures: unit, class
    np.add.at(held, (units, labels), 1)
    totals = held.sum(0)
    ranks = np.argsort(np.argsort(totals, kind="stable"))
    rarest = np.where(held > 0, ranks, len(totals)).argmin(1) if len(held) else np.empty(0, np.int64)
    generator = np.random.default_rng(seed)
    off = np.zeros(len(held), bool)
    for label in np.argsort(totals, kind="stable").tolist():
        members = generator.permutation(np.flatnonzero(rarest == label))
        if len(members) < 2:
            continue
        sizes, taken = held[members, label], held[off, label].sum()
        # A unit goes over where it brings the number nearer; the last never does.
        over = taken + np.cumsum(sizes) - sizes / 2 <= fraction * totals[label]
        over[0] |= taken == 0
        over[-1] = False
        off[members[over]] = True
    if not off.any():
        raise InputError("no class has the two training images that cutting a validation part needs")
    return off[units]


def _images(listing: Listing, labels: np.ndarray) -> dict[str, int]:
    """Class -> images."""
    counts = np.bincount(labels, minlength=len(listing.classes)).tolist()
    return dict(zip(listing.classes, counts, strict=True))


def _units(part: Part, rows: np.ndarray) -> np.ndarray:
    """int64 (len(rows),): rows of one number share a group, a subject, or a chain of them, and are not cut apart."""
    units = np.arange(len(rows))
    columns = [
        np.unique([column[row] for row in rows.tolist()], return_inverse=True)[1]
        for column in (part.groups, part.subjects)
        if column is not None
    ]
    while True:
        before = units
        for column in columns:
            lowest = np.full(len(rows), len(rows))
            np.minimum.at(lowest, column, units)
            units = lowest[column]
        if (units == before).all():
            return units


def _check_fold(listing: Listing, fold: int, name: str) -> None:
    if not 1 <= fold <= FOLDS:
        raise InputError(f"fold is {fold}; allowed: 1 to {FOLDS}")
    if all(part.subjects is None for part in listing.parts.values()):
        raise InputError(
            f"{name} ({listing.layout}): this copy does not say who is in a picture, so there are no folds by subject; "
            "leave fold out"
        )
    if "all" not in listing.parts:
        raise InputError(f"{name} ({listing.layout}) has official parts ({', '.join(listing.parts)}); leave fold out")


def _fold(part: Part, split: str, fold: int, name: str) -> np.ndarray:
    folds = folds_of(part)
    test, val = folds == fold - 1, folds == fold % FOLDS
    rows = np.flatnonzero({"test": test, "val": val, "train": ~(test | val)}[split])
    if len(rows) == 0:
        subjects = len(set(part.subjects or ()))
        raise InputError(f"{name}: fold {fold} has no {split} images; ten folds need 10 subjects, here are {subjects}")
    return rows


def _share(part: Part, split: str, seed: int) -> np.ndarray:
    rows = np.arange(len(part))
    test = cut(part, rows, TEST_FRACTION, seed)
    if split == "test":
        return rows[test]
    rest = rows[~test]
    val = cut(part, rest, VALIDATION_FRACTION, seed + 1)
    return rest[val if split == "val" else ~val]
