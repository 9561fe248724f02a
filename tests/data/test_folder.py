"""A folder of the user's own, with parts and without, tidy and hostile."""

import csv
import os
import zipfile
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_trees import draw, touch, write
from fer_fast.data import load_dataset
from fer_fast.data.files import JUNK
from fer_fast.data.labels import CLASSES
from fer_fast.data.sources.folder import read_folder
from fer_fast.data.splits import manifest
from fer_fast.errors import InputError


def grow(root, *paths):
    for path in paths:
        touch(root / path)
    return root


def rows(listing, part):
    taken = listing.parts[part]
    return {name: listing.classes[label] for name, label in zip(taken.names, taken.labels.tolist(), strict=True)}


def test_parts_and_sorted_classes(tmp_path):
    grow(tmp_path, "Train/wolf/1.jpg", "Train/cat/2.PNG", "valid/wolf/3.jpg", "testing/cat/4.bmp")
    listing = read_folder(tmp_path)
    assert (listing.classes, listing.sure, listing.faces) == (("cat", "wolf"), False, "whole")
    assert rows(listing, "train") == {"Train/cat/2.PNG": "cat", "Train/wolf/1.jpg": "wolf"}
    assert rows(listing, "val") == {"valid/wolf/3.jpg": "wolf"}
    assert rows(listing, "test") == {"testing/cat/4.bmp": "cat"}
    assert (listing.faults, listing.problems, listing.ignored) == ([], [], {})


@pytest.mark.parametrize("parent", ["", "mine", "a/b"])
def test_classes_alone_are_one_part(tmp_path, parent):
    grow(tmp_path / parent, "b/1.jpg", "a/2.jpg", "a/3.jpg")
    listing = read_folder(tmp_path)
    assert (listing.classes, list(listing.parts), listing.layout) == (("a", "b"), ["all"], "<class>/")
    prefix = f"{parent}/" if parent else ""
    assert rows(listing, "all") == {f"{prefix}a/2.jpg": "a", f"{prefix}a/3.jpg": "a", f"{prefix}b/1.jpg": "b"}


def test_known_names_become_canonical_where_all_are_known(tmp_path):
    grow(tmp_path, "train/Angry/1.jpg", "train/ happy/2.jpg", "train/no_expression/3.jpg", "test/ANGER/4.jpg")
    listing = read_folder(tmp_path)
    assert listing.classes == ("neutral", "happiness", "anger")
    assert listing.classes == tuple(name for name in CLASSES if name in listing.classes)
    assert rows(listing, "test") == {"test/ANGER/4.jpg": "anger"}
    touch(tmp_path / "train/bored/5.jpg")
    listing = read_folder(tmp_path)
    assert listing.classes == (" happy", "Angry", "bored", "no_expression")
    assert listing.faults == [f"{tmp_path}: test has the class ANGER, train has not: {', '.join(listing.classes)}"]


def test_two_names_for_one_expression_stay_as_they_are(tmp_path):
    grow(tmp_path, "train/happy/1.jpg", "train/joy/2.jpg", "train/fear/3.jpg")
    assert read_folder(tmp_path).classes == ("fear", "happy", "joy")


def test_numbers_are_names_here(tmp_path):
    grow(tmp_path, "train/0/1.jpg", "train/1/2.jpg", "train/10/3.jpg", "test/1/4.jpg")
    assert read_folder(tmp_path).classes == ("0", "1", "10")


