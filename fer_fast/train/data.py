"""The images of a run: one split each to learn from, to select the epoch by, and to report on."""

import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from fer_fast.data import DATASETS, Drawn, OnDisk, Wanted, open_dataset, splits
from fer_fast.data.augment import fourteen_fold
from fer_fast.data.crossed import Crossed, of_classes
from fer_fast.data.dataset import FaceDataset
from fer_fast.data.opened import FOLDING, OF_COPIES, Reading, read_copy
from fer_fast.data.splits import Role
from fer_fast.errors import InputError
from fer_fast.suggest import one_of
from fer_fast.train.config import RunConfig
from fer_fast.train.shown import counted


class Splits(NamedTuple):
    """What a run reads.

    Attributes:
        train, val, test: the images.
        notes: what to know of the data, one line each.
        folds: fold -> subjects and images a class, for data that is cut by subject; else None.
    """

    train: FaceDataset
    val: FaceDataset
    test: FaceDataset
    notes: tuple[str, ...]
    folds: dict[str, Any] | None


def open_data(config: RunConfig) -> Drawn | OnDisk | Crossed:
    """The configured dataset, or the two that are trained and reported on.

    Raises:
        InputError: an unknown dataset, data that cannot be read, or a dataset to report on that is no other one.
    """
    one_of(config.dataset, DATASETS, "dataset")
    reported = open_reported(config)
    wanted = _wanted(config, config.dataset, "training" if reported else "both")
    trained = open_dataset(config.dataset, config.root, wanted, reported)
    return Crossed(trained, reported) if reported else trained


def open_reported(config: RunConfig) -> Drawn | OnDisk | None:
    """The other dataset that a run is reported on, where there is one.

    Raises:
        InputError: as `open_data`.
    """
    name, root = config.test_dataset, config.test_root
    if name is None:
        if root is not None:
            raise InputError(f"test_root is {root}, without a test_dataset that lies there (--test_dataset NAME)")
        return None
    one_of(name, DATASETS, "test_dataset")
    if DATASETS[name].needs_root and root is None:
        itself = f"or report on {config.dataset} itself (--test_dataset null)"
        raise InputError(f"{name} is read from a folder; give its path as test_root (--test_root DIR), {itself}")
    if not DATASETS[name].needs_root and root is not None:
        raise InputError(f"{name} are drawn and read no folder; leave test_root out")
    if (config.root and root and _same(config.root, root)) or (name == config.dataset and root is None):
        raise InputError(f"{root or name} is what is trained on; leave test_dataset out to report its own test split")
    return open_dataset(name, root, _wanted(config, name, "report"))


def load_reported(config: RunConfig, classes: tuple[str, ...]) -> FaceDataset:
    """The test split of the other dataset, for a model of these classes; the one that was trained on is not needed.

    Raises:
        InputError: as `open_data`.
    """
    test = of_classes(open_reported(config).split("test"), classes)
    for line in test.notes:
        warnings.warn(line, stacklevel=2)
    return test


def cuts_validation(config: RunConfig) -> bool:
    """Whether a validation split is cut off the images of the folder that is trained on.

    Raises:
        InputError: as `open_data`.
    """
    one_of(config.dataset, DATASETS, "dataset")
    role: Role = "training" if config.test_dataset else "both"
    listing = read_copy(DATASETS[config.dataset], Path(config.root), _wanted(config, config.dataset, role))
    return splits.cuts_validation(listing, role)


def names_of(config: RunConfig) -> dict[str, list[str]]:
    """Split -> names of its images in the folder that is trained on, also of those that are left out; none is decoded.

    Raises:
        InputError: as `open_data`.
    """
    role: Role = "training" if config.test_dataset else "both"
    wanted = _wanted(config, config.dataset, role)
    listing, named = read_copy(DATASETS[config.dataset], Path(config.root), wanted), {}
    for split in ("train", "val", *(("test",) if role == "both" else ())):
        how = {key: getattr(wanted, key) for key in ("seed", "fold", "folds", "validation", "role")}
        part, rows = splits.rows_of(listing, split, name=config.dataset, **how)
        named[split] = [listing.parts[part].names[row] for row in rows.tolist()]
    return named


def _same(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def _wanted(config: RunConfig, name: str, role: Role) -> Wanted:
    """What is wanted of a dataset; a recipe, or the other dataset, may want more than there is to be had of it."""
    reading = {field.name: getattr(config.data, field.name) for field in fields(Reading)}
    of_training = ("order", "validation", "duplicates") if role == "report" else ()
    for key in of_training if DATASETS[name].needs_root else OF_COPIES:
        if key not in FOLDING:  # folds of what has none would be the same run again and again
            del reading[key]
    return Wanted(**reading, seed=config.seed, options=config.data.options.get(name, {}), role=role)


def load_splits(config: RunConfig) -> Splits:
    """All three splits; the one that is reported first, for a run must not end where it cannot be read.

    Raises:
        InputError: data that cannot be read, or too few images.
    """
    data = open_data(config)
    test, val, train = (data.split(split) for split in ("test", "val", "train"))
    notes = [f"{part.split}: {line}" for part in (train, val, test) for line in part.notes]
    if config.data.duplicates == "keep" and (again := data.duplicated("train") + data.duplicated("val")):
        notes.append(
            f"also in the test split, pixel for pixel or nearly: {counted(again, 'image')} of train and val; "
            "--data.duplicates drop leaves them out"
        )
    for line in notes:  # of those of the whole it has warned itself
        warnings.warn(line, stacklevel=2)
    if config.data.fourteen_fold:
        train = fourteen_fold(train)
    return Splits(train, val, test, (*data.notes, *notes), data.folds)
