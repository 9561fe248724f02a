"""The face of a picture by Haar cascades: the protocol of the variant-loss paper."""

import math
import threading
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from fer_fast.data.finder import Face

# The frontal cascades in the order they are asked: file and neighbours needed.
_FACE_CASCADES = (("haarcascade_frontalface_default.xml", 5), ("haarcascade_frontalface_alt2.xml", 3))
_EYE_CASCADES = ("haarcascade_eye.xml", "haarcascade_eye_tree_eyeglasses.xml")
# In the box of a frontal cascade; medians over press photographs.
_USUAL_EYES = np.array([[0.31, 0.395], [0.68, 0.395]])

_DETECTION_SIDE = (320, 640)  # a photo's longer side is brought into this range before the search
_SMALLEST_FACE = 1 / 8  # of the longer side
_MARGIN = 0.25  # of the longer side, added around: a cascade misses a face that touches the edge
_EYE_PATCH = 200  # a face box is brought to this side for the search for eyes
_LOWEST_EYE = 0.65  # of the box: what lies below is not searched
_STEEPEST = 30.0  # degrees between the eyes; the frontal cascades find no face tilted further

_own = threading.local()  # a cascade is not safe for two threads at once


def haar_face(image: np.ndarray) -> Face | None:
    """The largest face of a picture, the more central one among equals; None where none is found.

    Cascades propose faces. Eyes found inside one settle it; without eyes it counts if two cascades agree on it, and the
    eyes are taken to be where they usually are. Safe from several threads at once. Same picture, same answer.

    Args:
        image: uint8 (height, width), or (height, width, 3) RGB.
    """
    gray, scale, margin = _search_image(image)
    boxes = []
    for file, neighbours in _FACE_CASCADES:
        box = _largest_face(gray, file, neighbours)
        if box is None:
            continue
        eyes = _find_eyes(gray, box)
        if eyes is not None:
            return _face((box - [margin, margin, 0]) / scale, eyes)
        boxes.append(box)
    # Without eyes one cascade alone is mostly wrong, two that agree mostly right.
    if len(boxes) == len(_FACE_CASCADES) and _agree(*boxes):
        return _face((boxes[0] - [margin, margin, 0]) / scale, _USUAL_EYES)
    return None


def _face(box: np.ndarray, eyes: np.ndarray) -> Face:
    """The face of a box (left, top, side in the picture) with eyes at these shares of it."""
    left, top, side = box.tolist()
    return Face((left, top, side, side), box[:2] + eyes * side, 1.0)


def _cascade(file: str) -> cv2.CascadeClassifier:
    """This thread's own."""
    cascades = _own.__dict__.setdefault("cascades", {})
    if file not in cascades:
        cascades[file] = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / file))
        if cascades[file].empty():
            raise RuntimeError(f"OpenCV {cv2.__version__} came without {file}")
    return cascades[file]


def _search_image(image: np.ndarray) -> tuple[np.ndarray, float, int]:
    """The gray image the cascades look at, its scale to the photo, and the margin around it in its own pixels."""
    height, width = image.shape[:2]
    longest = max(height, width)
    side = min(max(longest, _DETECTION_SIDE[0]), _DETECTION_SIDE[1])
    scale = side / longest
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    margin = round(side * _MARGIN)
    return cv2.copyMakeBorder(gray, *[margin] * 4, cv2.BORDER_REPLICATE), scale, margin


def _largest_face(gray: np.ndarray, file: str, neighbours: int) -> np.ndarray | None:
    """Left, top and side of the largest face, the more central one among equals."""
    height, width = gray.shape
    smallest = max(24, round(max(height, width) / (1 + 2 * _MARGIN) * _SMALLEST_FACE))
    faces = _cascade(file).detectMultiScale(gray, 1.1, neighbours, minSize=(smallest, smallest))

    def rank(face: np.ndarray) -> tuple[float, ...]:
        left, top, side = face.tolist()
        away = math.hypot(left + side / 2 - width / 2, top + side / 2 - height / 2)
        return side - away / 2, -left, -top  # the corners settle what is left: the order of detections is not promised

    return max((face[:3] for face in faces), key=rank, default=None)


def _agree(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two boxes (left, top, side) mean the same face."""
    apart = np.abs(one[:2] + one[2] / 2 - other[:2] - other[2] / 2).max()
    return bool(apart < one[2] / 4 and 2 / 3 < other[2] / one[2] < 3 / 2)


def _find_eyes(gray: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """Left and right eye, (2, 2) as shares of the face box, x first; None where no plausible pair is found."""
    left, top, side = box.tolist()
    patch = cv2.resize(gray[top : top + side, left : left + side], (_EYE_PATCH, _EYE_PATCH))
    patch = cv2.equalizeHist(patch)[: round(_EYE_PATCH * _LOWEST_EYE)]
    smallest, largest = (_EYE_PATCH // 8,) * 2, (_EYE_PATCH // 2,) * 2
    for file in _EYE_CASCADES:
        found = _cascade(file).detectMultiScale(patch, 1.05, 4, minSize=smallest, maxSize=largest)
        centers = sorted(((x + w / 2) / _EYE_PATCH, (y + h / 2) / _EYE_PATCH) for x, y, w, h in found)
        pairs = [np.array(pair) for pair in combinations(centers, 2) if _plausible(*pair)]
        if pairs:
            return min(pairs, key=lambda pair: float(np.abs(pair - _USUAL_EYES).sum()))
    return None


def _plausible(left: tuple[float, float], right: tuple[float, float]) -> bool:
    """Whether two points of a face box can be a pair of eyes: below the brow, a fitting way apart, not too steep."""
    across, down = right[0] - left[0], right[1] - left[1]
    below_brow = min(left[1], right[1]) > 0.2
    return below_brow and 0.28 < across < 0.55 and abs(math.degrees(math.atan2(down, across))) < _STEEPEST
