"""Data sets: generated faces, folders people have on disk, batched augmentation."""

import inspect
from pathlib import Path
from typing import Any

from fer_fast.data.augment import LEVELS, Augment, AugmentConfig, Normalise
from fer_fast.data.dataset import CLASSES, SPLITS, DatasetInfo, FaceDataset, resize_dataset
from fer_fast.data.faces import load_faces
from fer_fast.data.fer2013 import inspect_fer2013, load_fer2013
from fer_fast.data.sampling import epoch_batches
from fer_fast.errors import InputError

__all__ = [
    "CLASSES",
    "DATASETS",
    "LEVELS",
    "SPLITS",
    "Augment",
    "AugmentConfig",
    "DatasetInfo",
    "FaceDataset",
    "Normalise",
    "epoch_batches",
    "load_dataset",
]

# The one table of data sets: the loader, the command line, `data check` and the tests read it.
DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            name="faces",
            classes=CLASSES,
            needs_root=False,
            splits=SPLITS,
            description="generated faces, drawn by the package: no download, any size, 7 or 8 classes",
            load=load_faces,
        ),
        DatasetInfo(
            name="fer2013",
            classes=CLASSES[:7],
            needs_root=True,
            splits=SPLITS,
            description="FER2013, 48×48 gray, as csv or folders",
            load=load_fer2013,
            inspect=inspect_fer2013,
        ),
    )
}


def load_dataset(
    name: str,
    root: str | Path | None = None,
    *,
    split: str = "train",
    image_size: int | None = None,
    channels: int | None = None,
    seed: int = 0,
    **options: Any,
) -> FaceDataset:
    """Reads, or draws, one split of a data set into memory.

    Args:
        name: a key of `DATASETS`.
        root: the user's folder; its layout is detected. Left out for data sets that need none.
        split: "train", "val" or "test". Where the data set has no validation part, "val" is cut from its training
            images, stratified by class, and "train" leaves those out.
        image_size: side in pixels of the images returned; None keeps what is there.
        channels: 1 (gray) or 3 (RGB) channels returned; None keeps what is there.
        seed: decides that cut, and everything about generated faces.
        options: keywords of the data set's own loader, for instance `samples` of `load_faces`.

    Raises:
        InputError: an unknown name, split or option, a missing folder, or a file that is not what it should be.
    """
    if name not in DATASETS:
        raise InputError(f"unknown data set {name!r}; allowed: {', '.join(DATASETS)}")
    info = DATASETS[name]
    if split not in info.splits:
        raise InputError(f"{name} has no split {split!r}; allowed: {', '.join(info.splits)}")
    if channels not in (None, 1, 3):
        raise InputError(f"channels is {channels!r}; allowed: 1 or 3")
    if image_size is not None and not (isinstance(image_size, int) and 8 <= image_size <= 4096):
        raise InputError(f"image_size is {image_size!r}; allowed: 8 to 4096")
    if info.needs_root and root is None:
        raise InputError(f"{name} is read from a folder; give its path as root (--root DIR)")
    own = inspect.signature(info.load).parameters
    extra = [key for key in own if key not in inspect.signature(load_dataset).parameters]
    unknown = sorted(set(options) - set(extra))
    if unknown:
        raise InputError(f"{name} has no option {unknown[0]!r}; allowed: {', '.join(extra)}")
    # A loader that can make the wanted images by itself, sharper than a resize, names these arguments.
    wanted = {"image_size": image_size, "channels": channels}
    native = {key: value for key, value in wanted.items() if key in own}
    dataset = info.load(root, split=split, seed=seed, **native, **options)
    return resize_dataset(dataset, image_size, channels)
