"""A dataset that has been found and read, of which splits can be asked: drawn, or decoded from the user's folder."""

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from fer_fast.data.cache import GOOD, NO_FACE, UNREADABLE, Store, store
from fer_fast.data.dataset import SPLITS, VALIDATION_FRACTION, FaceDataset, Images, resize_dataset
from fer_fast.data.files import shown
from fer_fast.data.listing import FaceChoice, Listing, Part
from fer_fast.data.near import duplicates_across
from fer_fast.data.prepare import Preparation
from fer_fast.data.progress import watched
from fer_fast.data.splits import FOLDS, Role, absences, manifest, rows_of
from fer_fast.data.table import DatasetInfo
from fer_fast.errors import InputError


@dataclass
class Reading:
    """How the images of a dataset are read.

    Args:
        image_size: side in pixels at which images are kept; null takes the dataset's own.
        channels: 1 (gray) or 3 (RGB) channels that are kept; null takes the dataset's own.
        faces: whole takes pictures as they are; align finds the largest face and levels its eyes; box cuts the box that
            the dataset gives; haar is align by Haar cascades, the variant-loss paper's own; null what the copy needs.
        no_face: whether the central square of a picture without a face or box is kept (whole), or nothing (skip).
        unreadable: whether a picture that cannot be read is an error or left out (skip).
        duplicates: keep, or drop the images to train on and select by that are also, pixel for pixel or nearly, in the
            test split.
        folds: how many folds data is cut into by subject, 3 or more.
        fold: 1 to `folds`, the one that is tested on; null is the first.
        validation: what is cut from the training images where there is no validation part: a share below 1, or so
            many images a class.
        order: the order of class numbers, for a copy that does not tell it.
    """

    image_size: int | None = None
    channels: int | None = None
    faces: FaceChoice | None = None
    no_face: Literal["whole", "skip"] = "whole"
    unreadable: Literal["error", "skip"] = "error"
    duplicates: Literal["keep", "drop"] = "keep"
    folds: int = FOLDS
    fold: int | None = None
    validation: float = VALIDATION_FRACTION
    order: str | None = None

    def __post_init__(self) -> None:
        if self.channels not in (None, 1, 3):
            raise InputError(f"channels is {self.channels!r}; allowed: 1 or 3")
        if self.image_size is not None and not (isinstance(self.image_size, int) and 8 <= self.image_size <= 4096):
            raise InputError(f"image_size is {self.image_size!r}; allowed: 8 to 4096")
        if self.folds < 3:
            raise InputError(f"folds is {self.folds}; allowed: 3 or more, to test, select and train on")
        if not (0 < self.validation < 1 or (self.validation >= 1 and self.validation % 1 == 0)):
            allowed = "a share of the training images below 1, or so many images a class"
            raise InputError(f"validation is {self.validation:g}; allowed: {allowed}")


@dataclass
class Wanted(Reading):
    """How the images of one dataset are wanted.

    Args:
        seed: decides what is cut, and everything about generated faces.
        options: keywords of the dataset's own reader, for instance `labels` of FER+.
        role: "training" keeps no test split back, as another dataset is reported on; "report" is that other one: its
            test split is the official one, or else everything.
    """

    seed: int = 0
    options: Mapping[str, Any] | None = None
    role: Role = "both"


FOLDING = ("folds", "fold")
# What is wanted of pictures on disk.
OF_COPIES = ("faces", "no_face", "unreadable", "duplicates", *FOLDING, "validation", "order")


class Drawn:
    """A dataset that the package draws.

    Attributes:
        notes: what is known of it as a whole: nothing.
        folds: None; it is not cut.

    Raises:
        InputError: something is wanted that can be had of pictures on disk alone.
    """

    notes: tuple[str, ...] = ()
    folds: None = None

    def __init__(self, info: DatasetInfo, wanted: Wanted):
        for key in OF_COPIES:
            if getattr(wanted, key) != getattr(Wanted, key):
                raise InputError(f"{info.name} is drawn, so {key} does nothing; leave {key} out")
        self.info, self.wanted = info, wanted
        self._options = _options(info.name, info.draw, wanted)

    def duplicated(self, split: str) -> int:
        """How many images of a split are also in the test split: each is drawn anew."""
        return 0

    def split(self, split: str) -> FaceDataset:
        """One split."""
        size, channels = self.wanted.image_size, self.wanted.channels
        chosen = {
            key: value.get(split) if isinstance(value, dict) and value.keys() == set(SPLITS) else value
            for key, value in self._options.items()
        }
        drawn = self.info.draw(split=split, seed=self.wanted.seed, image_size=size, channels=channels, **chosen)
        return resize_dataset(drawn, size, channels)


