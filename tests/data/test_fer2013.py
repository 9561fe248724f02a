"""FER2013 in every layout people have, and hostile copies of it."""

import csv
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fer2013_trees import (
    COUNTS,
    PLACES,
    SPLIT_OF_WORD,
    add_member,
    contents,
    expected,
    named_table,
    pixels,
    png,
    rows,
    write_arrow,
    write_csv,
    write_folders,
    write_packed,
    write_parquet,
    write_shards,
    write_tables,
    write_whole,
)
from fer_fast.data import load_dataset
from fer_fast.data.sources.fer2013 import read_fer2013
from fer_fast.errors import InputError

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "fer2013.zip"

# Small copies differ from the published counts, which is told by a warning.
pytestmark = pytest.mark.filterwarnings("ignore:fer2013 in")


LAYOUTS = {
    "fer2013.csv": write_whole,
    "with a BOM and CRLF": lambda root: write_whole(root, encoding="utf-8-sig", lineterminator="\r\n"),
    "all in quotes": lambda root: write_whole(root, quoting=csv.QUOTE_ALL),
    "icml_face_data.csv": lambda root: write_whole(root, "icml_face_data.csv"),
    "tables": write_tables,
    "packed": write_packed,
    "folders": lambda root: write_folders(root, PLACES),
    "folders without prefixes": lambda root: write_folders(root, PLACES, "{number}.png"),
    "folders with a mixed test": lambda root: write_folders(root, PLACES | {"val": "test"}),
    "upper-case endings": lambda root: write_folders(root, PLACES, "{usage}_{number}.PNG"),
    "folders of classes alone": lambda root: write_folders(root, dict.fromkeys(COUNTS, "")),
    "a folder around it": lambda root: write_whole(root / "fer2013"),
    "two folders around it": lambda root: write_folders(root / "archive" / "FER-2013", PLACES),
    "parquet with names": lambda root: write_parquet(
        root, {word: named_table(split) for word, split in SPLIT_OF_WORD.items()}
    ),
    "arrow": lambda root: [
        write_arrow(root / word / "data-00000-of-00001.arrow", named_table(split))
        for word, split in SPLIT_OF_WORD.items()
    ],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_data(layout, tmp_path):
    LAYOUTS[layout](tmp_path)
    for split in COUNTS:
        assert contents(tmp_path, split) == expected(split)


def test_the_csv_or_archive_itself_can_be_named(tmp_path):
    assert contents(write_whole(tmp_path / "a", "mine.csv"), "train") == expected("train")
    assert contents(write_packed(tmp_path), "test") == expected("test")
    assert read_fer2013(write_whole(tmp_path)).sure
    assert not read_fer2013(tmp_path / "a" / "mine.csv").sure  # ckextended.csv has such columns too


def test_size_and_channels_on_request(tmp_path):
    write_whole(tmp_path)
    assert load_dataset("fer2013", tmp_path, image_size=32, channels=3).images.shape == (21, 3, 32, 32)


def test_shards_of_webdataset(tmp_path):
    write_shards(tmp_path)
    assert contents(tmp_path, "train") | contents(tmp_path, "val") == expected("train")
    assert contents(tmp_path, "test") == expected("test")
    listing = read_fer2013(tmp_path)
    assert listing.parts["train"].names[0] == "train/0.tar:s00.png"
    assert not listing.sure
    (tmp_path / "test").rename(tmp_path / "extra")
    listing = read_fer2013(tmp_path)
    assert (list(listing.parts), listing.ignored) == (["train"], {"images of no known part": 7})
    (tmp_path / "train" / "3.tar").unlink()
    assert any("train holds 3 shards where nshards.txt says 4" in line for line in read_fer2013(tmp_path).problems)


def test_faults_of_shards_are_named(tmp_path):
    write_shards(tmp_path)
    with tarfile.open(tmp_path / "train" / "0.tar", "w") as tar:
        add_member(tar, "alone.png", png(rows("train")[0][1]))
        add_member(tar, "word.png", png(rows("train")[0][1]))
        add_member(tar, "word.cls", b"happy")
        add_member(tar, "blind.cls", b"3")
        add_member(tar, "far.png", png(rows("train")[0][1]))
        add_member(tar, "far.cls", b"8")
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    faults = read_fer2013(tmp_path).faults
    where = tmp_path / "train" / "0.tar"
    assert faults[:3] == [f"{where}: alone: no class", f"{where}: word: no class", f"{where}: blind: no picture"]
    assert len(faults) == 4
    assert faults[3].startswith(f"{tmp_path}: 8 is no class; allowed: neutral")
    with (tmp_path / "train" / "1.tar").open("r+b") as file:
        file.truncate(3000)
    with pytest.raises(InputError, match=r"1\.tar is not a tar that can be read"):
        read_fer2013(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((7, pixels(rows("val")[0][1]), "Training"), "emotion is '7'; allowed: 0 to 6 or a class name"),
        (("", pixels(rows("val")[0][1]), "Training"), "emotion is ''"),
        (("contempt", pixels(rows("val")[0][1]), "Training"), "emotion is 'contempt'"),
        ((0, pixels(rows("val")[0][1]), "Secret"), "Usage is 'Secret'; allowed: Training, PublicTest, PrivateTest"),
        ((0,), "Usage is ''"),
    ],
)
def test_a_corrupt_row_is_named(row, message, tmp_path):
    path = write_whole(tmp_path)
    with path.open("a", newline="") as file:
        csv.writer(file).writerow(row)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset("fer2013", tmp_path)
    assert f"{path}: line 37: " in str(caught.value)
    assert "\n" not in str(caught.value)
    listing = read_fer2013(tmp_path)
    assert len(listing.faults) == 1
    assert sum(map(len, listing.parts.values())) == 35


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3", "3 pixels; allowed: 2304"),
        ("", "0 pixels"),
        ("256 " * 2304, "pixels that are no whole numbers from 0 to 255"),
        ("-1 " * 2304, "pixels that are no whole numbers"),
    ],
)
def test_corrupt_pixels_are_found_when_they_are_decoded(text, message, tmp_path):
    path = write_whole(tmp_path)
    with path.open("a", newline="") as file:
        csv.writer(file).writerow((0, text, "Training"))
    with pytest.raises(
        InputError, match=rf"1 of 22 train images cannot be read, the first: fer2013\.csv:37: {message}"
    ):
        load_dataset("fer2013", tmp_path)
    assert len(load_dataset("fer2013", tmp_path, unreadable="skip")) == 21
    assert len(load_dataset("fer2013", tmp_path, split="test")) == 7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column 'pixels' in the first line; needed: emotion, usage, pixels"),
        (b"emotion,Usage\n0,Training\n", "no column 'pixels'"),
        (b"emotion,pixels\n0,1 2\n", "no column 'usage'"),
        (b"\xff\xfe\x00e\x00m", "no column 'pixels'"),
        (b"emotion,pixels,Usage\n", "has no train images"),
        (b"emotion,pixels,Usage\n0," + b"1 " * 600_000 + b",Training\n", "line 2 begins a row of over a megabyte"),
        (b'emotion,pixels,Usage\n0,"' + b"1\n" * 100 + b'",Training\n', "line 2 begins a row of .* or 64 lines"),
        (b"emotion,pixels,Usage\n" + b" " * 500_000 + b'"x"y' + b" " * 500_000, "emotion is ''"),
    ],
)
def test_a_hostile_csv(content, message, tmp_path):
    (tmp_path / "fer2013.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_dataset("fer2013", tmp_path)


def test_a_list_of_another_dataset_is_passed_over(tmp_path):
    write_csv(tmp_path / "train.csv", ("image", "label"), [("a.jpg", "0")])
    assert read_fer2013(tmp_path) is None
    write_folders(tmp_path, PLACES)
    assert len(read_fer2013(tmp_path).parts["train"]) == 21


def test_a_corrupt_image_is_named(tmp_path):
    write_folders(tmp_path, {"train": "train", "val": "test", "test": "test"})
    broken = tmp_path / "train" / "sad" / "Training_x.jpg"
    for content in (b"", b"\xff\xd8\xff\xe0 no picture", b"<html>"):
        broken.write_bytes(content)
        with pytest.raises(InputError, match=r"train/sad/Training_x\.jpg"):
            load_dataset("fer2013", tmp_path)
    assert len(load_dataset("fer2013", tmp_path, split="test")) == 7


def test_an_unknown_class_folder_is_a_fault(tmp_path):
    write_folders(tmp_path, PLACES)
    bored = tmp_path / "train" / "bored"
    bored.mkdir()
    assert read_fer2013(tmp_path).faults == []
    (bored / "Training_1.png").write_bytes(png(rows("train")[0][1]))
    with pytest.raises(InputError, match="bored is no class; allowed: neutral, happiness"):
        load_dataset("fer2013", tmp_path)
    bored.rename(bored.with_name("contempt"))  # eight known classes: another dataset
    assert read_fer2013(tmp_path) is None


def test_clutter_is_passed_over(tmp_path):
    write_folders(tmp_path, PLACES)
    for name in (".DS_Store", "._Training_1.jpg", "Thumbs.db", "notes.txt"):
        (tmp_path / "train" / "sad" / name).write_bytes(b"x")
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "outside.png").write_bytes(png(rows("val")[0][1]))
    root = tmp_path.rename(tmp_path.with_name("copy"))
    (root / "outside.png").rename(root.parent / "outside.png")
    (root / "train" / "sad" / "Training_y.png").symlink_to(root.parent / "outside.png")
    listing = read_fer2013(root)
    assert len(listing.parts["train"]) == 21
    assert listing.ignored["links that lead out of the folder, or nowhere"] == 1
    assert listing.faults == []


