"""Reading photographs of every kind, finding the face in them, and falling back where there is none."""

import random
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fer_fast.data import photos
from fer_fast.data.photos import find_face, read_photo
from fer_fast.errors import InputError

PRESS_PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "faces_in_the_wild.zip"
RED, WHITE = [255, 0, 0], [255, 255, 255]


@pytest.fixture(scope="module")
def press_photos(tmp_path_factory) -> list[Path]:
    """Forty real photographs, drawn by a fixed seed."""
    if not PRESS_PHOTOS.exists():
        pytest.skip(f"needs {PRESS_PHOTOS}")
    folder = tmp_path_factory.mktemp("press")
    with zipfile.ZipFile(PRESS_PHOTOS) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        return [Path(archive.extract(name, folder)) for name in random.Random(0).sample(names, 40)]


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tiff", "ppm"])
def test_formats_come_back_as_rgb(tmp_path, suffix):
    path = tmp_path / f"größe.{suffix}"
    Image.new("RGB", (7, 5), tuple(RED)).save(path)
    photo = read_photo(path)
    assert photo.shape == (5, 7, 3)
    assert photo.dtype == np.uint8
    assert np.abs(photo.astype(int) - RED).max() <= 2  # JPEG rounds


def test_orientation_of_the_camera_is_applied(tmp_path):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
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
        path = tmp_path / f"{tag}.png"
        Image.fromarray(pixels).save(path, exif=exif)
        np.testing.assert_array_equal(read_photo(path), expected, err_msg=f"orientation {tag}")


def test_sixteen_bits_become_eight(tmp_path):
    gray = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    for suffix in ("png", "tiff"):
        path = tmp_path / f"gray.{suffix}"
        cv2.imwrite(str(path), gray)
        np.testing.assert_array_equal(read_photo(path)[0, :, 0], [0, 100, 255])
    path = tmp_path / "colour.png"
    cv2.imwrite(str(path), np.full((2, 2, 3), (0, 257 * 50, 65535), dtype=np.uint16))
    np.testing.assert_array_equal(read_photo(path)[0, 0], [255, 50, 0])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    path = tmp_path / "photo.png"
    image.convert(mode).save(path)
    np.testing.assert_array_equal(read_photo(path)[0], [WHITE, [0, 0, 0]])


def test_gray_and_cmyk(tmp_path):
    Image.new("L", (3, 3), 77).save(tmp_path / "gray.jpg")
    assert np.unique(read_photo(tmp_path / "gray.jpg")).tolist() == [77]
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    assert np.abs(read_photo(tmp_path / "cmyk.jpg").astype(int) - RED).max() <= 4


def test_what_is_no_photo_is_named_in_one_line(tmp_path):
    whole = tmp_path / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(whole)
    files = {
        "empty.jpg": b"",
        "text.png": b"not an image\n",
        "cut.jpg": whole.read_bytes()[:-900],
        "header.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    Image.new("F", (2, 2)).save(tmp_path / "float.tiff")
    (tmp_path / "folder.jpg").mkdir()
    for name in (*files, "float.tiff", "folder.jpg", "missing.jpg"):
        with pytest.raises(InputError) as error:
            read_photo(tmp_path / name)
        message = str(error.value)
        assert message.startswith(str(tmp_path / name)), message
        assert "\n" not in message


def test_a_decompression_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match="exceeds limit"):
        read_photo(path)


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (48, 48), (60, 100), (3, 40_000), (1200, 900)])
def test_without_a_face_the_central_square_is_returned(shape):
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    face = find_face(image)
    left, top, width, height = face.box
    assert not face.found
    assert face.angle == 0
    assert width == height == min(shape)
    assert (left, top) == ((shape[1] - width) // 2, (shape[0] - height) // 2)
    np.testing.assert_array_equal(face.crop, image[top : top + height, left : left + width])


@pytest.mark.parametrize("tilt", [-20.0, 0.0, 15.0])
def test_the_cut_puts_the_eyes_level_and_in_their_place(tilt):
    angle = np.radians(tilt)
    middle, apart = np.array([150.0, 130.0]), 60.0
    along = np.array([np.cos(angle), np.sin(angle)]) * apart / 2
    eyes = np.array([middle - along, middle + along])
    image = np.zeros((300, 320, 3), np.uint8)
    for channel, eye in enumerate(eyes):  # the left eye is red, the right one green
        cv2.circle(image, [round(float(v)) for v in eye], 4, [255 * (c == channel) for c in range(3)], -1)
    crop, measured = photos._cut(image, eyes)
    assert measured == pytest.approx(tilt)
    assert crop.shape == (160, 160, 3)  # 60 / 0.375
    for channel, x in enumerate((0.5 - photos.EYE_DISTANCE / 2, 0.5 + photos.EYE_DISTANCE / 2)):
        rows, columns = np.nonzero(crop[..., channel] > 127)
        assert columns.mean() == pytest.approx(x * 160, abs=1.5)
        assert rows.mean() == pytest.approx(photos.EYE_LINE * 160, abs=1.5)


def test_a_cut_beyond_the_photo_repeats_its_edge():
    image = np.full((40, 40_000, 3), 9, np.uint8)  # wider than OpenCV's warp takes
    crop, _ = photos._cut(image, np.array([[39_900.0, 20.0], [39_990.0, 25.0]]))
    assert crop.min() == crop.max() == 9


@pytest.mark.parametrize(
    "image", [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), None]
)
def test_no_photo_is_refused(image):
    with pytest.raises(InputError, match=r"^image: "):
        find_face(image)


def test_real_photos(press_photos):
    faces = [find_face(read_photo(path)) for path in press_photos]
    assert np.mean([face.found for face in faces]) >= 0.85
    assert np.mean([face.angle != 0 for face in faces]) >= 0.5
    for path, face in zip(press_photos, faces, strict=True):
        assert face.crop.dtype == np.uint8, path
        assert face.crop.shape == (len(face.crop), len(face.crop), 3), path
        assert abs(face.angle) < 30, path


def test_the_same_photo_gives_the_same_face(press_photos):
    photo = read_photo(press_photos[0])
    first, second = find_face(photo), find_face(photo)
    assert first.found
    assert first.box == second.box
    np.testing.assert_array_equal(first.crop, second.crop)


def test_a_tilted_face_comes_back_upright(press_photos):
    """Turning a photo by ten degrees moves the measured tilt by about as much and keeps the crop."""
    large = (photo for photo in map(read_photo, press_photos) if min(photo.shape[:2]) > 300)
    photo, straight = next((p, face) for p in large if 0 < abs((face := find_face(p)).angle) < 4)
    height, width = photo.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), -10, 1)  # OpenCV turns counter-clockwise
    turned = find_face(cv2.warpAffine(photo, turn, (width, height), borderMode=cv2.BORDER_REPLICATE))
    assert turned.found
    assert turned.angle - straight.angle == pytest.approx(10, abs=4)
    one, other = (cv2.resize(face.crop, (32, 32), interpolation=cv2.INTER_AREA).ravel() for face in (straight, turned))
    assert np.corrcoef(one, other)[0, 1] > 0.85
