"""Faces marked on a picture: a box, what it shows and the score, in the colour of the class."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer_fast.data.align import Box
from fer_fast.errors import InputError, printable
from fer_fast.palette import GRAY, OF_CLASSES
from fer_fast.serve.model import NamedFace
from fer_fast.serve.pictures import pixels
from fer_fast.train.folder import make_folder
from fer_fast.written import write_bytes

# The letters of DejaVu, which matplotlib ships, go beyond ASCII; those of Pillow's own font do not.
_FONT = "mpl-data/fonts/ttf/DejaVuSans.ttf"
_LEAST_SIDE = 320  # a smaller picture is enlarged until its longer side has so many pixels: text needs them
_SMALL_FACE, _FACE = 48, 80  # a picture with a face below the first is enlarged until that has the second,
_ENLARGED = 1600  # or its longer side so many pixels
_LEAST_PAGE = 160, 64  # a thinner picture gets a margin
_LETTERS = (0.016, 0.03)  # height of letters at least and at most, as a share of the longer side,
_OF_FACE = 0.12  # between which it is this share of the width of the face,
_SMALLEST = 12, 8  # and in pixels; the second where a label would not fit into the picture
_OF_LABELS = 4  # a label hidden is as bad as a face of so many times its area

_Rectangle: TypeAlias = tuple[int, int, int, int]  # left, top, right, bottom on the page


class Mark(NamedTuple):
    """A box (left, top, width, height in pixels of the picture), its label, its colour, and whether it is dashed."""

    box: Box
    text: str
    colour: str
    dashed: bool = False


def marks(faces: Iterable[NamedFace], classes: Sequence[str], names: Iterable[str] = ()) -> list[Mark]:
    """What `draw` takes, from named faces: "unknown" is gray, and dashed what was not found; names stand before."""
    colours = {name: OF_CLASSES[number % len(OF_CLASSES)] for number, name in enumerate(classes)}
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
        InputError: the file cannot be read, or the other not be written.
    """
    image = draw(pixels(picture, gray=False), marks(faces, classes))
    good, data = cv2.imencode(target.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
    if not good:
        raise InputError(f"{target}: OpenCV cannot write it")
    make_folder(target.parent)
    write_bytes(target, data)


def draw(image: np.ndarray, marked: Sequence[Mark], side: int | None = None) -> np.ndarray:
    """A copy of a picture with boxes and labels, which avoid one another and the faces.

    Args:
        image: uint8 (height, width, 3) RGB.
        marked: what to draw.
        side: the longer side of the copy. None keeps that of the picture, or enlarges it where text would hide faces:
            to 320 pixels at least, and where a face is small to at most 1 600.

    Returns:
        uint8 (height', width', 3) RGB; a picture too thin for text has a black margin.
    """
    image, scale = _canvas(image, side or _readable(image, marked))
    page = Image.fromarray(image)
    pen, line = ImageDraw.Draw(page), max(2, round(max(page.size) / 400))
    boxes = [_scaled(mark.box, scale, page.size, line) for mark in marked]
    for mark, box in zip(marked, boxes, strict=True):
        _outline(pen, box, mark, line)
    taken: list[_Rectangle] = []
    for mark, box in zip(marked, boxes, strict=True):
        taken.append(_label(pen, box, mark, page.size, taken, boxes))
    return np.asarray(page)


def _readable(image: np.ndarray, marked: Sequence[Mark]) -> int:
    longest = max(image.shape[:2])
    smallest = min((max(min(mark.box[2:]), 1) for mark in marked), default=_SMALL_FACE)
    enlarged = min(longest * _FACE / smallest, _ENLARGED) if smallest < _SMALL_FACE else 0
    return round(max(longest, _LEAST_SIDE, enlarged))


def _canvas(image: np.ndarray, side: int) -> tuple[np.ndarray, tuple[float, float]]:
    """The picture at the size it is drawn on, and how much larger that is, across and down."""
    height, width = image.shape[:2]
    longest = max(height, width)
    size = max(1, round(width * side / longest)), max(1, round(height * side / longest))
    how = cv2.INTER_AREA if side < longest else cv2.INTER_CUBIC
    resized = image if side == longest else cv2.resize(image, size, interpolation=how)
    right, below = (max(least - length, 0) for least, length in zip(_LEAST_PAGE, size, strict=True))
    if right or below:
        resized = cv2.copyMakeBorder(resized, 0, below, 0, right, cv2.BORDER_CONSTANT)
    return resized, (size[0] / width, size[1] / height)


def _scaled(box: Box, scale: tuple[float, float], page: tuple[int, int], line: int) -> _Rectangle:
    """A box on the page, within it so that all four lines show."""
    ends = (box[0], box[1], box[0] + box[2], box[1] + box[3])
    left, top, right, bottom = (round(end * scale[i % 2]) for i, end in enumerate(ends))
    left, top = (min(max(start, 0), size - 2 * line) for start, size in zip((left, top), page, strict=True))
    right, bottom = (min(end, size) for end, size in zip((right, bottom), page, strict=True))
    return left, top, max(right, left + 2 * line), max(bottom, top + 2 * line)


def _outline(pen: ImageDraw.ImageDraw, box: _Rectangle, mark: Mark, line: int) -> None:
    """Four lines on a white rim, which shows on any picture; of a dashed box, white shows between the dashes."""
    left, top, right, bottom = box
    rim = max(1, line // 2)
    pen.rectangle((left - rim, top - rim, right - 1 + rim, bottom - 1 + rim), outline="white", width=line + 2 * rim)
    if not mark.dashed:
        pen.rectangle((left, top, right - 1, bottom - 1), outline=mark.colour, width=line)
        return
    dash = 4 * line
    for start in range(left, right, 2 * dash):
        for y in (top, bottom - line):
            pen.rectangle((start, y, min(start + dash, right) - 1, y + line - 1), fill=mark.colour)
    for start in range(top, bottom, 2 * dash):
        for x in (left, right - line):
            pen.rectangle((x, start, x + line - 1, min(start + dash, bottom) - 1), fill=mark.colour)


def _label(
    pen: ImageDraw.ImageDraw,
    box: _Rectangle,
    mark: Mark,
    page: tuple[int, int],
    taken: Sequence[_Rectangle],
    boxes: Sequence[_Rectangle],
) -> _Rectangle:
    """Write a label where it hides least of the labels before it and of faces; where it stands."""
    font = _fitting(mark.text, page, box[2] - box[0])
    left, top, right, bottom = map(round, font.getbbox(mark.text))
    pad = max(2, font.size // 6)
    size = right - left + 2 * pad, bottom - top + 2 * pad

    def hidden(place: _Rectangle) -> int:
        return _OF_LABELS * sum(_shared(place, one) for one in taken) + sum(_shared(place, one) for one in boxes)

    place = min(((x, y, x + size[0], y + size[1]) for x, y in _places(box, size, page)), key=hidden)
    pen.rectangle((*place[:2], place[2] - 1, place[3] - 1), fill=mark.colour)
    pen.text((place[0] + pad - left, place[1] + pad - top), mark.text, font=font, fill=_ink(mark.colour))
    return place


def _places(box: _Rectangle, size: tuple[int, int], page: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Where a label may begin: above its box, below, inside at the top and bottom, beside it; all within the page."""
    left, top, right, bottom = box
    wide, tall = size
    last_x, last_y = max(page[0] - wide, 0), max(page[1] - tall, 0)
    for y in (top - tall, bottom, top, bottom - tall):
        if 0 <= y <= last_y:
            for x in (left, right - wide):
                yield min(max(x, 0), last_x), y
    for x in (right, left - wide):
        yield min(max(x, 0), last_x), min(max(top, 0), last_y)


def _shared(one: _Rectangle, other: _Rectangle) -> int:
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
