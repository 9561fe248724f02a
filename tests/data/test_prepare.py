"""From a picture to what is kept: cuts by eyes, boxes, central squares; the same for training and for predict."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from fer_fast.data import load_dataset
from fer_fast.data.align import EYE_DISTANCE, EYE_LINE, central_square, cut_box, cut_upright
from fer_fast.data.finder import largest_face
from fer_fast.data.haar import haar_face
from fer_fast.data.prepare import Preparation, prepare, to_size

WAYS = ("whole", "align", "box", "haar")


@pytest.fixture(scope="module")
def photo():
    """A drawn face in a larger picture."""
    face = load_dataset("faces", split="train", image_size=160, channels=3, samples=7).images[0]
    image = np.full((300, 420, 3), 90, np.uint8)
    image[70:230, 200:360] = face.permute(1, 2, 0).numpy()
    return image


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("limit", [np.inf, 160, 90])
@pytest.mark.parametrize("tilt", [-20.0, 0.0, 15.0, 100.0])
def test_the_cut_puts_the_eyes_level_and_in_their_place(tilt, limit):
    angle = np.radians(tilt)
    middle, apart = np.array([150.0, 130.0]), 60.0
    along = np.array([np.cos(angle), np.sin(angle)]) * apart / 2
    eyes = np.array([middle - along, middle + along])
    image = np.zeros((300, 320, 3), np.uint8)
    for channel, eye in enumerate(eyes):  # the left eye is red, the right one green
        cv2.circle(image, [round(float(v)) for v in eye], 4, [255 * (c == channel) for c in range(3)], -1)
    crop = cut_upright(image, eyes, limit)
    side = min(160, limit)  # 60 / 0.375
    assert crop.shape == (side, side, 3)
    for channel, x in enumerate((0.5 - EYE_DISTANCE / 2, 0.5 + EYE_DISTANCE / 2)):
        rows, columns = np.nonzero(crop[..., channel] > 127)
        assert columns.mean() == pytest.approx(x * side, abs=1.5)
        assert rows.mean() == pytest.approx(EYE_LINE * side, abs=1.5)


def test_a_cut_beyond_the_picture_repeats_its_edge():
    image = np.full((40, 40_000, 3), 9, np.uint8)  # wider than OpenCV's warp takes
    for limit in (np.inf, 50):
        crop = cut_upright(image, np.array([[39_900.0, 20.0], [39_990.0, 25.0]]), limit)
        assert crop.min() == crop.max() == 9


def test_a_face_in_profile_takes_its_size_from_the_mouth():
    frontal = np.array([[40.0, 40.0], [70.0, 40.0], [55.0, 55.0], [45.0, 72.0], [65.0, 72.0]])
    profile = np.array([[50.0, 40.0], [56.0, 40.0], [60.0, 55.0], [50.0, 72.0], [54.0, 72.0]])
    image = noise(200, 200, 3)
    assert len(cut_upright(image, frontal)) == round(30 / EYE_DISTANCE)
    assert 0.6 * 80 < len(cut_upright(image, profile)) < 80  # by its eyes alone it would be 16


def test_a_face_is_found_aligned_and_told(photo):
    kept = prepare(photo, None, Preparation(64, 3, "align"))
    assert kept.found
    assert kept.pixels.shape == (64, 64, 3)
    for part, low, high in zip(kept.box, (180, 50, 60, 60), (300, 180, 180, 200), strict=True):
        assert low < part < high
    eyes = largest_face(kept.pixels).landmarks[:2] / 64  # where they are meant to be in the result
    assert eyes[:, 1].tolist() == pytest.approx([EYE_LINE] * 2, abs=0.06)
    assert eyes[1, 0] - eyes[0, 0] == pytest.approx(EYE_DISTANCE, abs=0.08)


@pytest.mark.parametrize("faces", WAYS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 900), (900, 1, 3), (2, 3, 3), (48, 48), (60, 100, 3), (3, 40_000), (70_000, 2, 3)]
)
def test_pictures_of_any_shape_become_squares(shape, channels, faces):
    for image in (noise(*shape), np.full(shape, 255, np.uint8)):
        kept = prepare(image, None, Preparation(32, channels, faces))
        assert kept.pixels.shape == (32, 32, channels)
        assert kept.pixels.dtype == np.uint8
        assert kept.found == (faces == "whole")
        square = central_square(image)
        assert square[2] == square[3] == min(shape[:2])
        assert kept.box == ((0, 0, shape[1], shape[0]) if faces == "whole" else square)
        taken = cut_box(image, kept.box)
        assert kept.pixels.mean() == pytest.approx(taken.mean(), abs=8 + 3 * taken.std() / taken.size**0.5)


def test_whole_pictures_are_squeezed_and_those_without_a_face_are_not():
    image = np.zeros((50, 100, 3), np.uint8)
    image[:, :25] = 255
    assert prepare(image, None, Preparation(48, 3)).pixels[:, :12].min() == 255
    assert prepare(image, None, Preparation(48, 3, "align")).pixels.max() == 0
    assert prepare(image, None, Preparation(48, 3, "align", "skip")).found is False


def test_boxes_are_cut_as_they_are():
    image = noise(60, 80, 3)
    kept = prepare(image, np.array([10, 20, 32, 32], np.float32), Preparation(32, 3, "box"))
    assert (kept.found, kept.box) == (True, (10, 20, 32, 32))
    np.testing.assert_array_equal(kept.pixels, image[20:52, 10:42])
    # Fractions are rounded; what is not square is squeezed.
    tall = prepare(image, np.array([9.6, 0.4, 16.2, 59.7], np.float32), Preparation(32, 1, "box"))
    assert tall.box == (10, 0, 16, 60)
    gray = cv2.cvtColor(to_size(image[:, 10:26], 32), cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(tall.pixels[..., 0], gray)


def test_a_box_beyond_the_picture_repeats_its_edge():
    image = noise(60, 80, 3)
    kept = prepare(image, np.array([60, 40, 40, 40], np.float32), Preparation(40, 3, "box"))
    assert kept.found
    np.testing.assert_array_equal(kept.pixels[:20, :20], image[40:, 60:])
    np.testing.assert_array_equal(kept.pixels[:20, 20:], np.repeat(image[40:, 79:], 20, 1))
    np.testing.assert_array_equal(kept.pixels[20:, :20], np.repeat(image[59:, 60:], 20, 0))


@pytest.mark.parametrize(
    "box",
    [
        *(None, [np.nan] * 4, [0, 0, np.nan, 9], [0, 0, np.inf, 9], [-1, 0, 9, 9], [0, -5, 9, 9], [0, 0, -9, 9]),
        *([0, 0, 0, 9], [0, 0, 9, 0.3], [80, 0, 9, 9], [0, 60, 9, 9], [0, 0, 1e9, 1e9], [79, 59, 50, 50]),
    ],
)
def test_what_is_no_box_counts_as_none(box):
    image = noise(60, 80, 3)
    kept = prepare(image, None if box is None else np.array(box, np.float32), Preparation(60, 3, "box"))
    assert (kept.found, kept.box) == (False, (10, 0, 60, 60))
    np.testing.assert_array_equal(kept.pixels, image[:, 10:70])


def test_gray_and_colour_go_into_the_channels_asked_for(photo):
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    for image in (photo, gray):
        assert prepare(image, None, Preparation(48, 1, "align")).pixels.shape == (48, 48, 1)
        colour = prepare(image, None, Preparation(48, 3, "align")).pixels
        assert (colour == colour[..., :1]).all() == (image.ndim == 2)


def test_threads_agree(photo):
    how = [Preparation(48, 3, faces) for faces in WAYS] * 4
    alone = [prepare(photo, np.array([200, 70, 160, 160]), each).pixels for each in how]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: prepare(photo, np.array([200, 70, 160, 160]), each).pixels, how))
    np.testing.assert_array_equal(alone, together)


def test_one_file_is_the_same_in_training_and_in_predict(photo, tmp_path, monkeypatch):
    """A PNG with an alpha channel, turned by its camera, read by a data set's cache and by `predict`."""
    from PIL import Image

    from fer_fast.data.cache import store
    from fer_fast.data.listing import Part
    from fer_fast.data.pictures import Files
    from fer_fast.serve.pictures import cut, pixels

    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = np.full((*photo.shape[:2], 1), 255, np.uint8)
    alpha[:40] = 30
    image = Image.fromarray(np.rot90(np.concatenate([photo, alpha], -1)).copy())
    path = tmp_path / "photo.png"
    image.save(path, exif=exif)
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path / "cache"))
    for channels in (1, 3):
        how = Preparation(64, channels, "align")
        part = Part(Files([path]), np.zeros(1, np.int64), ("photo.png",))
        kept = store(part, how, {"dataset": "x", "part": "all", "root": str(tmp_path), "licence": ""})
        own = cut(pixels(path, gray=channels == 1), how, "largest")[0]
        assert own.found
        np.testing.assert_array_equal(kept.pixels[0].numpy(), own.pixels)


def test_real_photographs_by_haar_cascades(press_photos):
    faces = [haar_face(photo) for photo in press_photos]
    assert np.mean([face is not None for face in faces]) >= 0.85
    tilts = [np.subtract(*face.landmarks[::-1]) for face in faces if face]
    assert np.mean([down != 0 for _, down in tilts]) >= 0.5
    assert max(abs(down / across) for across, down in tilts) < np.tan(np.radians(30))


@pytest.mark.parametrize("faces", ["align", "haar"])
def test_a_turned_photograph_gives_the_same_crop(press_photos, faces):
    how, alike = Preparation(32, 1, faces), []
    for photo in press_photos[:20]:
        height, width = photo.shape[:2]
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), -10, 1)
        turned = cv2.warpAffine(photo, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
        one, other = (prepare(image, None, how) for image in (photo, turned))
        if one.found and other.found:
            alike.append(np.corrcoef(one.pixels.ravel(), other.pixels.ravel())[0, 1])
    assert len(alike) >= 12
    assert np.median(alike) > 0.85
