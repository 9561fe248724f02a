"""The one container of labelled face images, in memory or mapped from a file."""

import hashlib
import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fer_fast.errors import InputError

SPLITS = ("train", "val", "test")
VALIDATION_FRACTION = 0.125  # of the training images; FER2013's own ratio is 3 589 / 28 709

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in OpenCV and torchvision


class Images:
    """Some of the images of a file that is larger than memory: what a `FaceDataset` needs of a tensor, and no more.

    Args:
        stored: uint8 (N, height, width, channels), mapped from the file; a read brings in the images it touches.
        marks: uint8 (N, 16), a hash of each image's pixels.
        rows: int64 (n,), which of them, in this order.
        file: the map behind `stored`, to tell the kernel what will be read.
    """

    dtype, ndim = torch.uint8, 4

    def __init__(self, stored: Tensor, marks: Tensor, rows: Tensor, file: mmap.mmap | None = None):
        self.stored, self.marks, self.rows, self.file = stored, marks, rows, file

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        """(n, channels, height, width)."""
        _, height, width, channels = self.stored.shape
        return torch.Size((len(self.rows), channels, height, width))

    def __getitem__(self, which: int | slice | Tensor) -> Tensor:
        """uint8 (..., channels, height, width) in memory; channels lie innermost there, as networks want them."""
        rows = self.rows[which]
        return self.stored[rows].movedim(-1, -3) if rows.ndim == 0 else self._gather(rows)

    def gather(self, which: Tensor, out: Tensor | None = None) -> Tensor:
        """The same for indices (b,), into `out`, uint8 (b, height, width, channels), where it is given."""
        return self._gather(self.rows[which], out)

    def _gather(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        # Not by torch: its gather took 5 to 30 times as long, byte by byte or in threads that wait for each other.
        # Clipped, for otherwise numpy fills a copy of `out` first; the rows are in range, or indexing them had failed.
        into = torch.empty(len(rows), *self.stored.shape[1:], dtype=torch.uint8) if out is None else out
        self._announce(rows)
        np.take(self.stored.numpy(), rows.numpy(), axis=0, out=into.numpy(), mode="clip")
        return into.movedim(-1, -3)

    def _announce(self, rows: Tensor) -> None:
        """Have the kernel read these images at once: page by page took 15 times as long where the file outgrows memory
        (measured: 20 000 images of 224×224×3 in 1 GB, 2 200 to 3 800 a second against 150 to 270)."""
        size, page = self.stored[0].numel(), mmap.PAGESIZE
        if self.file is None or not reads_by_image(size):
            return
        for row in rows.tolist():
            start = row * size // page * page
            self.file.madvise(mmap.MADV_WILLNEED, start, (row + 1) * size - start)

    def split(self, size: int) -> Iterator[Tensor]:
        """The images, `size` at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def take(self, rows: Tensor) -> "Images":
        """The images of these numbers, in that order; nothing is read."""
        return Images(self.stored, self.marks, self.rows[rows], self.file)


def reads_by_image(size: int) -> bool:
    """Whether images of so many bytes are worth a read each: of small ones, what lies around them comes as well."""
    return size >= 4 * mmap.PAGESIZE and hasattr(mmap, "MADV_WILLNEED")


@dataclass(frozen=True)
class FaceDataset:
    """Labelled face images of one split.

    Args:
        images: uint8 (n, channels, height, width) with 1 (gray) or 3 (RGB) channels, on the CPU: a tensor, or `Images`.
        labels: int64 (n,), index into `classes`.
        classes: names of the classes; every one of them is counted, also where no image has it.
        split: "train", "val" or "test".
        subjects: int64 (n,) identity of each image, where known.
        names: file or row of each image, for error messages and the report.
        groups: int64 (n,), the same for images that must not be cut apart (a sequence, a photograph), where known.
        votes: float32 (n, C) that sum to one: soft labels, from which training draws those of an epoch.
        notes: what to know of these images, one line each; the report shows them.

    Raises:
        InputError: no image, a wrong shape or dtype, a label outside `classes`, columns of unequal length.
    """

    images: Tensor | Images
    labels: Tensor
    classes: tuple[str, ...]
    split: str
    subjects: Tensor | None = None
    names: tuple[str, ...] | None = None
    groups: Tensor | None = None
    votes: Tensor | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_images(self.images)
        count = len(self.images)
        if count == 0:
            raise InputError(f"the {self.split} data set has no image; at least one is needed")
        if self.split not in SPLITS:
            raise InputError(f"split is {self.split!r}; allowed: {', '.join(SPLITS)}")
        for field, column in (("labels", self.labels), ("subjects", self.subjects), ("groups", self.groups)):
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
            images=self.images.take(indices) if isinstance(self.images, Images) else self.images[indices],
            split=split or self.split,
            names=None if self.names is None else tuple(self.names[i] for i in indices.tolist()),
            **self.columns(lambda column: column[indices]),
        )

    def columns(self, change: Callable[[Tensor], Tensor]) -> dict[str, Tensor | None]:
        """Name -> changed column of numbers, for every one that has an entry for each image."""
        columns = {name: getattr(self, name) for name in ("labels", "subjects", "groups", "votes")}
        return {name: None if column is None else change(column) for name, column in columns.items()}

    def digest(self) -> str:
        """SHA-256 of images, shape, labels, votes and class names, in hexadecimal: the same data, the same digest."""
        state = hashlib.sha256(repr((tuple(self.images.shape), self.classes)).encode())
        pixels = self.images.marks[self.images.rows] if isinstance(self.images, Images) else self.images.contiguous()
        state.update(pixels.numpy())
        state.update(self.labels.contiguous().numpy())
        if self.votes is not None:
            state.update(self.votes.contiguous().numpy())
        return state.hexdigest()


def check_images(images: Tensor | Images) -> None:
    """Raises InputError unless `images` is uint8 (n, 1 or 3, height, width) with at least one pixel each."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        raise InputError(f"images must be uint8 of shape (n, 1 or 3, height, width), got {_describe(images)}")


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Gray (n, 1, h, w) <-> RGB (n, 3, h, w) of any dtype: gray is repeated (a view), RGB becomes its BT.601 luma."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    # Plain numbers as weights: a tensor of them would have to be copied to the device, which waits for it.
    red, green, blue = (images[:, place : place + 1] * weight for place, weight in enumerate(LUMA))
    luma = red + green + blue
    return luma if images.dtype.is_floating_point else luma.round().to(images.dtype)


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
