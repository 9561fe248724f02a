"""The decoded pictures of a copy side by side: which of them are the same, nearly the same, or flat."""

from collections.abc import Mapping
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np

from fer_fast.data.cache import Store
from fer_fast.data.listing import Listing, Part
from fer_fast.data.near import gather, near_pairs
from fer_fast.data.splits import folds_of


class Overlap(NamedTuple):
    """Pictures of one part that are also in an earlier one, pixel for pixel.

    Attributes:
        part, earlier: names of the parts.
        images: int64 (k,), those of `part`.
        otherwise: bool (k,), whether a copy in `earlier` has another label.
    """

    part: str
    earlier: str
    images: np.ndarray
    otherwise: np.ndarray


class Album:
    """All pictures of a copy that can be read, numbered through its parts.

    Args:
        listing: of the copy.
        stores: part -> its decoded pictures.

    Attributes:
        labels: int64 (n,).
        content: int64 (n,), the same number for the same pixels.
    """

    def __init__(self, listing: Listing, stores: Mapping[str, Store]):
        self.listing, self.parts, self._stores = listing, tuple(stores), tuple(stores.values())
        self._images = gather(self._stores)
        self.content = self._images.content
        columns = [listing.parts[name].labels for name in self.parts]
        starts = np.cumsum([0, *map(len, columns)])
        self.labels = np.concatenate(columns)[starts[self._images.store] + self._images.row]

    @property
    def folded(self) -> bool:
        """Whether the data is cut by subject."""
        part = self.listing.parts.get("all")
        return part is not None and part.subjects is not None

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, image: int) -> str:
        """File or row."""
        return self._part(image).names[self._images.row[image]]

    def label(self, image: int) -> str:
        """Name of the class."""
        return self.listing.classes[self.labels[image]]

    def pixels(self, image: int) -> np.ndarray:
        """uint8 (size, size, channels)."""
        return self._stores[self._images.store[image]].pixels[self._images.row[image]].numpy()

    def of(self, part: str, label: int) -> np.ndarray:
        """The pictures of a class in a part."""
        return np.flatnonzero((self._images.store == self.parts.index(part)) & (self.labels == label))

    def same_as(self, image: int) -> np.ndarray:
        """All pictures with the same pixels, it among them."""
        return np.flatnonzero(self.content == self.content[image])

    def apart(self, image: int) -> np.ndarray:
        """Of the pictures with the same pixels the first of every label."""
        group = self.same_as(image)
        return group[np.unique(self.labels[group], return_index=True)[1]]

    @cached_property
    def repeated(self) -> np.ndarray:
        """The first picture of each group with the same pixels."""
        return np.sort(self._first[np.bincount(self.content) > 1])

    @cached_property
    def conflicting(self) -> np.ndarray:
        """The first picture of each group with the same pixels and more than one label."""
        low, high = self._range(self.labels)
        return np.sort(self._first[low < high])

    @cached_property
    def in_two_folds(self) -> np.ndarray | None:
        """The first picture of each group that lies in two folds; None where the data is not cut by subject."""
        if not self.folded:
            return None
        low, high = self._range(self._places)
        return np.sort(self._first[low < high])

    @cached_property
    def overlaps(self) -> list[Overlap]:
        """What each part has in common with each earlier one."""
        found = (self._overlap(earlier, later) for earlier, later in combinations(range(len(self.parts)), 2))
        return [overlap for overlap in found if len(overlap.images)]

    @cached_property
    def near(self) -> np.ndarray:
        """Pairs that are nearly the same, int64 (m, 2), without those of one subject or one group, which look alike."""
        pairs = near_pairs(self._images, self._stores)
        strangers = [self._kin(one).isdisjoint(self._kin(other)) for one, other in pairs.tolist()]
        return pairs[np.array(strangers, bool)]

    @cached_property
    def flat(self) -> np.ndarray:
        """Pictures of one colour."""
        dull = np.flatnonzero(self._images.hashes == 0).tolist()  # nothing is brighter than its neighbour
        return np.array([image for image in dull if _is_flat(self.pixels(image))], np.int64)

    @property
    def across(self) -> np.ndarray:
        """bool (m,): which pairs of `near` lie in two parts, or folds."""
        return self._places[self.near[:, 0]] != self._places[self.near[:, 1]]

    @property
    def differing(self) -> np.ndarray:
        """bool (m,): which pairs of `near` have two labels."""
        return self.labels[self.near[:, 0]] != self.labels[self.near[:, 1]]

    @cached_property
    def _places(self) -> np.ndarray:
        """The fold of each picture where the data is cut by subject, else its part."""
        return folds_of(self.listing.parts["all"])[self._images.row] if self.folded else self._images.store

    @cached_property
    def _first(self) -> np.ndarray:
        return np.unique(self.content, return_index=True)[1]

    def _range(self, values: np.ndarray, images: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The least and the largest of `values` (n,) that each content has among `images`; (maximum, -1) for none."""
        images = np.arange(len(self)) if images is None else images
        low = np.full(len(self._first), np.iinfo(np.int64).max)
        high = np.full(len(self._first), -1)
        np.minimum.at(low, self.content[images], values[images])
        np.maximum.at(high, self.content[images], values[images])
        return low, high

    def _overlap(self, earlier: int, later: int) -> Overlap:
        low, high = self._range(self.labels, np.flatnonzero(self._images.store == earlier))
        images = np.flatnonzero((self._images.store == later) & (high[self.content] >= 0))
        content, labels = self.content[images], self.labels[images]
        otherwise = (low[content] != labels) | (high[content] != labels)
        return Overlap(self.parts[later], self.parts[earlier], images, otherwise)

    def _part(self, image: int) -> Part:
        return self.listing.parts[self.parts[self._images.store[image]]]

    def _kin(self, image: int) -> set[tuple[str, str]]:
        """Whose picture it is and what it belongs to, where known."""
        part, row = self._part(image), self._images.row[image]
        columns = (("subject", part.subjects), ("group", part.groups))
        return {(kind, column[row]) for kind, column in columns if column is not None}


def _is_flat(pixels: np.ndarray) -> bool:
    return bool((pixels == pixels[0, 0]).all())