def test_a_test_image_among_the_training_images_is_refused(tmp_path):
    write_folders(tmp_path, PLACES)
    (tmp_path / "train" / "sad" / "PrivateTest_9.png").write_bytes(png(np.zeros((48, 48), np.uint8)))
    with pytest.raises(InputError, match=r"PrivateTest_9\.png: a test image by its name, in the folder of train"):
        load_dataset("fer2013", tmp_path)


def test_nothing_known_in_the_folder(tmp_path):
    with pytest.raises(InputError, match="holds no fer2013; see `fer-fast data about fer2013`"):
        load_dataset("fer2013", tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        load_dataset("fer2013", tmp_path / "missing")
    (tmp_path / "fer2013.tar.gz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"fer2013\.tar\.gz cannot be unpacked"):
        load_dataset("fer2013", tmp_path)
    with tarfile.open(tmp_path / "fer2013.tar.gz", "w:gz") as tar:
        add_member(tar, "fer2013/README", b"")
    with pytest.raises(InputError, match=r"fer2013\.tar\.gz holds no fer2013\.csv"):
        load_dataset("fer2013", tmp_path)


@pytest.mark.skipif(not REAL.exists(), reason="the real FER2013 copy is not here")
def test_real_images(tmp_path):
    with zipfile.ZipFile(REAL) as archive:
        members = [name for name in archive.namelist() if name.endswith(".jpg")]
        archive.extractall(tmp_path, members[::40])
    train, val, test = (load_dataset("fer2013", tmp_path, split=split) for split in ("train", "val", "test"))
    assert len(train) + len(val) + len(test) == len(members[::40])
    assert all("/PublicTest_" in name for name in test.names)
    assert (test.class_counts() > 0).all()
    assert 80 < test.images[:].float().mean() < 180
