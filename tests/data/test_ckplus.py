"""CK+ in every form that people have: the official trees, CK+48 and ckextended.csv, with their traps."""

import itertools
import os
import random

import numpy as np
import pytest

from fer_fast.data import open_dataset
from fer_fast.data.detect import find_dataset
from fer_fast.data.opened import Wanted
from fer_fast.data.sources.ckplus import INFO, NUMBERED, SEQUENCES, TABLE_IMAGES, TABLE_NUMBERED, read_ckplus
from fer_fast.data.splits import FOLDS, folds_of, manifest
from fer_fast.errors import InputError
from frames_on_disk import picture, refuse, write_picture

TREES = [  # where images and labels lie below the folder that is given
    ("cohn-kanade-images", "Emotion"),
    ("cohn-kanade-images", "Emotion_labels/Emotion"),
    ("extended-cohn-kanade-images/cohn-kanade-images", "Emotion_labels/Emotion"),
    ("CK+/extended-cohn-kanade-images/cohn-kanade-images", "CK+/Emotion"),
    ("CK+/cohn-kanade-images", "CK+/Emotion_labels/Emotion"),
    ("cohn-kanade/cohn-kanade-images", "cohn-kanade/Emotion"),
]


pytestmark = pytest.mark.filterwarnings("ignore:ckplus in .* published")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path / "cache"))


def sequence(root, name, emotion, frames=(1, 2, 4, 5), trees=TREES[0], text="   {:.7e}\n", empty=True):
    """One sequence S005/001 of these frame numbers; `emotion` None leaves an empty folder where the label would be."""
    images, labels = (root / tree / name for tree in trees)
    stem = name.replace("/", "_")
    images.mkdir(parents=True, exist_ok=True)
    for number in frames:
        path = images / f"{stem}_{number:08d}.png"
        path.touch() if empty else write_picture(path, 10 * number, width=64, height=49)
    labels.mkdir(parents=True, exist_ok=True)
    if emotion is not None:
        (labels / f"{stem}_{max(frames, default=1):08d}_emotion.txt").write_text(text.format(float(emotion)))


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """All 593 sequences of 123 people, 327 of 118 people labelled as published; names only."""
    root = tmp_path_factory.mktemp("ck")
    emotions = [NUMBERED.index(name) for name, n in SEQUENCES.items() for _ in range(n)]
    random.Random(0).shuffle(emotions)
    subjects = [f"S{number:03d}" for number in random.Random(1).sample(range(5, 1000), 123)]
    numbers = dict.fromkeys(subjects, 0)
    for i in range(593):
        subject = subjects[i % 118] if i < 327 else subjects[i % 123]
        numbers[subject] += 1
        sequence(root, f"{subject}/{numbers[subject]:03d}", emotions[i] if i < 327 else None)
    return root


def test_the_published_copy_is_clean(official):
    listing = read_ckplus(official)
    assert (listing.sure, listing.faults, listing.problems, listing.notes) == (True, [], [], [])
    assert (listing.sequences, listing.unlabelled) == (327, 266)
    listing.compare(INFO.published)
    assert listing.problems == []
    assert listing.counts()["all"] == {name: 3 * n for name, n in SEQUENCES.items()}
    assert sum(listing.counts()["all"].values()) == 981
    assert len(set(listing.parts["all"].subjects)) == 118


def test_folds_are_by_subject_and_hold_every_sequence_once(official):
    listing = read_ckplus(official)
    part = listing.parts["all"]
    subjects, folds = sorted(set(part.subjects)), folds_of(part)
    assert folds.tolist() == [subjects.index(subject) % FOLDS for subject in part.subjects]
    assert sum(len(about["subjects"]) for about in manifest(listing).values()) == 118
    assert len({(group, fold) for group, fold in zip(part.groups, folds.tolist(), strict=True)}) == 327


@pytest.mark.parametrize("trees", TREES)
def test_every_tree_is_found(tmp_path, trees):
    sequence(tmp_path, "S005/001", 3, trees=trees)
    sequence(tmp_path, "S010/002", 5, trees=trees)
    sequence(tmp_path, "S010/003", None, trees=trees)
    part = read_ckplus(tmp_path).parts["all"]
    assert part.groups == ("S005/001",) * 3 + ("S010/002",) * 3
    assert part.subjects == ("S005",) * 3 + ("S010",) * 3
    assert [INFO.classes[label] for label in part.labels] == ["disgust"] * 3 + ["happiness"] * 3


def test_frames_are_the_last_three_by_name_and_numbers_may_have_gaps(tmp_path):
    sequence(tmp_path, "S005/001", 1, frames=(1, 2, 9, 10, 11, 30))
    names = read_ckplus(tmp_path).parts["all"].names
    assert names == tuple(f"cohn-kanade-images/S005/001/S005_001_{n:08d}.png" for n in (10, 11, 30))


