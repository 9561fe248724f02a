"""Oulu-CASIA in every tree that people have, with its options and traps."""

import os

import pytest

from fer_fast.data import open_dataset
from fer_fast.data.detect import find_dataset
from fer_fast.data.opened import Wanted
from fer_fast.data.sources.oulu_casia import EXPRESSIONS, INFO, read_oulu_casia
from fer_fast.data.splits import folds_of
from fer_fast.errors import InputError
from frames_on_disk import write_picture

WORDS = ("Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise")
ORIGINAL = [
    "OriginalImg",
    "B_OriginalImg/OriginalImg",
    "B_OriginalImg/B_OriginalImg/OriginalImg",
    "Oulu_CASIA_NIR_VIS/B_OriginalImg/OriginalImg",
    "Oulu_CASIA_NIR_VIS/B_OriginalImg/B_OriginalImg/OriginalImg",
]
CUT = ["PreProcess_Img", "PreProcessImg", "PreProcess", "Oulu_CASIA_NIR_VIS/PreProcess_Img"]


def write(root, tree, *, subjects=2, frames=5, ending=".jpeg", empty=True):
    for subject in range(1, subjects + 1):
        for number, word in enumerate(WORDS):
            folder = root / tree / f"P{subject:03d}" / word
            folder.mkdir(parents=True)
            for frame in range(frames):
                path = folder / f"{frame:03d}{ending}"
                path.touch() if empty else write_picture(path, 40 * number, width=32, height=24, gray=False)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path / "cache"))


def test_the_published_copy_is_clean(tmp_path):
    write(tmp_path, "B_OriginalImg/OriginalImg/VL/Strong", subjects=80)
    listing = read_oulu_casia(tmp_path)
    listing.compare(INFO.published)
    assert listing.faults == listing.problems == listing.notes == []
    assert not listing.ignored
    assert (listing.sure, listing.sequences, len(listing.parts["all"])) == (True, 480, 1440)
    assert listing.counts()["all"] == dict.fromkeys(EXPRESSIONS, 240)
    folds, subjects = folds_of(listing.parts["all"]), listing.parts["all"].subjects
    for fold in range(10):  # subjects[fold::10]
        expected = {f"P{number:03d}" for number in range(fold + 1, 81, 10)}
        assert {subject for subject, i in zip(subjects, folds.tolist(), strict=True) if i == fold} == expected


@pytest.mark.parametrize("parent", ORIGINAL)
def test_original_trees_are_found_and_need_the_face_found(tmp_path, parent):
    write(tmp_path, f"{parent}/VL/Strong")
    listing = read_oulu_casia(tmp_path)
    assert listing.layout == "original pictures, VL/Strong, last three frames"
    assert listing.faces == "align"
    assert find_dataset(tmp_path)[0].name == "oulu-casia"
    assert listing.parts["all"].names[0] == f"{parent}/VL/Strong/P001/Anger/002.jpeg"
    inner = read_oulu_casia(tmp_path / parent)
    assert inner.parts["all"].groups == listing.parts["all"].groups


@pytest.mark.parametrize("parent", CUT)
def test_cropped_trees_are_found_and_taken_as_they_are(tmp_path, parent):
    write(tmp_path, f"{parent}/VL_Acropped/Strong")
    listing = read_oulu_casia(tmp_path)
    assert listing.layout == "cropped pictures, VL_Acropped/Strong, last three frames"
    assert listing.faces == "whole"
    assert find_dataset(tmp_path)[0].name == "oulu-casia"


def test_labels_subjects_and_sequences_come_from_folders(tmp_path):
    write(tmp_path, "OriginalImg/VL/Strong")
    part = read_oulu_casia(tmp_path).parts["all"]
    shown = list(zip(part.groups, part.subjects, (EXPRESSIONS[i] for i in part.labels), strict=True))
    assert shown[::3] == [(f"P00{i}/{word}", f"P00{i}", word.lower()) for i in (1, 2) for word in WORDS]
    assert shown[::3] == shown[1::3] == shown[2::3]


def test_the_original_pictures_come_first_and_an_option_decides(tmp_path):
    write(tmp_path, "B_OriginalImg/OriginalImg/VL/Strong")
    write(tmp_path, "PreProcess_Img/VL_Acropped/Strong")
    assert read_oulu_casia(tmp_path).layout.startswith("original")
    assert read_oulu_casia(tmp_path, cropped=False).layout.startswith("original")
    assert read_oulu_casia(tmp_path, cropped=True).layout.startswith("cropped")


@pytest.mark.parametrize("light", ["VL", "NI"])
@pytest.mark.parametrize("strength", ["Strong", "Weak", "Dark"])
def test_light_and_strength_are_options(tmp_path, light, strength):
    for other in ("Strong", "Weak", "Dark"):
        write(tmp_path, f"OriginalImg/VL/{other}", subjects=1)
        write(tmp_path, f"OriginalImg/NI/{other}", subjects=1)
    listing = read_oulu_casia(tmp_path, light=light, strength=strength)
    assert len(listing.parts["all"]) == 18
    assert all(f"/{light}/{strength}/" in name for name in listing.parts["all"].names)