def test_a_class_only_in_test_is_a_fault_and_its_pictures_are_left_out(tmp_path):
    grow(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/a/3.jpg", "test/c/4.jpg")
    listing = read_folder(tmp_path)
    assert listing.faults == [f"{tmp_path}: test has the class c, train has not: a, b"]
    assert rows(listing, "test") == {"test/a/3.jpg": "a"}
    with pytest.raises(InputError, match="test has the class c"):
        load_dataset("folder", tmp_path)


def test_a_test_part_alone_has_its_own_classes(tmp_path):
    grow(tmp_path, "test/b/1.jpg", "test/a/2.jpg")
    listing = read_folder(tmp_path)
    assert (listing.classes, list(listing.parts)) == (("a", "b"), ["test"])


def test_what_is_left_aside_is_counted(tmp_path):
    grow(tmp_path, "train/a/1.jpg", "train/a/deep/x.jpg", "train/a/notes.txt", "train/b/2.jpg", "train/.git/x.jpg")
    grow(tmp_path, "__MACOSX/train/a/._1.jpg", "train/a/._1.jpg", "train/a/Thumbs.db", "drawings/x.jpg", "readme.md")
    (tmp_path / "train/empty").mkdir()
    listing = read_folder(tmp_path)
    assert listing.classes == ("a", "b")
    assert listing.ignored == {
        "folders inside a folder of pictures": 1,
        "files that are no pictures (.txt)": 1,
        "hidden files and files of the operating system": 4,
        "folders without a picture": 1,
        "folders beside those of the parts": 1,
    }


def test_links_out_of_the_folder_are_not_read(tmp_path):
    root = grow(tmp_path / "root", "train/a/1.jpg", "train/b/2.jpg")
    grow(tmp_path, "outside/3.jpg")
    (root / "train/c").symlink_to(tmp_path / "outside")
    (root / "train/a/out.jpg").symlink_to(tmp_path / "outside/3.jpg")
    (root / "train/a/in.jpg").symlink_to(root / "train/b/2.jpg")
    listing = read_folder(root)
    assert set(rows(listing, "train")) == {"train/a/1.jpg", "train/a/in.jpg", "train/b/2.jpg"}
    assert listing.ignored == {"links that lead out of the folder, or nowhere": 2}


def test_hostile_names_are_classes_like_any_other(tmp_path):
    grow(tmp_path, "train/new\nline/1\n.jpg", "train/سعيد/2.jpg", "train/‮evil/3.jpg", "test/ot\nher/4.jpg")
    listing = read_folder(tmp_path)
    assert listing.classes == tuple(sorted(("new\nline", "سعيد", "‮evil")))
    assert "train/new\nline/1\n.jpg" in rows(listing, "train")
    assert all(fault.isprintable() for fault in listing.faults)
    assert len(listing.faults) == 1


@pytest.mark.parametrize("paths", [(), ("x.jpg",), ("a/1.jpg",), ("train/a/1.jpg",), ("a/b/c/1.txt", "a/c/2.txt")])
def test_nothing_to_learn_is_no_dataset(tmp_path, paths):
    grow(tmp_path, *paths)
    assert read_folder(tmp_path) is None


def test_pixels_and_cuts(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path / "cache"))
    for i in range(20):
        draw(tmp_path / f"data/{'ab'[i % 2]}/{i}.png", 30, 20, seed=i)
    splits = {split: load_dataset("folder", tmp_path / "data", split=split) for split in ("train", "val", "test")}
    assert sum(map(len, splits.values())) == 20
    assert splits["train"].images.shape[1:] == (3, 224, 224)
    assert all(part.class_counts().min() > 0 for part in splits.values())


def test_a_class_folder_that_cannot_be_read_is_a_fault(tmp_path, monkeypatch):
    grow(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "train/locked/3.jpg")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    listing = read_folder(tmp_path)
    assert (listing.classes, listing.faults) == (
        ("a", "b"),
        [f"{tmp_path}/train/locked cannot be read: Permission denied"],
    )


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=40).filter(
    lambda name: not name.startswith(".") and name.lower() not in JUNK and len(os.fsencode(name)) < 200
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(NAMES, st.sets(NAMES, min_size=1, max_size=4), min_size=2, max_size=5))
def test_every_picture_of_any_name_is_listed_once(tree):
    with TemporaryDirectory() as folder:
        root = Path(folder)
        grow(root, *(f"train/{cls}/{name}.jpg" for cls, names in tree.items() for name in names))
        listing = read_folder(root)
        assert sorted(listing.parts["train"].names) == sorted(
            f"train/{cls}/{name}.jpg" for cls, names in tree.items() for name in names
        )
        assert len(listing.classes) == len(tree)
        assert all(os.path.exists(path) for path in listing.parts["train"].pictures.paths)


# A table


