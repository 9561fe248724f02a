"""Which pictures of a copy are trained on, select the model, and are reported: official parts, cuts and folds."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from fer_fast.data.dataset import SPLITS, VALIDATION_FRACTION
from fer_fast.data.listing import Listing, Part
from fer_fast.errors import InputError

FOLDS = 10
TEST_FRACTION = 0.2  # where the data has neither an official test part nor subjects
# What a dataset is for: everything, or one side of a run that trains on one dataset and reports on another.
Role = Literal["both", "training", "report"]


def rows_of(
    listing: Listing,
    split: str,
    *,
    seed: int,
    fold: int | None,
    name: str,
    folds: int = FOLDS,
    validation: float = VALIDATION_FRACTION,
    role: Role = "both",
) -> tuple[str, np.ndarray]:
    """The part that `split` is taken from, and its rows, in order.

    An official part is taken as it is. Where there is no validation part, one eighth of the training pictures is, by
    class and whole units. Data without official parts is cut by subject into ten folds: `fold` is the test split, the
    next one (after the last the first) the validation split. Without subjects a fifth of the pictures, by class and
    whole units, is the test split.

    Data that is trained on alone keeps no test split back: what has no official part is all trained on, but for the
    validation cut. Of data that is reported on alone the test split is the official one, or else everything.

    Args:
        listing: of the copy.
        split: "train", "val" or "test".
        seed: decides the cuts; folds do not depend on it.
        fold: 1 to `folds`, for data that is cut by subject; None is 1.
        name: of the dataset, for errors.
        folds: how many folds data is cut into by subject.
        validation: what is cut off for validation: a share below 1 of each class, or about so many images of each.
        role: what the data is for.

    Raises:
        InputError: no such split here, folds where there are none, too few subjects for them, or a class that is not
            larger than what validation takes of it.
    """
    if split not in SPLITS:
        raise InputError(f"{name} has no split {split!r}; allowed: {', '.join(SPLITS)}")
    _check_fold(listing, fold, folds, role, name)
    if role == "both" and "all" in listing.parts:
        part = listing.parts["all"]
        if is_folded(listing):
            return "all", _fold(part, split, fold or 1, folds, name)
        test = cut(part, np.arange(len(part)), TEST_FRACTION, seed)
        source, rows, seed = "all", np.flatnonzero(test if split == "test" else ~test), seed + 1
    else:
        source = _source(listing, split, role, name)
        rows = np.arange(len(listing.parts[source]))
    if split == "test" or not cuts_validation(listing, role):
        return source, rows
    held_out = _validation(listing, listing.parts[source], rows, validation, seed, name)
    return source, rows[held_out if split == "val" else ~held_out]


def is_folded(listing: Listing) -> bool:
    """Whether the data is cut into folds by subject where it is both trained on and reported."""
    part = listing.parts.get("all")
    return part is not None and part.subjects is not None


def cuts_validation(listing: Listing, role: Role) -> bool:
    """Whether a validation split is cut off: there is no official one, nor a fold that serves as such."""
    return "val" not in listing.parts and not (role == "both" and is_folded(listing))


def folds_of(part: Part, folds: int = FOLDS) -> np.ndarray:
    """The fold, from 0, of each picture: of ten folds, subject i of the sorted ones is in fold i mod 10.

    Subjects that share a group (two people in a photograph) stand together where the first of them does.
    """
    units = _units(part, np.arange(len(part)))
    firsts: dict[int, str] = {}
    for unit, subject in zip(units.tolist(), part.subjects or (), strict=True):
        firsts[unit] = min(subject, firsts.get(unit, subject))
    numbers = {unit: i % folds for i, unit in enumerate(sorted(firsts, key=firsts.__getitem__))}
    return np.array([numbers[unit] for unit in units.tolist()], np.int64)


def manifest(listing: Listing, folds: int = FOLDS) -> dict[str, dict[str, Any]] | None:
    """What the folder of a run says of the folds: fold -> its subjects, its images of each class, the classes it lacks.

    Returns:
        "1", "2", ... -> {"subjects": [...], "images": {class: n}, "absent": [...]}; None where the data is not cut by
        subject.
    """
    if not is_folded(listing):
        return None
    part, about = listing.parts["all"], {}
    numbers = folds_of(part, folds)
    for fold in range(folds):
        rows = np.flatnonzero(numbers == fold)
        images = _images(listing, part.labels[rows])
        about[str(fold + 1)] = {
            "subjects": sorted({part.subjects[row] for row in rows.tolist()}),
            "images": images,
            "absent": [name for name, count in images.items() if count == 0],
        }
    return about


def absences(
    listing: Listing, labels: np.ndarray, split: str, fold: int | None, folds: int = FOLDS, role: Role = "both"
) -> tuple[str, ...]:
    """A line where a split lacks a class of the data that it was cut from.

    Args:
        listing: of the copy.
        labels: of the pictures of the split.
        split: its name.
        fold: the test fold that was asked for.
        folds: how many there are.
        role: what the data is for.
    """
    absent = [name for name, count in _images(listing, labels).items() if count == 0]
    shown = ((fold or 1) - (split == "test")) % folds + 1  # the validation split is the fold after the test fold
    where = f"fold {shown}" if role == "both" and is_folded(listing) else f"the {split} split"
    if split == "train":
        return (f"no image of {' and none of '.join(absent)} is trained on",) if absent else ()
    return () if role == "report" else absence(where, absent)


def absence(where: str, absent: Sequence[str]) -> tuple[str, ...]:
    """The line that says which classes there are not, where there are such."""
    return (f"{where} has no {' and no '.join(absent)}: mean accuracy is over the classes present",) if absent else ()


def cut(part: Part, rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """bool (len(rows),): which of the rows are cut off, about `share` of each class, or so many; `seed` alone decides.

    What must not be cut apart (groups, subjects, else single pictures) goes as a whole, in random order; the rarest
    class first, since a unit of several classes counts for all of them. Of two units or more whose rarest class is the
    same, at least one is cut off, and one is not. No class is cut off as a whole.

    Raises:
        InputError: no class has two units.
    """
    units, labels = np.unique(_units(part, rows), return_inverse=True)[1], part.labels[rows]
    held = np.zeros((units.max(initial=-1) + 1, labels.max(initial=-1) + 1), np.int64)  # pictures: unit, class
    np.add.at(held, (units, labels), 1)
    totals = held.sum(0)
    wanted = share * totals if share < 1 else np.full(len(totals), share)
    ranks = np.argsort(np.argsort(totals, kind="stable"))
    sole = ((held == totals) & (held > 0)).any(1)  # has all there is of a class, so it stays
    rarest = np.where(held > 0, ranks, len(totals)).argmin(1) if len(held) else np.empty(0, np.int64)
    generator = np.random.default_rng(seed)
    off = np.zeros(len(held), bool)
    for label in np.argsort(totals, kind="stable").tolist():
        members = generator.permutation(np.flatnonzero(rarest == label))
        members = members[np.argsort(sole[members], kind="stable")]
        if len(members) < 2:
            continue
        sizes, taken = held[members, label], held[off, label].sum()
        # A unit goes over where it brings the number nearer; the last never does.
        over = taken + np.cumsum(sizes) - sizes / 2 <= wanted[label]
        over[0] |= taken == 0
        over[-1] = False
        off[members[over & ~sole[members]]] = True
    while len(gone := np.flatnonzero((totals > 0) & (held[~off].sum(0) == 0))):  # with units of a rarer class
        holders = np.flatnonzero(held[:, gone[0]])
        off[holders[held[holders].sum(1).argmin()]] = False
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


def _check_fold(listing: Listing, fold: int | None, folds: int, role: Role, name: str) -> None:
    if fold is None and folds == FOLDS:
        return
    asked = "fold" if folds == FOLDS else "folds"
    if fold is not None and not 1 <= fold <= folds:
        raise InputError(f"fold is {fold}; allowed: 1 to {folds}")
    if role != "both":
        raise InputError(f"{name}: a run that is reported on another dataset has no folds; leave {asked} out")
    if all(part.subjects is None for part in listing.parts.values()):
        raise InputError(
            f"{name} ({listing.layout}): this copy does not say who is in a picture, so there are no folds by subject; "
            f"leave {asked} out"
        )
    if "all" not in listing.parts:
        raise InputError(
            f"{name} ({listing.layout}) has official parts ({', '.join(listing.parts)}); leave {asked} out"
        )


def _source(listing: Listing, split: str, role: Role, name: str) -> str:
    """The part that a split is taken from, whole or cut."""
    parts = tuple(listing.parts)
    if role == "report" and "test" not in parts and len(parts) == 1:
        return parts[0]
    source = "train" if split == "val" and "val" not in parts else split
    if role == "training" and source == "train" and "all" in parts:
        return "all"
    if source not in parts:
        raise InputError(f"{name} ({listing.layout}) has no {source} images; it has: {', '.join(parts)}")
    return source


def _fold(part: Part, split: str, fold: int, folds: int, name: str) -> np.ndarray:
    numbers = folds_of(part, folds)
    if (people := numbers.max() + 1) < folds:
        raise InputError(f"{name}: {folds} folds need {folds} subjects, here are {people}; data.folds says how many")
    test, val = numbers == fold - 1, numbers == fold % folds
    return np.flatnonzero({"test": test, "val": val, "train": ~(test | val)}[split])


def _validation(listing: Listing, part: Part, rows: np.ndarray, validation: float, seed: int, name: str) -> np.ndarray:
    """bool (len(rows),): which of the rows are cut off to select by."""
    for word, count in _images(listing, part.labels[rows]).items():
        if 0 < count <= validation and validation >= 1:
            raise InputError(
                f"{name}: validation takes {validation:.0f} images of each class, of {word} there are {count}; "
                "data.validation says how many"
            )
    return cut(part, rows, validation, seed)
