"""The one container of labelled face images, the canonical class names, and the cut of a validation part."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fer_fast.errors import InputError

CLASSES = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
SPLITS = ("train", "val", "test")
VALIDATION_FRACTION = 0.125  # of the training images; FER2013's own ratio is 3 589 / 28 709

# What other copies of the data sets call the canonical classes.
SYNONYMS = {
    "neutral": ("neutrality", "natural", "ne", "neu", "no expression", "normal"),
    "happiness": ("happy", "joy", "ha", "hap", "smile"),
    "sadness": ("sad", "sa"),
    "surprise": ("surprised", "surprize", "su", "sur", "suprise"),
    "fear": ("fearful", "afraid", "scared", "fe", "fea"),
    "disgust": ("disgusted", "di", "dis"),
    "anger": ("angry", "an", "ang"),
    "contempt": ("contemptuous", "co", "con"),
}
_CANONICAL = {word: name for name, words in SYNONYMS.items() for word in (name, *words)}

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in OpenCV and torchvision


def canonical_class(name: str) -> str | None:
    """The canonical name of a class, or None where `name` is none of the known words; case and spaces do not matter."""
    return _CANONICAL.get(name.strip().lower())


@dataclass(frozen=True)
class FaceDataset:
    """Labelled face images of one split, in memory.

    Args:
        images: uint8 (n, channels, height, width) with 1 (gray) or 3 (RGB) channels, on the CPU.
        labels: int64 (n,), index into `classes`.
        classes: names of the classes; every one of them is counted, also where no image has it.
        split: "train", "val" or "test".
        subjects: int64 (n,) identity of each image, where known.
        names: file or row of each image, for error messages and the report.

    Raises:
        InputError: no image, a wrong shape or dtype, a label outside `classes`, columns of unequal length.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    split: str
    subjects: Tensor | None = None
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_images(self.images)
        count = len(self.images)
        if count == 0:
            raise InputError(f"the {self.split} data set has no image; at least one is needed")
        if self.split not in SPLITS:
            raise InputError(f"split is {self.split!r}; allowed: {', '.join(SPLITS)}")
        for field, column in (("labels", self.labels), ("subjects", self.subjects)):
            if column is not None and (column.dtype != torch.int64 or column.shape != (count,)):
                raise InputError(f"{field} must be int64 of shape ({count},), got {_describe(column)}")
        if self.names is not None and len(self.names) != count:
            raise InputError(f"names must have one entry per image: {count}, got {len(self.names)}")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise InputError(f"labels must lie in 0..{len(self.classes) - 1}, got {low}..{high}")

    def __len__(self) -> int:
        return len(self.images)

    def class_counts(self) -> Tensor:
        """Images of each class, int64 (C,)."""
        return torch.bincount(self.labels, minlength=len(self.classes))

    def subset(self, indices: Tensor | Sequence[int], split: str | None = None) -> "FaceDataset":
        """The images at `indices`, int64 (m,), in that order, named `split` (unchanged where None).

        Raises:
            InputError: `indices` is empty, is not a list of integers, or leaves 0..n-1.
        """
        indices = torch.as_tensor(indices)
        if indices.ndim != 1 or indices.dtype not in (torch.int64, torch.int32) or len(indices) == 0:
            raise InputError(f"indices must be a list of at least one integer, got {_describe(indices)}")
        if int(indices.min()) < 0 or int(indices.max()) >= len(self):
            low, high = int(indices.min()), int(indices.max())
            raise InputError(f"indices must lie in 0..{len(self) - 1}, got {low}..{high}")
        indices = indices.long()
        return replace(
            self,
            images=self.images[indices],
            labels=self.labels[indices],
            split=split or self.split,
            subjects=None if self.subjects is None else self.subjects[indices],
            names=None if self.names is None else tuple(self.names[i] for i in indices.tolist()),
        )

    def digest(self) -> str:
        """SHA-256 of images, shape, labels and class names, in hexadecimal: the same data, the same digest."""
        state = hashlib.sha256(repr((tuple(self.images.shape), self.classes)).encode())
        state.update(self.images.contiguous().numpy())
        state.update(self.labels.contiguous().numpy())
        return state.hexdigest()


@dataclass(frozen=True)
class DatasetInfo:
    """One row of the table of data sets.

    Args:
        name: what users type.
        classes: names of the classes, in the order of the labels.
        needs_root: whether a folder of the user is read.
        splits: the parts that can be asked for.
        description: one line for `fer-fast list`.
        load: `load(root, *, split, seed, **options) -> FaceDataset`; it may also take `image_size` and `channels`.
        inspect: `inspect(root) -> Inspection | None` for `fer-fast data check`; None for a folder of something else.
    """

    name: str
    classes: tuple[str, ...]
    needs_root: bool
    splits: tuple[str, ...]
    description: str
    load: Callable[..., FaceDataset]
    inspect: Callable[..., "Inspection | None"] | None = None


@dataclass(frozen=True)
class Inspection:
    """What a loader finds in a folder: everything that can be read, and one line for each thing that cannot."""

    layout: str
    parts: tuple[FaceDataset, ...]
    problems: tuple[str, ...]


def check_images(images: Tensor) -> None:
    """Raises InputError unless `images` is uint8 (n, 1 or 3, height, width) with at least one pixel each."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        raise InputError(f"images must be uint8 of shape (n, 1 or 3, height, width), got {_describe(images)}")


def cut_validation(dataset: FaceDataset, seed: int, fraction: float = VALIDATION_FRACTION) -> dict[str, FaceDataset]:
    """Training images -> {"train", "val"}: a stratified cut that `seed` alone decides.

    Each class gives the nearest whole number to `fraction` of its images, at least one where it has two or more;
    a class with a single image keeps it for training.
    """
    generator = torch.Generator().manual_seed(seed)
    held_out = torch.zeros(len(dataset), dtype=torch.bool)
    for label in range(len(dataset.classes)):
        members = (dataset.labels == label).nonzero().squeeze(1)
        members = members[torch.randperm(len(members), generator=generator)]
        wanted = max(1, round(fraction * len(members))) if len(members) > 1 else 0
        held_out[members[:wanted]] = True
    if not held_out.any():
        raise InputError("no class has the two training images that cutting a validation part needs")
    return {
        "train": dataset.subset((~held_out).nonzero().squeeze(1), "train"),
        "val": dataset.subset(held_out.nonzero().squeeze(1), "val"),
    }


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Gray (n, 1, h, w) <-> RGB (n, 3, h, w) of any dtype: gray is repeated (a view), RGB becomes its BT.601 luma."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    weights = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    if images.dtype.is_floating_point:
        return (images * weights.to(images.dtype)).sum(1, keepdim=True)
    return (images * weights).sum(1, keepdim=True).round().to(images.dtype)


def resize(images: Tensor, size: int) -> Tensor:
    """Float (n, c, h, w) -> (n, c, size, size), bilinear, antialiased where it shrinks; as it is at that size."""
    if images.shape[2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)


def resize_dataset(dataset: FaceDataset, size: int | None, channels: int | None, chunk: int = 1024) -> FaceDataset:
    """The data set at another side length and channel count (None keeps what is there), worked off in chunks."""
    size_now = tuple(dataset.images.shape[2:])
    if size is not None and size_now != (size, size):
        parts = [resize(part.float(), size).round_().byte() for part in dataset.images.split(chunk)]
        dataset = replace(dataset, images=torch.cat(parts))
    if channels is not None and dataset.images.shape[1] != channels:
        parts = [to_channels(part, channels) for part in dataset.images.split(chunk)]
        dataset = replace(dataset, images=torch.cat(parts))
    return dataset


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
