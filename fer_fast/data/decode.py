"""From the bytes of an image file to pixels, the way a viewer shows them."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_fast.errors import InputError

if tuple(map(int, cv2.__version__.split(".")[:2])) < (4, 11):
    raise InputError(f"OpenCV {cv2.__version__} reads a truncated JPEG as garbage; 4.11 or newer is needed")

MAX_PIXELS = 178_956_970  # where Pillow refuses too; 8 000 × 6 000 are 48 million

# What Pillow is asked for. Its other readers start programs (EPS), or take bytes of any kind for a picture (TGA).
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_NO_LENGTH = {0x00, 0x01, *range(0xD0, 0xD8)}  # JPEG: a stuffed byte, TEM, RST0 to RST7
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG: SOF0 to SOF15
_AFTER_FRAME = {0xD8, 0xD9, 0xDA}  # JPEG: SOI, EOI, SOS


class _Header(NamedTuple):
    """What an image file says of itself; `plain` where OpenCV shows it as a viewer does."""

    width: int
    height: int
    plain: bool
    luma: bool  # whether OpenCV gives its luma exactly


def decode(data: bytes, *, gray: bool) -> np.ndarray:
    """Bytes of an image file -> uint8 (height, width), or (height, width, 3) RGB.

    The orientation of the camera is applied, transparency is laid on white, 16 bits are scaled to 8, of several frames
    the first counts. The gray of a colour picture is its luma by ITU-R BT.601; that of a JPEG is stored in it.

    Args:
        data: a whole file: JPEG, PNG, BMP, GIF, TIFF, WebP, PNM, JPEG 2000 or AVIF.
        gray: whether one channel is wanted.

    Raises:
        InputError: no image, one that is cut short or broken, of floating-point pixels, or of more than `MAX_PIXELS`;
            the reason in one line.
    """
    if not data:
        raise InputError("the file is empty")
    header = _jpeg_header(data) if data.startswith(_JPEG) else _png_header(data) if data.startswith(_PNG) else None
    if header is None or not header.plain:
        image = _by_pillow(data)
    else:
        _bound(header.width, header.height)
        as_luma = gray and header.luma
        try:
            image = cv2.imdecode(
                np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE if as_luma else cv2.IMREAD_COLOR_RGB
            )
        except cv2.error as error:
            raise InputError(f"broken ({error.err})") from None
        if image is None:
            raise InputError("cut short or broken")
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if gray and image.ndim == 3 else image


def _bound(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(f"{width} × {height} pixels; at most {MAX_PIXELS} are read")


def _jpeg_header(data: bytes) -> _Header:
    """The frame header, found as libjpeg finds it."""
    at, end = 2, len(data)
    while (at := data.find(b"\xff", at)) >= 0:
        while at < end and data[at] == 0xFF:
            at += 1
        marker = data[at] if at < end else 0xD9
        at += 1
        if marker in _FRAMES and at + 8 <= end:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 2)
            return _Header(width, height, plain=bits == 8 and channels in (1, 3), luma=True)
        if marker in _AFTER_FRAME:
            break
        if marker not in _NO_LENGTH:
            at += int.from_bytes(data[at : at + 2], "big")
    raise InputError("a JPEG that ends before its picture begins")


def _png_header(data: bytes) -> _Header:
    """The header; all chunks must be there and hold what their checksums say, for OpenCV prints what it finds."""
    width = height = bits = colour = 0
    plain, at, view = True, len(_PNG), memoryview(data)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(view[at + 4 : end - 4]).to_bytes(4, "big") != view[end - 4 : end]:
            raise InputError("a broken PNG: a checksum is wrong")
        if kind == b"IHDR" and length == 13:
            width, height, bits, colour = struct.unpack_from(">IIBB", data, at + 8)
        elif kind == b"IEND":
            # Colour types: 0 gray, 2 RGB, 3 palette.
            return _Header(width, height, plain and bits == 8 and colour in (0, 2, 3), luma=colour == 0)
        elif kind in (b"tRNS", b"acTL"):  # transparency, animation
            plain = False
        at = end
    raise InputError("a PNG that is cut short")


def _by_pillow(data: bytes) -> np.ndarray:
    """Any picture as RGB."""
    with _in_a_line(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        return from_pillow(image)


def from_pillow(image: Image.Image) -> np.ndarray:
    """A PIL image as `decode` gives it, in RGB; it may still have to be read.

    Raises:
        InputError: as for `decode`.
    """
    with _in_a_line():
        _bound(*image.size)
        return np.array(as_rgb(ImageOps.exif_transpose(image)))


@contextmanager
def _in_a_line() -> Iterator[None]:
    """Makes an `InputError` of whatever Pillow raises."""
    try:
        yield
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError("no image of a kind that is read (JPEG, PNG, BMP, GIF, TIFF, WebP, ...)") from None
    # A decoder fed broken bytes raises what it likes: OSError, ValueError, SyntaxError, struct.error, ...
    except Exception as error:
        raise InputError(f"broken ({' '.join(str(error).split()) or type(error).__name__})") from error


def as_rgb(image: Image.Image) -> Image.Image:
    """A PIL image of any mode as RGB: transparency laid on white, 16 bits scaled to 8.

    Raises:
        InputError: pixels without an agreed white.
    """
    if image.mode == "F":
        raise InputError("floating-point pixels have no agreed white; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit gray; convert() would clip it at 255
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError("32-bit pixels have no agreed white; save it with 8 or 16 bits")
        return Image.fromarray((values / np.float32(257)).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