class OnDisk:
    """A copy in the user's folder.

    Args:
        info: the dataset.
        root: the folder.
        wanted: how its images are wanted.
        reported: the dataset whose test split is reported, where it is another one.

    Attributes:
        notes: what is known of the copy as a whole, a line each.
        folds: fold -> subjects and images a class, where it is cut by subject.

    Raises:
        InputError: the folder does not hold this dataset, or cannot be told what is in it.
    """

    def __init__(self, info: DatasetInfo, root: Path, wanted: Wanted, reported: "Drawn | OnDisk | None" = None):
        self.info, self.root, self.wanted = info, root, wanted
        listing = read_copy(info, root, wanted)
        if listing.faults:
            more = (
                f" (and {len(listing.faults) - 1} more; see `fer-fast data check`)" if len(listing.faults) > 1 else ""
            )
            raise InputError(listing.faults[0] + more)
        listing.compare(info.published)
        self.listing: Listing = listing
        self.preparation = preparation(info, listing, wanted)
        self.reported = reported or self
        self.notes = (*listing.notes, *listing.problems)
        self.folds = manifest(listing, wanted.folds) if wanted.role == "both" else None
        self._stores: dict[str, Store] = {}
        for line in self.notes:
            warnings.warn(f"{info.name} in {shown(root)}: {line}", stacklevel=3)

    def split(self, split: str) -> FaceDataset:
        """One split; its pictures are decoded into the cache where they are not there yet.

        Raises:
            InputError: no such split, a picture that cannot be read, or no image left.
        """
        wanted = self.wanted
        name, rows = self._rows(split)
        part, kept = self.listing.parts[name], self._store(name)
        rows, notes = self._readable(name, rows)
        # Nothing says that two datasets share no picture, and what is reported must not select the model.
        if split != "test" and (wanted.duplicates == "drop" or (split == "val" and self.reported is not self)):
            if (again := self._in_test(name, rows)).any():
                notes += (f"{again.sum()} images that are also in the test split are left out",)
            rows = rows[~again]
        if len(rows) == 0:
            why = "; ".join((f"{shown(self.root)}: no image of {self.info.name} is left for {split}", *notes))
            raise InputError(why)
        notes += absences(self.listing, part.labels[rows], split, wanted.fold, wanted.folds, wanted.role)
        chosen = torch.from_numpy(rows)
        return FaceDataset(
            images=Images(kept.pixels, kept.marks, chosen, kept.file),
            labels=torch.from_numpy(part.labels[rows]),
            classes=self.listing.classes,
            split=split,
            subjects=_numbered(part.subjects, rows),
            names=tuple(part.names[row] for row in rows.tolist()),
            groups=_numbered(part.groups, rows),
            votes=None if part.votes is None else torch.from_numpy(part.votes[rows]),
            notes=notes,
        )

    def _store(self, name: str) -> Store:
        if name not in self._stores:
            self._stores[name] = decoded(self.info, self.root, name, self.listing.parts[name], self.preparation)
        return self._stores[name]

    def _rows(self, split: str) -> tuple[str, np.ndarray]:
        """The part a split is taken from, and its rows."""
        wanted = self.wanted
        return rows_of(
            self.listing,
            split,
            seed=wanted.seed,
            fold=wanted.fold,
            name=self.info.name,
            folds=wanted.folds,
            validation=wanted.validation,
            role=wanted.role,
        )

    def duplicated(self, split: str) -> int:
        """How many images of a split are also, pixel for pixel or nearly, in the test split."""
        return int(self._in_test(*self._rows(split)).sum())

    def _in_test(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Which of these rows of a part are, pixel for pixel or nearly, in the test split: bool (len(rows),)."""
        if isinstance(self.reported, Drawn):
            return np.zeros(len(rows), bool)
        tested, test_rows = self.reported._rows("test")
        return duplicates_across(_only(self._store(name), rows), _only(self.reported._store(tested), test_rows))[rows]

    def _readable(self, name: str, rows: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """The rows that are used, and a line for every kind that is not, or not as it should be."""
        kept, names = self._store(name), self.listing.parts[name].names
        states = kept.states.numpy()[rows]
        notes = []
        if unreadable := rows[states == UNREADABLE].tolist():
            first = f"{names[unreadable[0]]}: {kept.faults[unreadable[0]]}"
            if self.wanted.unreadable == "error":
                raise InputError(
                    f"{shown(self.root)}: {len(kept.faults)} of {len(names)} {name} images cannot be read, the first: "
                    f"{first}; --data.unreadable skip leaves them out"
                )
            notes.append(f"{len(unreadable)} images that cannot be read are left out, the first: {first}")
        if without := int((states == NO_FACE).sum()):
            done = "left out" if self.preparation.no_face == "skip" else "kept: their central square"
            notes.append(f"{without} images {self.preparation.without} are {done}")
        good = states == GOOD
        return rows[good if self.preparation.no_face == "skip" else good | (states == NO_FACE)], tuple(notes)


def _only(store: Store, rows: np.ndarray) -> Store:
    """A store in which other pictures than these have no mark, as if they could not be read."""
    marks = torch.zeros_like(store.marks)
    marks[rows] = store.marks[rows]
    return store._replace(marks=marks)


def read_copy(info: DatasetInfo, root: Path, wanted: Wanted) -> Listing:
    """What `root` holds of a dataset.

    Raises:
        InputError: nothing of it, an option it does not have or need, or a copy that cannot be told what is in it.
    """
    if not root.exists():
        option = "--test-root" if wanted.role == "report" else "--root"
        moved = "" if root.is_absolute() else f" in {shown(Path.cwd())}; {option} DIR says where it is"
        raise InputError(f"{shown(root)} does not exist{moved}")
    options = _options(info.name, info.read, wanted)
    listing = info.read(root, **options)
    if listing is None:
        raise InputError(
            f"{shown(root)} holds no {info.name}; see `fer-fast data about {info.name}` for the folders it can be in"
        )
    if options.get("order") is not None and not _asks_for_order(info, root, options):
        raise InputError(f"{shown(root)} ({listing.layout}) tells what its classes are; leave order out")
    return listing


def _asks_for_order(info: DatasetInfo, root: Path, options: dict[str, Any]) -> bool:
    """Whether the reader looks at the order it is given: then it refuses one that there is not."""
    try:
        return info.read(root, **{**options, "order": "\0"}) is None
    except InputError:
        return True


def preparation(info: DatasetInfo, listing: Listing, wanted: Wanted) -> Preparation:
    """What is done to the pictures of a copy: as wanted, else as the dataset has it.

    Raises:
        InputError: boxes are to be cut and the copy gives none.
    """
    if wanted.faces == "box" and all(part.boxes is None for part in listing.parts.values()):
        raise InputError(f"{info.name} ({listing.layout}) gives no box of a face; faces can be whole, align or haar")
    return Preparation(
        wanted.image_size or info.size,
        wanted.channels or info.channels,
        wanted.faces or listing.faces,
        wanted.no_face,
    )


def decoded(info: DatasetInfo, root: Path, name: str, part: Part, how: Preparation) -> Store:
    """The pictures of the part `name`, from the cache or into it, with a bar where somebody watches."""
    about = {"dataset": info.name, "part": name, "root": shown(root), "licence": info.licence}
    with watched(f"decoding {info.name} {name}") as progress:
        return store(part, how, about, progress)


def _numbered(words: tuple[str, ...] | None, rows: np.ndarray) -> torch.Tensor | None:
    """Words of all rows -> their numbers in sorted order, of these rows."""
    if words is None:
        return None
    return torch.from_numpy(np.unique(np.array(words), return_inverse=True)[1].astype(np.int64)[rows])


def _options(name: str, reader: Any, wanted: Wanted) -> dict[str, Any]:
    """The keywords of a reader out of what is wanted.

    Raises:
        InputError: an option the dataset does not have, or something else where it takes true or false.
    """
    parameters = inspect.signature(reader).parameters
    own = [key for key in parameters if key not in ("root", "split", "seed", "image_size", "channels")]
    given = dict(wanted.options or {})
    if wanted.order is not None:
        given["order"] = wanted.order
    unknown = sorted(given.keys() - set(own))
    if unknown:
        raise InputError(f"{name} has no option {unknown[0]!r}; allowed: {', '.join(own) or 'none'}")
    for key, value in given.items():
        if parameters[key].annotation is bool and not isinstance(value, bool):
            raise InputError(f"{name}: {key} is {value!r}; allowed: true or false")
    return given