@pytest.mark.parametrize("number", range(1, 8))
def test_every_number_has_its_name(tmp_path, number):
    sequence(tmp_path, "S005/001", number)
    assert {INFO.classes[label] for label in read_ckplus(tmp_path).parts["all"].labels} == {NUMBERED[number]}


@pytest.mark.parametrize("text", ["   3.0000000e+00\n", "3", "3.0\r\n", "\ufeff 3.0e0 "])
def test_numbers_are_floats_in_text(tmp_path, text):
    sequence(tmp_path, "S005/001", 3, text=text)
    assert {INFO.classes[label] for label in read_ckplus(tmp_path).parts["all"].labels} == {"disgust"}


@pytest.mark.parametrize("text", ["", "2.5", "nan", "inf", "-1", "8", "happy", "3 4", "\0\0", "9" * 5000])
def test_what_is_no_emotion_is_a_fault_by_name(tmp_path, text):
    sequence(tmp_path, "S005/001", 3)
    sequence(tmp_path, "S006/001", 3, text=text)
    listing = read_ckplus(tmp_path)
    (fault,) = listing.faults
    assert "S006_001_00000005_emotion.txt: emotion is" in fault
    assert "\n" not in fault
    assert len(fault) < 400
    assert set(listing.parts["all"].subjects) == {"S005"}
    with pytest.raises(InputError, match=r"S006_001_00000005_emotion\.txt"):
        open_dataset("ckplus", tmp_path)


def test_a_label_that_may_not_be_read_is_a_fault_by_name(tmp_path, monkeypatch):
    sequence(tmp_path, "S005/001", 3)
    sequence(tmp_path, "S006/001", 3)
    refuse(monkeypatch, "S006_001_00000005_emotion.txt")
    (fault,) = read_ckplus(tmp_path).faults
    assert fault.endswith("S006_001_00000005_emotion.txt cannot be read: Permission denied")


def test_a_sequence_labelled_neutral_is_counted_and_left_aside(tmp_path):
    sequence(tmp_path, "S005/001", 0)
    sequence(tmp_path, "S005/002", 7)
    listing = read_ckplus(tmp_path)
    assert listing.ignored == {"sequences labelled neutral, which is no class of CK+": 1}
    assert set(listing.parts["all"].groups) == {"S005/002"}


def test_a_label_of_another_sequence_is_a_fault(tmp_path):
    sequence(tmp_path, "S005/001", 3)
    sequence(tmp_path, "S005/002", 4)
    folder = tmp_path / "Emotion/S005"
    (folder / "001/S005_001_00000005_emotion.txt").rename(folder / "002/S005_001_00000005_emotion.txt")
    (fault,) = read_ckplus(tmp_path).faults
    assert "named after another sequence" in fault


def test_two_label_trees_may_agree_and_must_not_differ(tmp_path):
    sequence(tmp_path, "S005/001", 3)
    sequence(tmp_path, "S005/001", 3, trees=TREES[1])
    assert read_ckplus(tmp_path).faults == []
    sequence(tmp_path, "S005/001", 4, trees=TREES[1])
    (fault,) = read_ckplus(tmp_path).faults
    assert "emotion is 4; another file says 3" in fault


def test_short_sequences_and_labels_without_images_are_problems(tmp_path):
    sequence(tmp_path, "S005/001", 3)
    sequence(tmp_path, "S006/001", 3, frames=(1, 2))
    sequence(tmp_path, "S007/001", 3, frames=())
    sequence(tmp_path, "S008/001", 3)
    for path in (tmp_path / "cohn-kanade-images/S008/001").iterdir():
        path.unlink()
    (tmp_path / "cohn-kanade-images/S008/001").rmdir()
    listing = read_ckplus(tmp_path)
    assert listing.problems == [
        "1 sequences have a label and no folder of images, the first: S008/001",
        "2 sequences have fewer than 3 frames, the first: S006/001 (2)",
    ]
    assert len(listing.parts["all"]) == 5
    assert listing.sequences == 2


def test_a_sequence_cut_before_its_peak_is_noted(tmp_path):
    sequence(tmp_path, "S005/001", 3, frames=(1, 2, 3, 4, 5))
    (tmp_path / "cohn-kanade-images/S005/001/S005_001_00000005.png").unlink()
    assert read_ckplus(tmp_path).notes == [
        "1 sequences do not end with the frame that their label is named after, the first: S005/001 "
        "(S005_001_00000004.png)"
    ]


