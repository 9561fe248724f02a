"""The images of a run: one split each to learn from, to select the epoch by, and to report on."""

import warnings
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fer_fast.data import DATASETS, Drawn, Images, OnDisk, Wanted, open_dataset
from fer_fast.data.augment import fourteen_fold
from fer_fast.data.dataset import FaceDataset
from fer_fast.data.splits import manifest
from fer_fast.suggest import one_of
from fer_fast.train.config import RunConfig


class Splits(NamedTuple):
    """What a run reads.

    Attributes:
        train, val, test: the images.
        folds: fold -> subjects and images a class, for data that is cut by subject; else None.
    """

    train: FaceDataset
    val: FaceDataset
    test: FaceDataset
    folds: dict[str, Any] | None


def open_data(config: RunConfig) -> Drawn | OnDisk:
    """The configured dataset.

    Raises:
        InputError: an unknown dataset, or data that cannot be read.
    """
    one_of(config.dataset, DATASETS, "dataset")
    data = config.data
    wanted = Wanted(
        image_size=data.image_size,
        channels=data.channels,
        faces=data.faces,
        no_face=data.no_face,
        unreadable=data.unreadable,
        duplicates=data.duplicates,
        fold=data.fold,
        order=data.order,
        seed=config.seed,
        options=data.options.get(config.dataset, {}),
    )
    return open_dataset(config.dataset, config.root, wanted)


def load_splits(config: RunConfig) -> Splits:
    """All three splits; the one that is reported first, for a run must not end where it cannot be read.

    Raises:
        InputError: data that cannot be read, or too few images.
    """
    data = open_data(config)
    test, val, train = (data.split(split) for split in ("test", "val", "train"))
    if again := shared(train, test):
        line = f"{again} of {len(train)} images are also in the test split; --data.duplicates drop leaves them out"
        train = replace(train, notes=(*train.notes, line))
    for split in (train, val, test):
        for line in split.notes:
            warnings.warn(f"{split.split}: {line}", stacklevel=2)
    if config.data.fourteen_fold:
        train = fourteen_fold(train)
    return Splits(train, val, test, manifest(data.listing) if isinstance(data, OnDisk) else None)


def shared(one: FaceDataset, other: FaceDataset) -> int:
    """How many images of `one` are, pixel for pixel, in `other`; 0 for images that are drawn."""
    if not (isinstance(one.images, Images) and isinstance(other.images, Images)):
        return 0
    mine, theirs = (images.marks[images.rows].numpy().view("V16")[:, 0] for images in (one.images, other.images))
    return int(np.isin(mine, theirs).sum())
