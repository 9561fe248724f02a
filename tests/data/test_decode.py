"""Image files of every kind as a viewer shows them; broken, cut and oversized ones refused in one line."""

import io
import random
import runpy
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from fer_fast.data import decode as decode_module
from fer_fast.data.decode import MAX_PIXELS, decode
from fer_fast.errors import InputError

# Pillow says in a warning what it makes of a broken TIFF before it refuses it.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

RED, WHITE = [255, 0, 0], [255, 255, 255]


def encoded(picture, kind, **options):
    """Bytes of a file of a picture, an array or a Pillow image."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def drawn(height=64, width=80, channels=3):
    """Smooth blobs of colour."""
    small = np.random.default_rng(0).integers(0, 256, (6, 6, channels), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)


def reason(data, gray=False):
    """The one line in which a file is refused."""
    with pytest.raises(InputError) as error:
        decode(data, gray=gray)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "GIF"])
def test_formats_come_back_as_rgb_and_as_luma(kind):
    data = encoded(Image.new("RGB", (14, 10), tuple(RED)), kind)
    colour, gray = decode(data, gray=False), decode(data, gray=True)
    assert (colour.shape, gray.shape) == ((10, 14, 3), (10, 14))
    assert colour.dtype == gray.dtype == np.uint8
    assert np.abs(colour.astype(int) - RED).max() <= 2  # JPEG rounds
    assert np.abs(gray.astype(int) - round(0.299 * 255)).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("gray", [False, True])
def test_orientation_of_the_camera_is_applied(kind, gray):
    pixels = np.kron(np.arange(8, dtype=np.uint8).reshape(2, 4) * 30, np.ones((8, 8), np.uint8))
    pixels = np.stack([pixels] * 3, -1)
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).swapaxes(0, 1),
        8: np.rot90(pixels),
    }
    for tag, expected in upright.items():
        exif = Image.Exif()
        exif[0x0112] = tag
        options = {"lossless": True} if kind == "WEBP" else {}
        found = decode(encoded(pixels, kind, exif=exif, **options), gray=gray)
        expected = expected[..., 0] if gray else expected
        assert found.shape == expected.shape, f"orientation {tag}"
        assert np.abs(found.astype(int) - expected).max() <= (12 if kind == "JPEG" else 0), f"orientation {tag}"


def test_sixteen_bits_are_scaled_to_eight():
    gray = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    for suffix in (".png", ".tiff", ".pgm"):
        data = cv2.imencode(suffix, gray)[1].tobytes()
        np.testing.assert_array_equal(decode(data, gray=True)[0], [0, 100, 255], err_msg=suffix)
    colour = cv2.imencode(".png", np.full((2, 2, 3), (0, 257 * 50, 65535), dtype=np.uint16))[1].tobytes()
    np.testing.assert_array_equal(decode(colour, gray=False)[0, 0], [255, 50, 0])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    data = encoded(image.convert(mode), "PNG")
    np.testing.assert_array_equal(decode(data, gray=False)[0], [WHITE, [0, 0, 0]])
    np.testing.assert_array_equal(decode(data, gray=True)[0], [255, 0])


def test_an_opaque_alpha_channel_changes_nothing():
    image = Image.fromarray(drawn())
    for gray in (False, True):
        plain, with_alpha = (decode(encoded(each, "PNG"), gray=gray) for each in (image, image.convert("RGBA")))
        np.testing.assert_array_equal(plain, with_alpha)


def test_palettes_few_bits_and_cmyk():
    image = Image.fromarray(drawn()).quantize(32)
    np.testing.assert_array_equal(decode(encoded(image, "PNG"), gray=False), np.asarray(image.convert("RGB")))
    stripes = np.arange(12).reshape(3, 4) % 2 == 0
    np.testing.assert_array_equal(decode(encoded(stripes, "PNG"), gray=True), stripes * np.uint8(255))
    cmyk = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), gray=False)
    assert np.abs(cmyk.astype(int) - RED).max() <= 4


def test_one_channel_is_repeated_where_colour_is_wanted():
    for kind in ("PNG", "JPEG", "TIFF"):
        assert np.unique(decode(encoded(Image.new("L", (3, 3), 77), kind), gray=False)).tolist() == [77]


def test_of_several_frames_the_first_counts():
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue", "lime")]
    for kind in ("GIF", "TIFF", "PNG", "WEBP"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert np.abs(decode(data, gray=False).astype(int) - RED).max() <= 2, kind


def test_a_large_photograph_is_read():
    assert decode(encoded(Image.new("L", (8000, 6000), 9), "JPEG"), gray=True).shape == (6000, 8000)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("TIFF", {}), ("BMP", {}), ("GIF", {})],
)
def test_a_truncated_file_is_refused_wherever_it_ends(kind, options, mode):
    data = encoded(Image.fromarray(drawn()).convert(mode), kind, **options)
    whole = decode(data, gray=True)
    for end in sorted({*range(1, len(data), max(1, len(data) // 150)), *range(len(data) - 20, len(data))}):
        try:
            found = decode(data[:end], gray=True)
        except InputError:
            continue
        # What follows the pixels can be missing.
        np.testing.assert_array_equal(found, whole, err_msg=f"{end} of {len(data)} bytes")


def test_what_is_no_picture_is_refused_in_one_line():
    assert reason(b"") == "the file is empty"
    assert "no image" in reason(b"not an image\n")
    assert "no image" in reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # would start a program
    assert "cut short" in reason(b"\x89PNG\r\n\x1a\n")
    assert "checksum" in reason(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    assert "before its picture" in reason(b"\xff\xd8\xff garbage")
    assert "floating-point" in reason(encoded(Image.new("F", (2, 2)), "TIFF"))
    assert "32-bit" in reason(encoded(Image.fromarray(np.full((2, 2), 70_000, np.int32)), "TIFF"))


def png(width, height, pixels=b""):
    """A PNG that says it is so large."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", pixels), (b"IEND", b""))
    body = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def resized(data, marker, size):
    """The same file with another size behind `marker` in its header."""
    at = data.index(marker) + len(marker)
    return data[:at] + size + data[at + len(size) :]