def test_litter_is_left_aside(tmp_path):
    sequence(tmp_path, "S005/001", 3)
    images, labels = tmp_path / "cohn-kanade-images", tmp_path / "Emotion"
    for folder in (images, images / "S005", images / "S005/001", labels / "S005/001"):
        for name in (".DS_Store", "Thumbs.db", "._S005_001_00000005.png", "._S005_001_00000005_emotion.txt"):
            (folder / name).write_bytes(b"\0\5\x16\7")
    (images / "ReadMe.txt").touch()
    (labels / "S999/001").mkdir(parents=True)
    listing = read_ckplus(tmp_path)
    assert listing.faults == listing.problems == []
    assert len(listing.parts["all"]) == 3


def test_endings_may_be_upper_case(tmp_path):
    sequence(tmp_path, "S005/001", 3)
    for path in list((tmp_path / "cohn-kanade-images/S005/001").iterdir()):
        path.rename(path.with_suffix(".PNG"))
    label = tmp_path / "Emotion/S005/001/S005_001_00000005_emotion.txt"
    label.rename(label.with_suffix(".TXT"))
    assert len(read_ckplus(tmp_path).parts["all"]) == 3


def test_links_out_of_the_tree_are_not_followed(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "ck"
    sequence(root, "S005/001", 3)
    sequence(outside, "S006/001", 3)
    os.symlink(outside / "cohn-kanade-images/S006", root / "cohn-kanade-images/S006")
    os.symlink(outside / "Emotion/S006", root / "Emotion/S006")
    secret = tmp_path / "secret.txt"
    secret.write_text("5.0")
    os.symlink(secret, root / "Emotion/S005/001/S005_001_00000004_emotion.txt")
    listing = read_ckplus(root)
    assert set(listing.parts["all"].subjects) == {"S005"}
    assert listing.faults == []


@pytest.mark.parametrize(("kept", "missing"), [("cohn-kanade-images", "Emotion"), ("Emotion", "cohn-kanade-images")])
def test_half_a_copy_is_an_error_that_names_the_other_half(tmp_path, kept, missing):
    sequence(tmp_path / "whole", "S005/001", 3)
    (tmp_path / "half").mkdir()
    (tmp_path / "whole" / kept).rename(tmp_path / "half" / kept)
    for root in (tmp_path / "half", tmp_path / "half" / kept):
        with pytest.raises(InputError, match=f"CK\\+ without.*{missing}"):
            read_ckplus(root)


def test_a_copy_without_one_label_is_an_error(tmp_path):
    sequence(tmp_path, "S005/001", None)
    with pytest.raises(InputError, match="no labelled sequence"):
        read_ckplus(tmp_path)


def test_gray_and_colour_frames_are_decoded_at_one_size(tmp_path):
    for subject in range(12):
        sequence(tmp_path, f"S{subject:03d}/001", 1 + subject % 7, empty=False)
    write_picture(tmp_path / "cohn-kanade-images/S000/001/S000_001_00000005.png", 200, width=64, height=49, gray=False)
    copy = open_dataset("ckplus", tmp_path, Wanted(faces="whole", fold=2))
    test = copy.split("test")
    assert test.images.shape == (6, 1, 64, 64)
    assert sorted({name.split("/")[1] for name in test.names}) == ["S001", "S011"]
    assert any(line.startswith("fold 2 has no ") and line.endswith("over the classes present") for line in test.notes)
    colour = open_dataset("ckplus", tmp_path, Wanted(faces="whole", channels=3, image_size=48)).split("test")
    assert colour.images.shape[1:] == (3, 48, 48)
    last = colour.images[2]
    assert (last[0] != last[1]).any()


# CK+48


def small(root, name, stem, value=100):
    return write_picture(root / name / f"{stem}.png", value)


@pytest.mark.parametrize("parent", ["", "CK+48", "CK+/CK+48", "data"])
def test_ck48_takes_subjects_and_sequences_from_names(tmp_path, parent):
    words = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
    for i, word in enumerate(words):
        for frame in (15, 16, 17):
            small(tmp_path / parent, word, f"S{10 + i:03d}_004_{frame:08d}", frame)
    listing = read_ckplus(tmp_path)
    assert (listing.sure, listing.sequences, listing.faces) == (True, 7, "whole")
    part = listing.parts["all"]
    assert sorted(set(part.subjects)) == [f"S{10 + i:03d}" for i in range(7)]
    named = {(group, listing.classes[label]) for group, label in zip(part.groups, part.labels.tolist(), strict=True)}
    assert named == {(f"S{10 + i:03d}/004", "happiness" if word == "happy" else word) for i, word in enumerate(words)}


def test_ck48_names_without_a_subject_are_faults(tmp_path):
    small(tmp_path, "fear", "S010_004_00000017")
    small(tmp_path, "anger", "S010_005_00000017")
    small(tmp_path, "anger", "image12")
    (fault,) = read_ckplus(tmp_path).faults
    assert "image12.png: its name does not tell the subject" in fault


def test_a_ck48_sequence_in_two_classes_is_a_problem(tmp_path):
    small(tmp_path, "fear", "S010_004_00000017")
    small(tmp_path, "anger", "S010_004_00000018")
    assert read_ckplus(tmp_path).problems == [
        "1 sequences lie in several folders of classes, the first: S010/004",
        "2 sequences have fewer than 3 frames, the first: S010/004 (1)",
    ]


def test_class_folders_of_another_dataset_are_left_alone(tmp_path):
    small(tmp_path, "fear", "Training_123")
    small(tmp_path, "anger", "Training_124")
    assert read_ckplus(tmp_path) is None
    assert read_ckplus(tmp_path / "fear") is None


# ckextended.csv


def table(path, rows, header="emotion,pixels,Usage"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def row(emotion, usage="Training", value=100):
    return f"{emotion},{' '.join(map(str, picture(value).ravel()))},{usage}"


def published_rows():
    numbers = [TABLE_NUMBERED.index(name) for name, n in TABLE_IMAGES.items() for _ in range(n)]
    usages = itertools.cycle(["Training"] * 8 + ["PublicTest", "PrivateTest"])
    return [f"{number},0,{usage}" for number, usage in zip(numbers, usages, strict=False)]


@pytest.mark.parametrize("given", ["", "ckextended.csv"])
def test_ckextended_has_eight_classes_and_no_subjects(tmp_path, given):
    table(tmp_path / "ckextended.csv", published_rows())
    listing = read_ckplus(tmp_path / given)
    assert listing.faults == listing.problems == []
    assert [len(listing.parts[name]) for name in ("train", "val", "test")] == [736, 92, 92]
    totals = np.sum([list(counts.values()) for counts in listing.counts().values()], 0)
    assert dict(zip(listing.classes, totals.tolist(), strict=True)) == TABLE_IMAGES
    assert all(part.subjects is None for part in listing.parts.values())
    assert any("does not say who is in a picture" in note for note in listing.notes)


def test_folds_of_ckextended_are_an_error_that_says_why(tmp_path):
    table(tmp_path / "ckextended.csv", [row(n, usage) for n in range(8) for usage in ("Training", "PrivateTest")])
    with pytest.warns(UserWarning, match="who is in a picture"):
        copy = open_dataset("ckplus", tmp_path, Wanted(fold=3))
    with pytest.raises(InputError, match="does not say who is in a picture, so there are no folds by subject"):
        copy.split("test")


@pytest.mark.filterwarnings("ignore:.*who is in a picture")
def test_pixels_of_ckextended_are_decoded(tmp_path):
    table(tmp_path / "ckextended.csv", [row(n, u, 100 + n) for n in range(8) for u in ("Training", "PrivateTest")])
    test = open_dataset("ckplus", tmp_path, Wanted(image_size=48)).split("test")
    assert test.images.shape == (8, 1, 48, 48)
    assert (test.images[3][0].numpy() == picture(103)).all()
    assert [test.classes[label] for label in test.labels] == list(TABLE_NUMBERED)


def test_bad_rows_of_ckextended_are_faults_by_line(tmp_path):
    table(tmp_path / "ckextended.csv", [row(0), row(8), row("x"), row(1, "Sometimes")])
    faults = read_ckplus(tmp_path).faults
    assert [fault.split(": ", 1)[1] for fault in faults] == [
        "line 3: emotion is '8'; allowed: 0 to 7",
        "line 4: emotion is 'x'; allowed: 0 to 7",
        "line 5: usage is 'Sometimes'; allowed: Training, PublicTest, PrivateTest",
    ]


def test_other_counts_than_published_are_problems(tmp_path):
    table(tmp_path / "ckextended.csv", [r for r in published_rows() if not r.startswith("7")])
    assert read_ckplus(tmp_path).problems == ["all has 902 images where 920 were published: contempt 0 (published 18)"]


def test_a_table_without_usage_is_one_part(tmp_path):
    table(tmp_path / "ckextended.csv", [row(n).rsplit(",", 1)[0] for n in range(8)], "emotion,pixels")
    assert {name: len(part) for name, part in read_ckplus(tmp_path).parts.items()} == {"all": 8}


def test_data_check_knows_every_form(tmp_path):
    sequence(tmp_path / "official", "S005/001", 3)
    for word in ("anger", "fear", "contempt"):
        small(tmp_path / "small/CK+48", word, f"S01{len(word)}_004_00000017")
    table(tmp_path / "table/ckextended.csv", published_rows())
    for given in ("official", "small", "small/CK+48", "table", "table/ckextended.csv"):
        assert find_dataset(tmp_path / given)[0].name == "ckplus"


def test_another_csv_is_left_alone(tmp_path):
    assert read_ckplus(table(tmp_path / "fer2013.csv", [row(0)])) is None
    assert read_ckplus(tmp_path) is None
    assert read_ckplus(table(tmp_path / "ck_notes.csv", ["a,b"], "name,text")) is None
