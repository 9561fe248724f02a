"""Faces marked on a picture: a box, what it shows and the score, in the colour of the class."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer_fast.data.align import Box
from fer_fast.errors import InputError, printable
from fer_fast.palette import GRAY, PALETTE
from fer_fast.serve.model import NamedFace
from fer_fast.serve.pictures import pixels

_COLOURS = tuple(colour for colour in PALETTE if colour != GRAY)  # gray is for what is unknown
# The letters of DejaVu, which matplotlib ships, go beyond ASCII; those of Pillow's own font do not.
_FONT = "mpl-data/fonts/ttf/DejaVuSans.ttf"
_LEAST_SIDE = 320  # a smaller picture is enlarged until its longer side has so many pixels: text needs them
_LETTERS = (0.016, 0.03)  # height of letters at least and at most, as a share of the longer side,
_OF_FACE = 0.12  # between which it is this share of the width of the face,
_SMALLEST = 12, 8  # and in pixels; the second where a label would not fit into the picture


class Mark(NamedTuple):
    """A box (left, top, width, height in pixels of the picture), its label, its colour, and whether it is dashed."""

    box: Box
    text: str
    colour: str
    dashed: bool = False


def marks(faces: Iterable[NamedFace], classes: Sequence[str], names: Iterable[str] = ()) -> list[Mark]:
    """What `draw` takes, from named faces: "unknown" is gray, and dashed what was not found; names stand before."""
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(classes)}
    before = [*(f"{name} " for name in names)]
    return [
        Mark(
            face.box,
            f"{before[i] if before else ''}{printable(face.label)} {face.score:.2f}",
            colours.get(face.label, GRAY),
            dashed=not face.found,
        )
        for i, face in enumerate(faces)
    ]


def annotate(picture: str, target: Path, faces: Iterable[NamedFace], classes: Sequence[str]) -> None:
    """Write an image file with its faces marked, as JPEG or PNG by the ending of `target`; folders are made.

    Raises:
        InputError: the file cannot be read.
        OSError: it cannot be written.
    """
    image = draw(pixels(picture, gray=False), marks(faces, classes))
    good, data = cv2.imencode(target.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
    if not good:
        raise InputError(f"{target}: OpenCV cannot write it")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def draw(image: np.ndarray, marked: Sequence[Mark], most: int | None = None) -> np.ndarray:
    """A copy of a picture with boxes and labels.

    Args:
        image: uint8 (height, width, 3) RGB.
        marked: what to draw; labels avoid one another.
        most: side to which a larger picture is shrunk; None for none.

    Returns:
        uint8 (height', width', 3) RGB: the size of the picture, at least 320 pixels on its longer side.
    """
    image, scale = _canvas(image, most)
    page = Image.fromarray(image)
    pen, width = ImageDraw.Draw(page), max(2, round(max(page.size) / 400))
    boxes = [_scaled(mark.box, scale, page.size, width) for mark in marked]
    for mark, box in zip(marked, boxes, strict=True):
        _outline(pen, box, mark, width)
    taken: list[tuple[int, ...]] = []
    for mark, box in zip(marked, boxes, strict=True):
        taken.append(_label(pen, box, mark, page.size, width, taken))
    return np.asarray(page)


def _canvas(image: np.ndarray, most: int | None) -> tuple[np.ndarray, tuple[float, float]]:
    """The picture at the size it is drawn on, and how much larger that is, across and down."""
    height, width = image.shape[:2]
    longest = max(height, width)
    target = min(max(longest, _LEAST_SIDE), most or longest + _LEAST_SIDE)
    if target == longest:
        return image, (1.0, 1.0)
    size = max(1, round(width * target / longest)), max(1, round(height * target / longest))
    how = cv2.INTER_AREA if target < longest else cv2.INTER_CUBIC
    return cv2.resize(image, size, interpolation=how), (size[0] / width, size[1] / height)


def _scaled(box: Box, scale: tuple[float, float], page: tuple[int, int], line: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom on the page, within it so that all four lines show."""
    ends = (box[0], box[1], box[0] + box[2], box[1] + box[3])
    left, top, right, bottom = (round(end * scale[i % 2]) for i, end in enumerate(ends))
    left, top = (min(max(start, 0), size - 1) for start, size in zip((left, top), page, strict=True))
    right, bottom = (min(end, size) - 1 for end, size in zip((right, bottom), page, strict=True))
    return left, top, max(right, min(left + line, page[0] - 1)), max(bottom, min(top + line, page[1] - 1))


