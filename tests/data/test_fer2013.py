"""FER2013 in every layout people have, hostile copies of it, and the report of `check`."""

import csv
import warnings
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fer_fast.data import CLASSES, load_dataset
from fer_fast.data.check import check
from fer_fast.data.fer2013 import parse_pixels
from fer_fast.errors import InputError

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "fer2013.zip"
NUMBERED = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
FOLDERS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
PREFIX = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}
COUNTS = {"train": 21, "val": 7, "test": 7}

# Small copies differ from the published counts, which is told by a warning; one test looks at it.
pytestmark = pytest.mark.filterwarnings("ignore:fer2013 in")


def rows(split):
    """(number of the class, image) of a split; images differ in every pixel between splits."""
    rng = np.random.default_rng(list(COUNTS).index(split))
    return [(i % 7, rng.integers(0, 256, (48, 48), dtype=np.uint8)) for i in range(COUNTS[split])]


def text(image):
    return " ".join(map(str, image.ravel()))


def write_csv(path, header, lines):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    return path


def write_single(root, name="fer2013.csv", splits=("train", "val", "test")):
    lines = [
        (label, text(image), PREFIX[split] if split != "train" else "Training")
        for split in splits
        for label, image in rows(split)
    ]
    if name == "icml_face_data.csv":
        return write_csv(root / name, ("emotion", " Usage", " pixels"), [(e, u, p) for e, p, u in lines])
    return write_csv(root / name, ("emotion", "pixels", "Usage"), lines)


def write_tables(root, splits=("train", "val", "test")):
    for split in splits:
        write_csv(root / f"{split}.csv", ("emotion", "pixels"), [(label, text(image)) for label, image in rows(split)])


def write_folders(root, place, prefix=PREFIX):
    """`place`: split -> folder it is put in."""
    for split, folder in place.items():
        for i, (label, image) in enumerate(rows(split)):
            path = root / folder / FOLDERS[label] / f"{prefix[split]}_{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image)


