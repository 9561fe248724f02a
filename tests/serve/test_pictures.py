"""What people hand over as a picture: each of them the same pixels, or a line that says what is wrong."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from fer_fast.errors import InputError
from fer_fast.serve.pictures import pixels, several

TURNED = 6  # of EXIF: a viewer turns it by 90° clockwise


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(256, size=(40, 50, 3), dtype=np.uint8)


def as_file(image, **how):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", **how)
    return file.getvalue()


def test_a_picture_is_the_same_however_it_is_given(image, tmp_path):
    (tmp_path / "a.png").write_bytes(as_file(image))
    given = (
        str(tmp_path / "a.png"),
        tmp_path / "a.png",
        as_file(image),
        image,
        image[::-1, ::-1].copy()[::-1, ::-1],
        np.asfortranarray(image),
        torch.from_numpy(image).permute(2, 0, 1),
        Image.fromarray(image),
        Image.open(io.BytesIO(as_file(image))),
        Image.fromarray(image).convert("RGBA"),
    )
    for gray in (False, True):
        expected = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if gray else image
        for one in given:
            (alone,) = several(one)
            assert np.array_equal(pixels(alone, gray=gray), expected)


def test_a_picture_of_pillow_is_turned_as_its_camera_says(image):
    exif = Image.Exif()
    exif[0x0112] = TURNED
    data = as_file(image, exif=exif)
    for picture in (data, Image.open(io.BytesIO(data))):
        assert np.array_equal(pixels(picture, gray=False), np.rot90(image, -1))


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (lambda data: Image.open(io.BytesIO(data[:2000])), "broken .*truncated"),
        (lambda data: data[:2000], "cut short"),
        (lambda _: b"", "the file is empty"),
        (lambda _: Image.new("F", (4, 4)), "floating-point pixels"),
        (lambda _: torch.rand(3, 4, 4), "uint8 of shape"),
        (lambda _: np.zeros((4, 4, 4), np.uint8), "uint8 of shape"),
        (lambda _: np.zeros((4, 4), np.uint16), "uint8 of shape"),
        (lambda _: 3, "got int"),
    ],
)
def test_what_is_no_picture_is_told_in_a_line(image, picture, message):
    with pytest.raises(InputError, match=message) as caught:
        pixels(picture(as_file(image)), gray=False)
    assert "\n" not in str(caught.value)