def _outline(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], mark: Mark, width: int) -> None:
    if not mark.dashed:
        pen.rectangle(box, outline=mark.colour, width=width)
        return
    left, top, right, bottom = box
    dash = 4 * width
    for start in range(left, right + 1, 2 * dash):
        for y in (top, max(top, bottom - width + 1)):
            pen.rectangle((start, y, min(start + dash, right), min(y + width - 1, bottom)), fill=mark.colour)
    for start in range(top, bottom + 1, 2 * dash):
        for x in (left, max(left, right - width + 1)):
            pen.rectangle((x, start, min(x + width - 1, right), min(start + dash, bottom)), fill=mark.colour)


def _label(
    pen: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    mark: Mark,
    page: tuple[int, int],
    line: int,
    taken: Sequence[tuple[int, ...]],
) -> tuple[int, ...]:
    """Write a label where it hides least of those written before; where it stands."""
    font = _fitting(mark.text, page, box[2] - box[0])
    left, top, right, bottom = font.getbbox(mark.text)
    pad = max(2, line)
    size = right - left + 2 * pad, bottom - top + 2 * pad
    places = [(x, y, x + size[0], y + size[1]) for x, y in _places(box, size, page)]
    place = min(places, key=lambda one: sum(_shared(one, other) for other in taken))  # the first among equals
    pen.rectangle((*place[:2], place[2] - 1, place[3] - 1), fill=mark.colour)
    pen.text((place[0] + pad - left, place[1] + pad - top), mark.text, font=font, fill=_ink(mark.colour))
    return place


def _places(box: tuple[int, int, int, int], size: tuple[int, int], page: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Where a label may begin: above its box, below, inside at the top and bottom, beside it; all within the page."""
    left, top, right, bottom = box
    tall = size[1]
    for x, y in (
        (left, top - tall),
        (left, bottom + 1),
        (right + 1 - size[0], top - tall),
        (right + 1 - size[0], bottom + 1),
        (left, top),
        (left, bottom + 1 - tall),
        (right + 1, top),
        (left - size[0], top),
    ):
        if y >= 0 and y + tall <= page[1]:
            yield min(max(x, 0), max(page[0] - size[0], 0)), y
    yield min(max(left, 0), max(page[0] - size[0], 0)), min(max(top, 0), max(page[1] - tall, 0))


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Pixels that two rectangles share."""
    across, down = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    return max(across, 0) * max(down, 0)


def _fitting(text: str, page: tuple[int, int], face: int) -> ImageFont.FreeTypeFont:
    """The font for a label: by the face, legible on the page, and not wider than it."""
    least, most = (max(_SMALLEST[0], round(share * max(page))) for share in _LETTERS)
    size = min(max(least, round(_OF_FACE * face)), most)
    wide = _font(size).getlength(text)
    if wide > page[0] - 8:
        size = max(_SMALLEST[1], int(size * (page[0] - 8) / wide))
    return _font(size)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    package = find_spec("matplotlib")
    for folder in (package.submodule_search_locations or ()) if package else ():
        if (file := Path(folder) / _FONT).is_file():
            return ImageFont.truetype(str(file), size)
    return ImageFont.load_default(size)


def _ink(colour: str) -> str:
    """Black or white, whichever has more contrast."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else "white"
