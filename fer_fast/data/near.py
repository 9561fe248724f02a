"""Images that are the same, or nearly: a 64-bit difference hash finds candidates, their thumbnails decide."""

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from fer_fast.data.cache import Store

DISTANCE = 3  # bits of the hash in which nearly identical images may differ
# The least correlation of two thumbnails. Of 1 340 pairs within three bits in FER2013 903 pass: crops, watermarks and
# contrasts of one photograph; the others are mostly other people in the same pose.
ALIKE = 0.95
_SIDE = 16  # of a thumbnail
_CROWD = 64  # images with the same hash that are compared with one another
_BLOCK = 1 << 16  # pairs compared at once


def difference_hash(image: np.ndarray) -> np.int64:
    """64 bits of an image uint8 (height, width, 1 or 3): which of 8×8 places are brighter than their right one."""
    small = cv2.resize(_gray(image), (9, 8), interpolation=cv2.INTER_AREA)
    return np.packbits(small[:, :-1] > small[:, 1:]).view(np.int64)[0]


def close_hashes(hashes: np.ndarray, distance: int) -> np.ndarray:
    """The pairs of `hashes` int64 (n,) that differ in at most `distance` bits, each once: int64 (m, 2).

    Hashes that differ in d bits agree in two of d + 2 bands of bits, so they lie near one another once sorted by these.
    What has the same hash as 64 images before it is paired with the first of them alone: a thousand black images make a
    thousand pairs, not a million.
    """
    order = np.argsort(hashes, kind="stable")
    first = np.searchsorted(hashes[order], hashes[order])
    crowded = np.arange(len(hashes)) - first >= _CROWD
    pairs = [np.stack([order[first[crowded]], order[crowded]], 1)]
    rows = order[~crowded]
    words = hashes[rows].view(np.uint64)
    masks = _masks(distance + 2)
    for number, mask in enumerate(masks):
        by_key = np.argsort(words & mask, kind="stable")
        keys = (words & mask)[by_key]
        at, step = np.arange(len(keys)), 1
        while len(at := at[at + step < len(keys)]):  # each with the one `step` further on, while any agree
            at = at[keys[at] == keys[at + step]]
            one, other = by_key[at], by_key[at + step]
            differing = words[one] ^ words[other]
            found = _few_bits(differing, distance)
            for earlier in masks[:number]:
                found &= (differing & earlier) != 0  # else that mask has found the pair
            pairs.append(np.stack([rows[one[found]], rows[other[found]]], 1))
            step += 1
    return np.concatenate(pairs)


def _masks(bands: int) -> list[np.uint64]:
    """Every two of so many bands of the 64 bits."""
    bits = np.uint64(1) << np.arange(64, dtype=np.uint64)
    words = [np.bitwise_or.reduce(band) for band in np.array_split(bits, bands)]
    return [one | other for one, other in combinations(words, 2)]


def _few_bits(words: np.ndarray, most: int) -> np.ndarray:
    for _ in range(most):
        words = words & (words - np.uint64(1))  # takes the lowest bit away
    return words == 0


class Gathered(NamedTuple):
    """The readable images of several stores in one table.

    Attributes:
        store, row: int64 (n,), where each lies.
        content: int64 (n,), the same number for the same pixels.
        hashes: int64 (n,).
    """

    store: np.ndarray
    row: np.ndarray
    content: np.ndarray
    hashes: np.ndarray


def gather(stores: Sequence["Store"]) -> Gathered:
    """One table of what can be read in `stores`."""
    rows = [np.flatnonzero(store.marks.numpy().any(1)) for store in stores]  # what cannot be read has no mark
    marks = np.concatenate([store.marks.numpy()[kept] for store, kept in zip(stores, rows, strict=True)])
    return Gathered(
        store=np.repeat(np.arange(len(stores)), [len(kept) for kept in rows]),
        row=np.concatenate(rows),
        content=np.unique(marks.view("V16")[:, 0], return_inverse=True)[1],
        hashes=np.concatenate([store.hashes.numpy()[kept] for store, kept in zip(stores, rows, strict=True)]),
    )


def near_pairs(images: Gathered, stores: Sequence["Store"], distance: int = DISTANCE) -> np.ndarray:
    """Pairs of images that are nearly the same and not quite: int64 (m, 2), rows of `images`, in order.

    Of images that are the same in one store only the first is looked at. Flat ones are like nothing.
    """
    one_each = np.unique(images.content * len(stores) + images.store, return_index=True)[1]
    pairs = one_each[close_hashes(images.hashes[one_each], distance)]
    pairs = np.unique(np.sort(pairs[images.content[pairs[:, 0]] != images.content[pairs[:, 1]]], 1), axis=0)
    involved, places = np.unique(pairs, return_inverse=True)
    places = places.reshape(pairs.shape)
    small = np.empty((len(involved), _SIDE * _SIDE), np.uint8)
    for at, image in enumerate(involved.tolist()):
        pixels = stores[images.store[image]].pixels[images.row[image]].numpy()
        small[at] = cv2.resize(_gray(pixels), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).ravel()
    alike = [
        (_unit(small[block[:, 0]]) * _unit(small[block[:, 1]])).sum(1) > ALIKE
        for block in np.split(places, range(_BLOCK, len(places), _BLOCK))
    ]
    return pairs[np.concatenate(alike)]


def duplicates_across(train: "Store", test: "Store", distance: int = DISTANCE) -> np.ndarray:
    """bool (n,): which images of `train` are also in `test`, pixel for pixel or nearly."""
    stores = (train, test)
    images = gather(stores)
    pairs = near_pairs(images, stores, distance)
    of_train = images.store == 0
    tested = np.zeros(len(images.content), bool)  # by content
    tested[images.content[~of_train]] = True
    for one, other in (pairs.T, pairs.T[::-1]):
        tested[images.content[one[of_train[one] & ~of_train[other]]]] = True
    mask = np.zeros(len(train.hashes), bool)
    mask[images.row[of_train & tested[images.content]]] = True
    return mask


def _gray(image: np.ndarray) -> np.ndarray:
    return image[..., 0] if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Without their mean, of length one; zeros where a row is constant."""
    centred = rows - rows.mean(1, keepdims=True, dtype=np.float32)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), np.finfo(np.float32).tiny)
