"""From a picture to the pixels that are kept: the face found or given, cut, at one size, in the channels wanted."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np

from fer_fast.data.listing import FaceChoice


@dataclass(frozen=True)
class Preparation:
    """What is done to every picture; training, `predict` and the cache's key read the same one.

    Args:
        size: side in pixels.
        channels: 1 (gray) or 3 (RGB).
        faces: whole takes the picture as it is; align finds the largest face and levels its eyes; box cuts the box that
            the dataset gives, as it is; haar is align by Haar cascades, the variant-loss paper's own.
        no_face: what becomes of a picture without a face (without a box): whole keeps all of it, skip leaves it out.
    """

    size: int
    channels: int
    faces: FaceChoice = "whole"
    no_face: Literal["whole", "skip"] = "whole"


class Prepared(NamedTuple):
    """Pixels uint8 (size, size, channels), and whether the face was found (True where none was looked for)."""

    pixels: np.ndarray
    found: bool


def prepare(image: np.ndarray, box: np.ndarray | None, how: Preparation) -> Prepared:
    """One picture as `Pictures.read` gives it -> what is kept of it."""
    return Prepared(to_size(image, how.size)[..., None] if image.ndim == 2 else to_size(image, how.size), True)


def to_size(image: np.ndarray, size: int) -> np.ndarray:
    """(height, width) or (height, width, 3) -> the same at `size`, by areas where it shrinks, else bilinear."""
    if image.shape[:2] == (size, size):
        return image
    shrinks = max(image.shape[:2]) > size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
