"""Data sets: generated faces, folders people have on disk, batched augmentation."""

from pathlib import Path
from typing import Any

from fer_fast.data.augment import Augment, AugmentConfig, Normalise
from fer_fast.data.dataset import SPLITS, FaceDataset, Images
from fer_fast.data.labels import CLASSES
from fer_fast.data.opened import Drawn, OnDisk, Wanted
from fer_fast.data.sampling import epoch_batches
from fer_fast.data.sources import DATASETS
from fer_fast.data.table import DatasetInfo
from fer_fast.errors import InputError

__all__ = [
    "CLASSES",
    "DATASETS",
    "SPLITS",
    "Augment",
    "AugmentConfig",
    "DatasetInfo",
    "FaceDataset",
    "Images",
    "Normalise",
    "Wanted",
    "epoch_batches",
    "load_dataset",
    "open_dataset",
]


def open_dataset(
    name: str, root: str | Path | None = None, wanted: Wanted | None = None, reported: Drawn | OnDisk | None = None
) -> Drawn | OnDisk:
    """Finds a dataset and reads what is in it; `.split("train")` of the result gives images.

    Args:
        name: a key of `DATASETS`.
        root: the user's folder or file; its layout is detected. Left out for datasets that are drawn.
        wanted: how images are wanted.
        reported: the dataset whose test split is reported, where it is another one.

    Raises:
        InputError: an unknown name or option, a missing folder, or a copy that is not what it should be.
    """
    if name not in DATASETS:
        raise InputError(f"unknown data set {name!r}; allowed: {', '.join(DATASETS)}")
    info = DATASETS[name]
    if info.needs_root and root is None:
        raise InputError(f"{name} is read from a folder; give its path as root (--root DIR)")
    if not info.needs_root and root is not None:
        raise InputError(f"{name} are drawn and read no folder; name the dataset that lies in {root} (--dataset NAME)")
    wanted = wanted or Wanted()
    return OnDisk(info, Path(root), wanted, reported) if info.needs_root else Drawn(info, wanted)


def load_dataset(
    name: str,
    root: str | Path | None = None,
    *,
    split: str = "train",
    options: dict[str, Any] | None = None,
    **wanted: Any,
) -> FaceDataset:
    """One split of a dataset; the keywords are those of `Wanted`.

    Raises:
        InputError: as `open_dataset`, and an unknown split.
    """
    if split not in SPLITS:
        raise InputError(f"{name} has no split {split!r}; allowed: {', '.join(SPLITS)}")
    known = Wanted.__dataclass_fields__
    own = {key: value for key, value in wanted.items() if key not in known} | dict(options or {})
    general = {key: value for key, value in wanted.items() if key in known}
    return open_dataset(name, root, Wanted(**general, options=own)).split(split)