LAYOUTS = {
    "fer2013.csv": write_single,
    "icml_face_data.csv": lambda root: write_single(root, "icml_face_data.csv"),
    "tables": write_tables,
    "folders": lambda root: write_folders(root, {"train": "train", "val": "val", "test": "test"}),
    "folders with a mixed test": lambda root: write_folders(root, {"train": "train", "val": "test", "test": "test"}),
    "a folder fer2013": lambda root: ((root / "fer2013").mkdir(), write_single(root / "fer2013")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_data(layout, tmp_path):
    LAYOUTS[layout](tmp_path)
    for split in COUNTS:
        dataset = load_dataset("fer2013", tmp_path, split=split)
        assert dataset.classes == CLASSES[:7]
        assert dataset.split == split
        got = {(CLASSES[y], x.numpy().tobytes()) for x, y in zip(dataset.images, dataset.labels.tolist(), strict=True)}
        assert got == {(NUMBERED[label], image.tobytes()) for label, image in rows(split)}


def test_the_csv_itself_can_be_named(tmp_path):
    assert len(load_dataset("fer2013", write_single(tmp_path))) == COUNTS["train"]


def test_size_and_channels_on_request(tmp_path):
    write_single(tmp_path)
    assert load_dataset("fer2013", tmp_path, image_size=32, channels=3).images.shape == (21, 3, 32, 32)


@pytest.mark.parametrize("layout", ["csv", "tables", "folders"])
def test_without_validation_part_it_is_cut_from_training(layout, tmp_path):
    if layout == "csv":
        write_single(tmp_path, splits=("train", "test"))
    elif layout == "tables":
        write_tables(tmp_path, ("train", "test"))
    else:  # public test images alone in test/: they are what is reported
        write_folders(tmp_path, {"train": "train", "val": "test"})
    train, val = (load_dataset("fer2013", tmp_path, split=split, seed=3) for split in ("train", "val"))
    assert (len(train), len(val), len(load_dataset("fer2013", tmp_path, split="test"))) == (14, 7, 7)
    assert val.class_counts().tolist() == [1] * 7
    assert set(train.names).isdisjoint(val.names)
    assert load_dataset("fer2013", tmp_path, split="val", seed=3).digest() == val.digest()
    assert load_dataset("fer2013", tmp_path, split="val", seed=4).names != val.names


def test_joined_test_part_of_ad_corre(tmp_path):
    write_single(tmp_path)
    parts = {split: load_dataset("fer2013", tmp_path, split=split, joined=True) for split in COUNTS}
    assert {split: len(part) for split, part in parts.items()} == {"train": 14, "val": 7, "test": 14}
    alone = [load_dataset("fer2013", tmp_path, split=split).images for split in ("val", "test")]
    assert torch.equal(parts["test"].images, torch.cat(alone))


def test_joined_needs_both_parts(tmp_path):
    write_single(tmp_path, splits=("train", "test"))
    with pytest.raises(InputError, match="has no val images"):
        load_dataset("fer2013", tmp_path, split="test", joined=True)


def test_a_count_that_is_not_the_published_one_is_told(tmp_path):
    write_single(tmp_path)
    with pytest.warns(UserWarning, match="train has 21 images where 28709 were published"):
        load_dataset("fer2013", tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((7, text(rows("val")[0][1]), "Training"), "emotion is '7'; allowed: 0 to 6 or a class name"),
        (("", text(rows("val")[0][1]), "Training"), "emotion is ''"),
        ((0, "1 2 3", "Training"), "3 pixels; allowed: 2304"),
        ((0, "", "Training"), "0 pixels"),
        ((0, "256 " * 2304, "Training"), "no whole numbers from 0 to 255"),
        ((0, "-1 " * 2304, "Training"), "no whole numbers"),
        ((0, "1.5 " * 2304, "Training"), "no whole numbers"),
        ((0, "99999999999999999999 " * 2304, "Training"), "no whole numbers"),
        ((0, "nan " * 2304, "Training"), "no whole numbers"),
        ((0, text(rows("val")[0][1]), "Secret"), "Usage is 'Secret'; allowed: Training, PublicTest, PrivateTest"),
        ((0,), "1 fields; at least 3 are needed"),
    ],
)
def test_a_corrupt_row_is_named(row, message, tmp_path):
    path = write_single(tmp_path)
    with path.open("a", newline="") as file:
        csv.writer(file).writerow(row)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset("fer2013", tmp_path)
    assert f"{path}: line 37: " in str(caught.value)
    assert "\n" not in str(caught.value)
    report = check(tmp_path)
    assert any("line 37" in problem and message in problem for problem in report.problems)
    assert sum(report.counts["train"].values()) == 21


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column 'emotion' in the first line"),
        (b"emotion,Usage\n0,Training\n", "no column 'pixels'.*found: emotion, usage"),
        (b"\xff\xfe\x00e\x00m", "not a csv in UTF-8"),
        (b"emotion,pixels,Usage\n0," + b"1 " * 200_000 + b",Training\n", "not a csv|pixels; allowed"),
        (b"emotion,pixels,Usage\n", "has no train images"),
    ],
)
def test_a_hostile_csv(content, message, tmp_path):
    (tmp_path / "fer2013.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_dataset("fer2013", tmp_path)


def test_pixels_in_bulk_equal_pixels_row_by_row():
    good = [text(image) for _, image in rows("train")]
    bulk, none = parse_pixels(good)
    spaced = [good[0].replace(" ", "  "), *good[1:]]  # irregular: goes the slow way
    slow, also_none = parse_pixels(spaced)
    assert none == also_none == {}
    assert np.array_equal(bulk, slow)
    # A row too short beside one too long must not shift the pixels of either.
    short, long = good[0].rsplit(" ", 1)[0], good[1] + " 0"
    kept, faults = parse_pixels([short, long, good[2]])
    assert set(faults) == {0, 1}
    assert np.array_equal(kept, bulk[2:3])


def test_a_corrupt_image_is_named(tmp_path):
    write_folders(tmp_path, {"train": "train", "val": "test", "test": "test"})
    broken = tmp_path / "train" / "sad" / "Training_x.jpg"
    for content in (b"", b"\xff\xd8\xff\xe0 no picture", b"<html>"):
        broken.write_bytes(content)
        with pytest.raises(InputError, match=r"Training_x\.jpg"):
            load_dataset("fer2013", tmp_path)
    assert any("Training_x.jpg" in problem for problem in check(tmp_path).problems)
    assert len(load_dataset("fer2013", tmp_path, split="test")) == 7


def test_an_unknown_class_folder_is_named(tmp_path):
    write_folders(tmp_path, {"train": "train", "test": "test"})
    (tmp_path / "train" / "bored").mkdir()
    with pytest.raises(InputError, match="bored: unknown class folder; allowed: neutral, happiness"):
        load_dataset("fer2013", tmp_path)


def test_clutter_is_passed_over_and_other_sizes_are_told(tmp_path):
    write_folders(tmp_path, {"train": "train", "test": "test"})
    (tmp_path / "train" / "sad" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "train" / "sad" / "._Training_1.jpg").write_bytes(b"x")
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    cv2.imwrite(str(tmp_path / "train" / "sad" / "Training_big.png"), np.zeros((96, 60, 3), dtype=np.uint8))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        dataset = load_dataset("fer2013", tmp_path, split="train")
    assert dataset.images.shape[2:] == (48, 48)
    assert any("1 images are not 48×48" in str(w.message) and "60×96" in str(w.message) for w in told)


def test_a_test_image_among_the_training_images_is_refused(tmp_path):
    write_folders(tmp_path, {"train": "train", "test": "test"})
    cv2.imwrite(str(tmp_path / "train" / "sad" / "PrivateTest_9.png"), np.zeros((48, 48), dtype=np.uint8))
    with pytest.raises(InputError, match=r"PrivateTest_9\.png: a test image by its name, in the folder train"):
        load_dataset("fer2013", tmp_path)


def test_nothing_known_in_the_folder(tmp_path):
    with pytest.raises(InputError, match=r"holds no FER2013; known layouts: fer2013\.csv"):
        load_dataset("fer2013", tmp_path)
    with pytest.raises(InputError, match="none of the data sets that are read from a folder: fer2013"):
        check(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        check(tmp_path / "missing")


def test_check_counts_and_finds_images_in_two_splits(tmp_path):
    path = write_single(tmp_path)
    report = check(tmp_path)
    assert (report.dataset, report.layout) == ("fer2013", "fer2013.csv")
    assert report.counts["train"] == dict.fromkeys(CLASSES[:7], 3)
    assert len(report.problems) == 3  # the counts of the three splits
    assert report.digests["test"] == load_dataset("fer2013", tmp_path, split="test").digest()
    with path.open("a", newline="") as file:
        csv.writer(file).writerow((2, text(rows("test")[2][1]), "Training"))
    assert any("1 images of test are also in train" in p and "line" not in p for p in check(tmp_path).problems)


def test_check_names_missing_classes_and_shortens_long_lists(tmp_path):
    lines = [(0, "1 2 3", "Training")] * 50 + [(0, text(image), "Training") for _, image in rows("val")]
    write_csv(tmp_path / "fer2013.csv", ("emotion", "pixels", "Usage"), lines)
    report = check(tmp_path)
    assert len(report.problems) == 21
    assert report.problems[-1].endswith("more problems")
    write_csv(tmp_path / "fer2013.csv", ("emotion", "pixels", "Usage"), lines[50:])
    assert {"train has no image of disgust", "no test images"} <= set(check(tmp_path).problems)


@pytest.mark.skipif(not REAL.exists(), reason="the real FER2013 copy is not here")
def test_real_images(tmp_path):
    with zipfile.ZipFile(REAL) as archive:
        members = [name for name in archive.namelist() if name.endswith(".jpg")]
        archive.extractall(tmp_path, members[::40])
    train, val, test = (load_dataset("fer2013", tmp_path, split=split) for split in ("train", "val", "test"))
    assert len(train) + len(val) + len(test) == len(members[::40])
    assert all("/PublicTest_" in name for name in test.names)
    assert (test.class_counts() > 0).all()
    assert 80 < test.images.float().mean() < 180