def test_what_a_copy_lacks_and_what_does_not_exist_is_named(tmp_path):
    write(tmp_path, "OriginalImg/VL/Strong")
    write(tmp_path, "PreProcess/NI_Acropped/Dark")
    with pytest.raises(InputError, match=r"no VL/Dark of Oulu-CASIA; it has: NI_Acropped/Dark, VL/Strong"):
        read_oulu_casia(tmp_path, strength="Dark")
    with pytest.raises(InputError, match=r"no cropped VL/Strong of Oulu-CASIA; it has"):
        read_oulu_casia(tmp_path, cropped=True)
    with pytest.raises(InputError, match=r"light is 'UV'; allowed for oulu-casia: VL, NI"):
        read_oulu_casia(tmp_path, light="UV")
    with pytest.raises(InputError, match=r"strength is 'strong'; allowed for oulu-casia: Strong, Weak, Dark"):
        open_dataset("oulu-casia", tmp_path, Wanted(options={"strength": "strong"}))


def test_an_empty_or_missing_or_short_sequence_is_a_problem(tmp_path):
    write(tmp_path, "OriginalImg/VL/Strong")
    tree = tmp_path / "OriginalImg/VL/Strong"
    for name in ("P001/Fear", "P002/Sadness", "P002/Surprise"):
        for path in sorted((tree / name).iterdir())[: 4 if name == "P002/Sadness" else 5]:
            path.unlink()
    (tree / "P002/Surprise").rmdir()
    listing = read_oulu_casia(tmp_path)
    assert listing.problems == ["3 sequences have fewer than 3 frames, the first: P001/Fear (0)"]
    assert listing.sequences == 10
    assert len(listing.parts["all"]) == 9 * 3 + 1
    listing.compare(INFO.published)
    assert "all has 28 images where 1440 were published" in listing.problems[1]


def test_last_frames_are_by_name_whatever_the_ending(tmp_path):
    write(tmp_path, "OriginalImg/VL/Strong", subjects=1, frames=12, ending=".JPG")
    names = read_oulu_casia(tmp_path).parts["all"].names
    assert [name[-7:] for name in names[:3]] == ["009.JPG", "010.JPG", "011.JPG"]


def test_litter_and_links_are_left_aside(tmp_path):
    root = tmp_path / "oulu"
    write(root, "OriginalImg/VL/Strong", subjects=1)
    write(tmp_path / "elsewhere", "X", subjects=2)
    tree = root / "OriginalImg/VL/Strong"
    os.symlink(tmp_path / "elsewhere/X/P002", tree / "P002")
    for folder in (tree, tree / "P001", tree / "P001/Fear"):
        (folder / ".DS_Store").touch()
        (folder / "Thumbs.db").touch()
    (tree / "P001/Fear/._004.jpeg").touch()
    (tree / "P001/Neutral").mkdir()
    (tree / "notes").mkdir()
    listing = read_oulu_casia(root)
    assert listing.problems == listing.faults == []
    assert len(listing.parts["all"]) == 18
    assert listing.ignored["folders that are no subject (P001)"] == 1
    assert listing.ignored["folders that are no expression of Oulu-CASIA, or one again"] == 1


def test_a_copy_without_a_picture_is_an_error_and_another_folder_none_of_it(tmp_path):
    write(tmp_path / "empty", "OriginalImg/VL/Strong", frames=0)
    with pytest.raises(InputError, match="has no sequence of Oulu-CASIA with images"):
        read_oulu_casia(tmp_path / "empty")
    (tmp_path / "other/VL/Bright").mkdir(parents=True)
    assert read_oulu_casia(tmp_path / "other") is None
    assert read_oulu_casia(tmp_path / "empty/OriginalImg/VL/Strong/P001") is None


@pytest.mark.filterwarnings("ignore:oulu-casia in .* published")
def test_pictures_are_decoded_and_folds_share_no_one(tmp_path):
    write(tmp_path, "PreProcess_Img/VL_Acropped/Strong", subjects=11, frames=3, empty=False)
    copy = open_dataset("oulu-casia", tmp_path, Wanted(fold=1, channels=3, image_size=24))
    splits = {split: copy.split(split) for split in ("train", "val", "test")}
    assert {split: len(data) for split, data in splits.items()} == {"train": 8 * 18, "val": 18, "test": 2 * 18}
    assert sorted({name.split("/")[3] for name in splits["test"].names}) == ["P001", "P011"]
    assert splits["val"].images.shape == (18, 3, 24, 24)
    assert splits["test"].class_counts().tolist() == [6] * 6
