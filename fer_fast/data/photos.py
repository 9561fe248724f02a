"""From a photograph to a model's input: reading any image file, finding the face, levelling the eyes."""

import math
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from fer_fast.errors import InputError

Box = tuple[int, int, int, int]

# Where FER2013's faces have their eyes, as shares of the image side (medians over its public test images): the crop is
# cut so that eyes land there, and so fills the frame from brow to chin.
EYE_LINE = 0.38
EYE_DISTANCE = 0.375

# The frontal cascades in the order they are asked: file and neighbours needed.
_FACE_CASCADES = (("haarcascade_frontalface_default.xml", 5), ("haarcascade_frontalface_alt2.xml", 3))
_EYE_CASCADES = ("haarcascade_eye.xml", "haarcascade_eye_tree_eyeglasses.xml")
_USUAL_EYES = np.array(
    [[0.31, 0.395], [0.68, 0.395]]
)  # in the box of a frontal cascade; medians over press photographs

_DETECTION_SIDE = (320, 640)  # a photo's longer side is brought into this range before the search
_SMALLEST_FACE = 1 / 8  # of the longer side
_MARGIN = 0.25  # of the longer side, added around: a cascade misses a face that touches the edge
_EYE_PATCH = 200  # a face box is brought to this side for the search for eyes
_LOWEST_EYE = 0.65  # of the box: what lies below is not searched
_STEEPEST = 30.0  # degrees between the eyes; the frontal cascades find no face tilted further


@dataclass(frozen=True)
class Face:
    """A face cut out of a photo.

    Args:
        crop: uint8 (side, side, 3) RGB, eyes level where they were found; what lies outside the photo repeats its edge.
        box: left, top, width, height in pixels of the photo: the face as found, which may reach beyond the photo, or
            the central square.
        found: whether a face was found; otherwise the crop is the photo's central square.
        angle: degrees the eyes were tilted, clockwise; 0.0 where no eyes were found.
    """

    crop: np.ndarray
    box: Box
    found: bool
    angle: float = 0.0


def read_photo(path: str | Path) -> np.ndarray:
    """Read an image file as RGB, the way a viewer shows it.

    The orientation of the camera is applied, transparency is laid on white, 16 bits become 8, gray becomes RGB; of
    several frames the first counts.

    Args:
        path: any format Pillow reads: JPEG, PNG, WebP, TIFF, BMP, GIF, PNM, ...

    Returns:
        uint8 (height, width, 3).

    Raises:
        InputError: the file is missing, a folder, no image, cut short, or too large to be a photo; it is named.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: a folder, an image file is needed")
    try:
        with Image.open(path) as image:
            return np.array(_as_rgb(ImageOps.exif_transpose(image)))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except PermissionError:
        raise InputError(f"{path}: not readable (permission denied)") from None
    # A decoder fed broken bytes raises what it likes: OSError, ValueError, SyntaxError, struct.error, ...
    except Exception as error:
        reason = " ".join(str(error).split()).replace(f" '{path}'", "") or type(error).__name__
        raise InputError(f"{path}: not a readable image ({reason})") from error


def find_face(image: np.ndarray) -> Face:
    """Find the face of a photo and cut it out as an upright square framed like FER2013's.

    Haar cascades propose faces; the largest counts, the more central one among equals. Eyes found inside it are turned
    level and fix place and scale; without eyes the box does, if two cascades agree on it. Where no face is found the
    central square is returned, which suits images that are face crops already. Same photo, same answer. Not for use
    from several threads at once: OpenCV's cascades are not safe for that.

    Args:
        image: uint8 (height, width, 3) RGB, as `read_photo` returns it.

    Returns:
        The `Face`; its crop keeps the resolution of the photo.

    Raises:
        InputError: not such an array, or an empty one.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        given = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"image: a uint8 array of shape (height, width, 3) is needed, got {given}")
    if image.size == 0:
        raise InputError(f"image: at least one pixel is needed, got shape {image.shape}")

    gray, scale, margin = _search_image(image)
    boxes = []
    for file, neighbours in _FACE_CASCADES:
        box = _largest_face(gray, file, neighbours)
        if box is None:
            continue
        eyes = _find_eyes(gray, box)
        if eyes is not None:
            return _face(image, (box - [margin, margin, 0]) / scale, eyes)
        boxes.append(box)
    # Without eyes one cascade alone is mostly wrong, two that agree mostly right.
    if len(boxes) == len(_FACE_CASCADES) and _agree(*boxes):
        return _face(image, (boxes[0] - [margin, margin, 0]) / scale, None)

    height, width = image.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return Face(image[top : top + side, left : left + side].copy(), (left, top, side, side), False)


def _face(image: np.ndarray, box: np.ndarray, eyes: np.ndarray | None) -> Face:
    """The face of a box (left, top, side in the photo) with eyes at these shares of it, else where they usually are."""
    crop, angle = _cut(image, box[:2] + (_USUAL_EYES if eyes is None else eyes) * box[2])
    left, top, side = (round(float(value)) for value in box)
    return Face(crop, (left, top, side, side), True, angle)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed white; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit gray; convert() would clip it at 255
        return Image.fromarray((np.clip(np.asarray(image), 0, 65535) / 257).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


@cache
def _cascade(file: str) -> cv2.CascadeClassifier:
    cascade = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / file))
    if cascade.empty():
        raise RuntimeError(f"OpenCV {cv2.__version__} came without {file}")
    return cascade


def _search_image(image: np.ndarray) -> tuple[np.ndarray, float, int]:
    """The gray image the cascades look at, its scale to the photo, and the margin around it in its own pixels."""
    height, width = image.shape[:2]
    longest = max(height, width)
    side = min(max(longest, _DETECTION_SIDE[0]), _DETECTION_SIDE[1])
    scale = side / longest
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
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


def _cut(image: np.ndarray, eyes: np.ndarray) -> tuple[np.ndarray, float]:
    """Cut the square that puts the eyes, (2, 2) in pixels of the photo, level and in their place; also their tilt."""
    across, down = eyes[1] - eyes[0]
    tilt = math.atan2(down, across)
    size = math.hypot(across, down) / EYE_DISTANCE
    side = max(1, round(size))
    cos, sin = math.cos(tilt), math.sin(tilt)
    turn = np.array([[cos, -sin], [sin, cos]])
    center = eyes.mean(0) + turn @ [0, (0.5 - EYE_LINE) * size]

    # The turned square lies within this one of the photo; OpenCV's warp takes no image wider than 32 767 pixels.
    reach = math.ceil(size * math.sqrt(0.5)) + 1
    low = np.clip(np.floor(center).astype(int) - reach, 0, np.array(image.shape[1::-1]) - 1)
    high = np.maximum(np.floor(center).astype(int) + reach + 1, low + 1)
    region = image[low[1] : high[1], low[0] : high[0]]
    shift = center - low - turn @ np.full(2, (side - 1) / 2)
    matrix = np.column_stack([turn, shift])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(region, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE), math.degrees(
        tilt
    )