@pytest.fixture(scope="module")
def bombs(tmp_path_factory):
    """Small files that say they are large, or are."""
    folder, huge = tmp_path_factory.mktemp("bombs"), struct.pack(">HH", 60_000, 60_000)
    files = {
        "said.png": png(60_000, 60_000),
        "said.jpg": resized(encoded(drawn(), "JPEG"), b"\xff\xc0\x00\x11\x08", huge),
        "said.gif": resized(encoded(drawn(), "GIF"), b"GIF87a", huge),
        "said.bmp": resized(encoded(drawn(), "BMP"), b"\x28\0\0\0", struct.pack("<ii", 60_000, 60_000)),
        "said.webp": resized(encoded(drawn(), "WEBP"), b"\x9d\x01\x2a", struct.pack("<HH", 16_383, 16_383)),
        "is.png": encoded(Image.new("1", (14_000, 14_000)), "PNG"),
        "is.tiff": encoded(Image.new("1", (14_000, 14_000)), "TIFF", compression="group4"),
    }
    for name, data in files.items():
        assert len(data) < 100_000
        (folder / name).write_bytes(data)
    return folder


def test_decompression_bombs_are_refused(bombs):
    for path in bombs.iterdir():
        line = reason(path.read_bytes())
        assert "pixels; at most" in line or "exceeds limit" in line, path.name
    assert 60_000 * 60_000 > 2 * 10**8 > MAX_PIXELS > 8000 * 6000


def test_decompression_bombs_take_no_memory(bombs):
    code = """if True:
        import pathlib, resource, sys
        from fer_fast.data.decode import decode
        from fer_fast.errors import InputError

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for path in pathlib.Path(sys.argv[1]).iterdir():
            try:
                decode(path.read_bytes(), gray=False)
            except InputError:
                continue
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run([sys.executable, "-c", code, bombs], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50_000  # kilobytes


def test_an_opencv_that_reads_truncated_files_as_garbage_is_refused(monkeypatch):
    monkeypatch.setattr(cv2, "__version__", "4.10.0")
    with pytest.raises(InputError, match=r"^OpenCV 4\.10\.0 reads a truncated JPEG as garbage; 4\.11 or newer"):
        runpy.run_path(decode_module.__file__)


def test_a_thousand_mutated_files_give_pixels_or_one_line():
    picture = Image.fromarray(drawn(40, 48))
    kinds = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
    files = [encoded(picture, kind) for kind in kinds]
    files += [encoded(picture, "JPEG", progressive=True), encoded(picture.convert("RGBA"), "PNG")]
    files += [encoded(picture.convert("CMYK"), "JPEG"), encoded(picture.quantize(8), "PNG")]
    draw, refused = random.Random(0), []
    for number in range(1000):
        data = bytearray(files[number % len(files)])
        for _ in range(draw.choice((1, 1, 3, 20))):
            data[draw.randrange(min(len(data), draw.choice((64, 1024, 10**6))))] = draw.randrange(256)
        if draw.random() < 0.2:
            data = data[: draw.randrange(len(data))]
        gray = bool(number % 2)
        try:
            found = decode(bytes(data), gray=gray)
        except InputError as error:
            refused.append(str(error))
            continue
        assert found.dtype == np.uint8, number
        assert found.ndim == (2 if gray else 3), number
        assert 0 < found.shape[0] * found.shape[1] <= MAX_PIXELS, number
    assert 100 < len(refused) < 900
    assert not any("\n" in line or not line for line in refused)