def table(root, *lines):
    root.mkdir(parents=True, exist_ok=True)
    (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


@pytest.mark.parametrize("home", ["", "images"])
def test_a_table_of_people_is_cut_by_person(tmp_path, home):
    people = [f"person{i % 12}" for i in range(48)]
    lines = [f"{i}.png,{person},{('sad', 'Happy')[i // 12 % 2]}" for i, person in enumerate(people)]
    table(tmp_path / "data", "image,subject,emotion", *lines)
    for i in range(48):
        draw(tmp_path / "data" / home / f"{i}.png", 16, 16, seed=i)
    listing = read_folder(tmp_path)
    assert (listing.classes, list(listing.parts), listing.faults) == (("happiness", "sadness"), ["all"], [])
    assert listing.parts["all"].subjects == tuple(people)
    names = {}
    for split in ("train", "val", "test"):
        part = load_dataset("folder", tmp_path, split=split, fold=2, image_size=16, channels=1)
        names[split] = {people[int(Path(name).stem)] for name in part.names}
    assert names["test"] == set(sorted(set(people))[1::10])
    assert not names["train"] & names["test"] | names["train"] & names["val"] | names["val"] & names["test"]
    assert names["train"] | names["val"] | names["test"] == set(people)


def test_a_table_says_the_parts(tmp_path):
    table(tmp_path, "path,label,split", "a/1.jpg,wolf,train", "a/2.jpg,cat,Train", "3.jpg,cat,TEST", "4.jpg,wolf,val")
    grow(tmp_path, "a/1.jpg", "a/2.jpg", "3.jpg", "4.jpg")
    listing = read_folder(tmp_path)
    assert listing.classes == ("cat", "wolf")
    assert rows(listing, "train") == {"a/1.jpg": "wolf", "a/2.jpg": "cat"}
    assert (rows(listing, "test"), rows(listing, "val")) == ({"3.jpg": "cat"}, {"4.jpg": "wolf"})
    assert listing.parts["train"].subjects is None


def test_bad_rows_of_a_table_are_told_by_line(tmp_path):
    lines = (
        "1.jpg,wolf,train",
        "1.jpg,wolf,train",
        "1.jpg,cat,train",
        "2.jpg,,train",
        "2.jpg,cat,dev",
        "gone.jpg,cat,test",
    )
    table(tmp_path, "image,label,split", *lines, "2.jpg,cat,test", "../x.jpg,cat,test")
    grow(tmp_path, "1.jpg", "2.jpg", "../x.jpg")
    listing = read_folder(tmp_path)
    assert [fault.rpartition("labels.csv")[2] for fault in listing.faults] == [
        ": line 5: needed: image, label, split",
        ": line 6: needed: image, label, split",
    ]
    assert (rows(listing, "train"), rows(listing, "test")) == ({"1.jpg": "wolf"}, {"2.jpg": "cat"})
    assert listing.problems == [
        "2 of 8 listed pictures are not there, the first: gone.jpg",
        "1 rows give a picture another label than before, the first: "
        f"{tmp_path}/1.jpg (wolf, then cat); the first label is kept",
    ]
    assert listing.ignored == {"rows that repeat another": 1}


def test_another_table_is_none(tmp_path):
    table(tmp_path, "index,pth", "0,1.jpg")
    grow(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg")
    assert read_folder(tmp_path).layout == "train/<class>/"


@pytest.mark.parametrize("folds", [5, 10])
def test_each_person_of_the_press_photographs_is_in_one_fold(tmp_path, press_archive, folds):
    with zipfile.ZipFile(press_archive) as archive:
        text = archive.read("faces_in_the_wild/labels.csv").decode()
    write(tmp_path / "labels.csv", text)
    listed = list(csv.DictReader(text.splitlines()))
    people = sorted({row["subject"] for row in listed})
    for row in listed:
        touch(tmp_path / "images" / row["image"])
    listing = read_folder(tmp_path)
    about = manifest(listing, folds)
    for number, fold in enumerate(about.values()):
        assert fold["subjects"] == people[number::folds]
        here = Counter(row["emotion"] for row in listed if row["subject"] in set(fold["subjects"]))
        assert fold["images"] == {name: here[name] for name in listing.classes}
        assert fold["absent"] == [name for name in listing.classes if not here[name]]
    assert sum(sum(fold["images"].values()) for fold in about.values()) == len(listed) == 1461
