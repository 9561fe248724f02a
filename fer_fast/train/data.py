"""The images of a run: one split each to learn from, to select the epoch by, and to report on."""

import warnings
from dataclasses import fields
from typing import Any, NamedTuple

from fer_fast.data import DATASETS, Drawn, OnDisk, Wanted, open_dataset
from fer_fast.data.augment import fourteen_fold
from fer_fast.data.dataset import FaceDataset
from fer_fast.data.opened import Reading
from fer_fast.data.splits import manifest
from fer_fast.suggest import one_of
from fer_fast.train.config import RunConfig


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


def open_data(config: RunConfig) -> Drawn | OnDisk:
    """The configured dataset.

    Raises:
        InputError: an unknown dataset, or data that cannot be read.
    """
    one_of(config.dataset, DATASETS, "dataset")
    reading = {field.name: getattr(config.data, field.name) for field in fields(Reading)}
    wanted = Wanted(**reading, seed=config.seed, options=config.data.options.get(config.dataset, {}))
    return open_dataset(config.dataset, config.root, wanted)


def load_splits(config: RunConfig) -> Splits:
    """All three splits; the one that is reported first, for a run must not end where it cannot be read.

    Raises:
        InputError: data that cannot be read, or too few images.
    """
    data = open_data(config)
    test, val, train = (data.split(split) for split in ("test", "val", "train"))
    known, notes = [], [f"{part.split}: {line}" for part in (train, val, test) for line in part.notes]
    if isinstance(data, OnDisk):
        known = [*data.listing.notes, *data.listing.problems]  # it has warned of these itself
        if config.data.duplicates == "keep" and (again := data.duplicated("train") + data.duplicated("val")):
            notes.append(
                f"{again} images of train and val are also in the test split, pixel for pixel or nearly; "
                "--data.duplicates drop leaves them out"
            )
    for line in notes:
        warnings.warn(line, stacklevel=2)
    if config.data.fourteen_fold:
        train = fourteen_fold(train)
    return Splits(train, val, test, (*known, *notes), manifest(data.listing) if isinstance(data, OnDisk) else None)
