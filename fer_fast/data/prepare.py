"""From a picture to the pixels that are kept: the face found or given, cut, at one size, in the channels wanted."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import cv2
import numpy as np

from fer_fast.data.align import Box, central_square, cut_box, cut_upright
from fer_fast.data.finder import Face, find_faces, largest_face, model_file
from fer_fast.data.haar import haar_face
from fer_fast.data.listing import FaceChoice

_FINDERS = {"align": largest_face, "haar": haar_face}
_SPARE = 4  # a face is cut at no more than so many times the size asked for
_LEAST_INSIDE = 0.25  # of a box: one that lies further outside its picture is a mistake


@dataclass(frozen=True)
class Preparation:
    """What is done to every picture; training, `predict` and the cache's key read the same one.

    Args:
        size: side in pixels.
        channels: 1 (gray) or 3 (RGB).
        faces: whole takes the picture as it is; align finds the largest face and levels its eyes; box cuts the box that
            the dataset gives, as it is; haar is align by Haar cascades, the variant-loss paper's own. What is not
            square is squeezed.
        no_face: what becomes of a picture without a face (without a box): whole keeps its central square, skip leaves
            it out.

    Raises:
        InputError: faces are to be found and the finder's model is not installed.
    """

    size: int
    channels: int
    faces: FaceChoice = "whole"
    no_face: Literal["whole", "skip"] = "whole"

    @property
    def without(self) -> str:
        """What a picture lacks that is not `Prepared.found`, in words."""
        return "without a box that can be used" if self.faces == "box" else "in which no face was found"

    def whole(self) -> "Preparation":
        """The same for pictures that are faces already."""
        return replace(self, faces="whole")

    def __post_init__(self) -> None:
        if self.faces == "align":  # said once here, and not of every picture as if it were broken
            model_file()


class Prepared(NamedTuple):
    """What is kept of a picture.

    Attributes:
        pixels: uint8 (size, size, channels).
        found: whether there was a face or a box; True where none was looked for.
        box: left, top, width, height in the picture: the face as found, which may reach beyond it, or what was taken.
    """

    pixels: np.ndarray
    found: bool
    box: Box


def prepare(image: np.ndarray, box: np.ndarray | None, how: Preparation) -> Prepared:
    """One picture as `Pictures.read` gives it -> what is kept of it.

    Args:
        image: uint8 (height, width), or (height, width, 3) RGB.
        box: (4,) left, top, width, height where the dataset gives them. One with parts that are no numbers or negative,
            or with less than a quarter of it in the picture, counts as none.
        how: the preparation.
    """
    taken: Box | None = None
    if how.faces == "whole":
        taken = (0, 0, *image.shape[1::-1])
    elif how.faces == "box":
        taken = _in_pixels(box, image)
    elif (face := _FINDERS[how.faces](image)) is not None:
        return _upright(image, face, how)
    found = taken is not None
    taken = taken or central_square(image)
    return Prepared(_finish(cut_box(image, taken), how), found, taken)


def prepare_each(image: np.ndarray, how: Preparation) -> list[Prepared]:
    """Every face of a picture, the largest first, of which Haar cascades find one; where there is none, its square."""
    if how.faces != "align":
        return [prepare(image, None, how)]
    faces = [_upright(image, face, how) for face in find_faces(image)]
    return faces or [prepare(image, None, replace(how, faces="box"))]


def to_size(image: np.ndarray, size: int) -> np.ndarray:
    """(height, width) or (height, width, 3) -> the same at `size`, by areas where a side shrinks, else bilinear."""
    height, width = image.shape[:2]
    if max(height, width) > size:
        image = cv2.resize(image, (min(width, size), min(height, size)), interpolation=cv2.INTER_AREA)
    if min(height, width) < size:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    return image


def _upright(image: np.ndarray, face: Face, how: Preparation) -> Prepared:
    crop = cut_upright(image, face.landmarks, limit=_SPARE * how.size)
    return Prepared(_finish(crop, how), True, tuple(map(round, face.box)))


def _finish(image: np.ndarray, how: Preparation) -> np.ndarray:
    image = to_size(image, how.size)
    if image.ndim == 3 and how.channels == 1:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    elif image.ndim == 2 and how.channels == 3:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    # A box of just that size is still a view into the whole picture.
    return np.ascontiguousarray(image).reshape(how.size, how.size, how.channels)


def _in_pixels(box: np.ndarray | None, image: np.ndarray) -> Box | None:
    """A dataset's box; None where it is none."""
    if box is None or not np.isfinite(box).all() or min(box) < 0 or min(box[2:]) < 1:
        return None
    left, top, width, height = (round(float(part)) for part in box)
    inside = min(width, max(0, image.shape[1] - left)) * min(height, max(0, image.shape[0] - top))
    return (left, top, width, height) if inside >= _LEAST_INSIDE * width * height else None
