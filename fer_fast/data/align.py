"""Cuts out of a picture: a face turned upright with its eyes in their place, a box, the central square."""

import math

import cv2
import numpy as np

Box = tuple[int, int, int, int]

# Where FER2013's faces have their eyes, as shares of the image side (medians over its public test images): the crop is
# cut so that eyes land there, and so fills the frame from brow to chin.
EYE_LINE = 0.38
EYE_DISTANCE = 0.375

_NARROWEST = 0.7  # eyes of a face that looks at the camera are at least this apart, in distances from eyes to mouth


def cut_upright(image: np.ndarray, landmarks: np.ndarray, limit: float = math.inf) -> np.ndarray:
    """The square that puts the eyes level and in their place; what lies outside the picture repeats its edge.

    Args:
        image: uint8 (height, width) or (height, width, 3).
        landmarks: (2 or 5, 2) in pixels of the picture, as in `Face`; the mouth gives a face in profile its size.
        limit: side that is enough; a larger face is shrunk to it.

    Returns:
        uint8 (side, side) or (side, side, 3); at the resolution of the picture below `limit`.
    """
    eyes = landmarks[:2]
    across, down = eyes[1] - eyes[0]
    apart = math.hypot(across, down)
    if len(landmarks) == 5:
        apart = max(apart, _NARROWEST * math.hypot(*(landmarks[3:].mean(0) - eyes.mean(0))))
    tilt, size = math.atan2(down, across), apart / EYE_DISTANCE
    cos, sin = math.cos(tilt), math.sin(tilt)
    turn = np.array([[cos, -sin], [sin, cos]])
    center = eyes.mean(0) + turn @ [0, (0.5 - EYE_LINE) * size]

    # The turned square lies within this one of the picture; OpenCV's warp takes none wider than 32 767 pixels.
    reach = math.ceil(size * math.sqrt(0.5)) + 1
    low = np.clip(np.floor(center).astype(int) - reach, 0, np.array(image.shape[1::-1]) - 1)
    high = np.maximum(np.floor(center).astype(int) + reach + 1, low + 1)
    region, center = image[low[1] : high[1], low[0] : high[0]], center - low
    if size > limit:
        extent = np.array(region.shape[1::-1])
        region = cv2.resize(region, np.ceil(extent * limit / size).astype(int).tolist(), interpolation=cv2.INTER_AREA)
        size, center = limit, (center + 0.5) * region.shape[1::-1] / extent - 0.5
    side = max(1, round(size))
    matrix = np.column_stack([turn, center - turn @ np.full(2, (side - 1) / 2)])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(region, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def cut_box(image: np.ndarray, box: Box) -> np.ndarray:
    """The pixels of a box that has some of the picture in it; what lies outside the picture repeats its edge."""
    height, width = image.shape[:2]
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    inside = image[max(top, 0) : bottom, max(left, 0) : right]
    beyond = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    return cv2.copyMakeBorder(inside, *beyond, cv2.BORDER_REPLICATE) if any(beyond) else inside


def central_square(image: np.ndarray) -> Box:
    """The box of the largest square in the middle of a picture."""
    height, width = image.shape[:2]
    side = min(height, width)
    return (width - side) // 2, (height - side) // 2, side, side
