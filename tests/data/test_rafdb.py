"""RAF-DB in every form people keep it in; only names are read, except where pixels are asked for."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from data_trees import by_name, draw, scaled, shuffled, touch, write
from fer_fast.data import load_dataset
from fer_fast.data.labels import CLASSES
from fer_fast.data.sources import rafdb
from fer_fast.data.sources.rafdb import BASIC, COMPOUND, read_rafdb, read_rafdb_compound
from fer_fast.errors import InputError

OFFICIAL, FROM_0, AFFECTNET = BASIC.orders
LIST = "EmoLabel/list_patition_label.txt"
SMALL = scaled(BASIC.published, 0.05)
TINY = {"train": {"surprise": 3, "neutral": 2}, "test": {"happiness": 2, "anger": 1}}


@pytest.fixture
def small(monkeypatch):
    """The published sizes are a twentieth of what they are."""
    monkeypatch.setattr(rafdb, "BASIC", replace(BASIC, published=SMALL))


def official(base, sizes=TINY, order=OFFICIAL, form="aligned", end=""):
    """An official copy without pixels; gives the class of each picture by its stem."""
    classes = {}
    for part, digits in (("train", 5), ("test", 4)):
        for i, name in enumerate(shuffled(sizes.get(part, {})), 1):
            classes[f"{part}_{i:0{digits}d}"] = name
    numbers = {name: number for number, name in order.classes.items()}
    write(base / LIST, "\n".join(f"{stem}.jpg {numbers[name]}" for stem, name in classes.items()) + end)
    for stem in classes:
        touch(base / "Image" / form / f"{stem}{'' if form == 'original' else '_aligned'}.jpg")
    return classes


def quiet(listing):
    return not (listing.problems or listing.notes or listing.ignored or listing.faults)


@pytest.mark.parametrize(
    "parent", ["", "raf-basic", "basic", "RAF-DB/basic", "Database/basic", "some download/raf-basic", "RAF-DB/RAF-DB"]
)
def test_official_under_any_parent(tmp_path, parent):
    classes = official(tmp_path / parent)
    listing = read_rafdb(tmp_path)
    assert quiet(listing)
    assert (listing.sure, listing.faces, listing.classes) == (True, "whole", CLASSES[:7])
    prefix = f"{parent}/" if parent else ""
    assert by_name(listing) == {f"{prefix}Image/aligned/{stem}_aligned.jpg": name for stem, name in classes.items()}
    assert listing.counts()["test"] == dict.fromkeys(CLASSES[:7], 0) | TINY["test"]


def test_the_published_sizes_are_those_of_a_whole_copy(tmp_path):
    official(tmp_path, BASIC.published)
    listing = read_rafdb(tmp_path)
    listing.compare(BASIC.published)
    assert {part: len(rows) for part, rows in listing.parts.items()} == {"train": 12_271, "test": 3_068}
    assert quiet(listing)


@pytest.mark.parametrize("end", ["", "\n", "\r\n\r\n"])
def test_ends_of_lines_and_a_bom(tmp_path, end):
    classes = official(tmp_path, end=end)
    text = (tmp_path / LIST).read_text().replace("\n", "\r\n")
    (tmp_path / LIST).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(by_name(read_rafdb(tmp_path))) == len(classes)


def test_the_digits_of_a_number_do_not_matter(tmp_path):
    official(tmp_path)
    folder = tmp_path / "Image/aligned"
    (folder / "test_0001_aligned.jpg").rename(folder / "test_00001_aligned.JPG")
    listing = read_rafdb(tmp_path)
    assert quiet(listing)
    assert listing.parts["test"].names[0] == "Image/aligned/test_00001_aligned.JPG"


def test_forms_are_taken_in_order_or_as_asked(tmp_path):
    for form in ("original", "aligned_224"):
        official(tmp_path, form=form)
    assert read_rafdb(tmp_path).layout.endswith("aligned_224")
    assert read_rafdb(tmp_path, form="original").faces == "align"  # no boxes are there
    touch(tmp_path / "Image/aligned/train_00001_aligned.jpg")
    assert read_rafdb(tmp_path).layout.endswith("aligned")
    with pytest.raises(InputError, match="aligned_224"):
        read_rafdb(tmp_path, form="aligned_244")
    shutil.rmtree(tmp_path / "Image/original")
    with pytest.raises(InputError, match="no pictures in original; archives there have to be unpacked"):
        read_rafdb(tmp_path, form="original")


def test_an_archive_that_holds_its_folder_once_more(tmp_path):
    classes = official(tmp_path, form="aligned/aligned")
    assert len(by_name(read_rafdb(tmp_path))) == len(classes)


def test_boxes_are_turned_from_corners_to_sizes(tmp_path):
    classes = official(tmp_path, form="original")
    boxes = tmp_path / "Annotation/boundingbox"
    for stem in classes:
        write(boxes / f"{stem}_boundingbox.txt", "10.5 20 60.5 100\n")
    write(boxes / "train_00002_boundingbox.txt", "60 20 10 100")
    write(boxes / "train_00003_boundingbox.txt", "1 2 3")
    write(boxes / "train_00004_boundingbox.txt", "0 0 inf 5")
    (boxes / "train_00005_boundingbox.txt").unlink()
    listing = read_rafdb(tmp_path)
    assert listing.faces == "box"
    assert listing.parts["train"].boxes[0].tolist() == [10.5, 20, 50, 80]
    assert np.isnan(listing.parts["train"].boxes[1:]).all()
    assert listing.notes == ["4 pictures of train have no box that can be read"]
    assert not np.isnan(listing.parts["test"].boxes).any()


def test_pixels_are_those_of_the_files(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path / "cache"))
    classes = official(tmp_path / "raf")
    for seed, stem in enumerate(classes):
        draw(tmp_path / f"raf/Image/aligned/{stem}_aligned.jpg", seed=seed)
    with pytest.warns(UserWarning, match="(5|3) images where (12271|3068) were published"):
        dataset = load_dataset("rafdb", tmp_path / "raf", split="test")
    assert dataset.images.shape == (3, 3, 100, 100)
    assert [dataset.classes[i] for i in dataset.labels] == [classes[f"test_000{i}"] for i in (1, 2, 3)]
    assert len(set(map(float, dataset.images[0:3].float().mean((1, 2, 3))))) == 3


def test_missing_unlisted_repeated_and_contradicting_rows_are_told(tmp_path):
    official(tmp_path)
    folder = tmp_path / "Image/aligned"
    (folder / "train_00002_aligned.jpg").unlink()
    touch(folder / "train_00099_aligned.jpg")
    touch(folder / "cover.jpg")
    text = (tmp_path / LIST).read_text()
    first = text.splitlines()[0]
    other = f"{first[:-1]}{2 if first[-1] != '2' else 3}"
    write(tmp_path / LIST, f"{text}\n{first}\n{other}")
    listing = read_rafdb(tmp_path)
    missing, conflict = sorted(listing.problems)
    assert missing.startswith("1 of 8 listed pictures are not there, the first: train_00002")
    assert conflict.startswith("1 rows give a picture another label than before, the first: train 1")
    assert listing.ignored == {
        "rows that repeat another": 1,
        "pictures that are not on the list": 1,
        "pictures whose names are not RAF-DB's": 1,
    }
    assert len(listing.parts["train"]) == 4


@pytest.mark.parametrize(
    "line",
    ["train_00001.jpg", "train_00001.jpg five", "val_00001.jpg 5", "../../etc/train_00001.jpg 5", "train_1.jpg -1"],
)
def test_a_line_that_is_none_is_a_fault(tmp_path, line):
    classes = official(tmp_path, end=f"\n{line}\n")
    listing = read_rafdb(tmp_path)
    assert len(listing.faults) == 1
    assert f"line {len(classes) + 1}" in listing.faults[0]
    assert len(by_name(listing)) == len(classes)


def test_a_class_number_outside_is_a_fault_of_its_line(tmp_path, small):
    classes = official(tmp_path, SMALL, end="\ntrain_00001.jpg 9")
    listing = read_rafdb(tmp_path)
    assert listing.faults == [f"{tmp_path / LIST}: line {len(classes) + 1}: class 9; allowed: 1, 2, 3, 4, 5, 6, 7"]


@pytest.mark.parametrize("order", [FROM_0, AFFECTNET], ids=lambda order: order.name)
def test_a_list_from_zero_is_told_by_the_sizes(tmp_path, small, order):
    classes = official(tmp_path, SMALL, order)
    listing = read_rafdb(tmp_path)
    listing.compare(SMALL)
    assert quiet(listing)
    assert by_name(listing) == {f"Image/aligned/{stem}_aligned.jpg": name for stem, name in classes.items()}


def test_a_list_from_zero_that_nothing_tells_needs_the_order(tmp_path):
    classes = official(tmp_path, {"train": {"surprise": 3, "neutral": 4}}, FROM_0)
    with pytest.raises(InputError, match=r"list_patition_label.txt.*rafdb-from-0 .*affectnet .*0 neutral") as caught:
        read_rafdb(tmp_path)
    assert "--data.order" in str(caught.value)
    listing = read_rafdb(tmp_path, order="rafdb-from-0")
    assert by_name(listing) == {f"Image/aligned/{stem}_aligned.jpg": name for stem, name in classes.items()}
    with pytest.raises(InputError, match="'nonsense'"):
        read_rafdb(tmp_path, order="nonsense")


def test_compound_is_told_from_basic_by_its_numbers(tmp_path):
    sizes = {"train": dict.fromkeys(COMPOUND.classes, 2), "test": dict.fromkeys(COMPOUND.classes, 1)}
    basic, compound = tmp_path / "RAF-DB/basic", tmp_path / "RAF-DB/compound"
    official(basic)
    classes = official(compound, sizes, COMPOUND.orders[0])
    listing = read_rafdb_compound(tmp_path)
    assert (listing.classes, listing.sure) == (COMPOUND.classes, True)
    assert by_name(listing) == {
        f"RAF-DB/compound/Image/aligned/{stem}_aligned.jpg": name for stem, name in classes.items()
    }
    assert listing.problems == [
        "train has 22 images where 3162 were published",
        "test has 11 images where 792 were published",
    ]
    assert len(by_name(read_rafdb(tmp_path))) == 8
    assert read_rafdb(compound) is None
    assert read_rafdb_compound(basic) is None


def test_compound_from_zero_needs_the_order(tmp_path):
    sizes = {"train": dict.fromkeys(COMPOUND.classes, 2)}
    official(tmp_path, sizes, COMPOUND.orders[1])
    with pytest.raises(InputError, match="rafdb-compound-from-0"):
        read_rafdb_compound(tmp_path)
    listing = read_rafdb_compound(tmp_path, order="rafdb-compound-from-0")
    assert listing.counts()["train"] == sizes["train"]


def test_raf_ce_is_refused_by_name(tmp_path):
    touch(tmp_path / "files/RAFCE_emolabel.txt")
    (tmp_path / "list").mkdir()
    fourteen = "\n".join(f"train_{i:05d}.jpg {i % 14}" for i in range(1, 60))
    write(tmp_path / "list" / LIST, fourteen)
    for root in ("files", "list"):
        for read in (read_rafdb, read_rafdb_compound):
            with pytest.raises(InputError, match="RAF-CE"):
                read(tmp_path / root)


def repack(base, sizes, folder_of, parts=("train", "test"), name="{part}_{i:05d}_aligned.jpg"):
    """DATASET/<part>/<folder>/; gives part -> file -> class."""
    rows = {}
    for part, word in zip(sizes, parts, strict=True):
        for i, cls in enumerate(shuffled(sizes[part]), 1):
            file = name.format(part=part, i=i)
            rows.setdefault(word, {})[file] = cls
            touch(base / word / folder_of(cls) / file)
    return rows


def numbers_of(order):
    called = {name: str(number) for number, name in order.classes.items()}
    return called.get


@pytest.mark.parametrize("order", BASIC.orders, ids=lambda order: order.name)
def test_numbered_folders_are_told_by_the_sizes(tmp_path, small, order):
    rows = repack(tmp_path / "DATASET", SMALL, numbers_of(order))
    for word, inside in rows.items():
        table = "".join(f"{file},{numbers_of(order)(cls)}\n" for file, cls in inside.items())
        write(tmp_path / f"{word}_labels.csv", f"image,label\n{table}")
    listing = read_rafdb(tmp_path)
    listing.compare(SMALL)
    assert quiet(listing)
    assert (listing.sure, listing.layout) == (True, "train|test/<class>/, classes by number")
    expected = {file: cls for inside in rows.values() for file, cls in inside.items()}
    assert {name.rpartition("/")[2]: cls for name, cls in by_name(listing).items()} == expected


def test_a_csv_from_one_beside_folders_from_zero(tmp_path, small):
    rows = repack(tmp_path, SMALL, numbers_of(FROM_0))
    table = "".join(f"{file},{numbers_of(OFFICIAL)(cls)}\n" for file, cls in rows["train"].items())
    write(tmp_path / "train_labels.csv", f"image,label\n{table}")
    listing = read_rafdb(tmp_path)
    listing.compare(SMALL)
    assert quiet(listing)


def test_a_csv_outweighs_the_folders_and_differences_are_told(tmp_path):
    rows = repack(tmp_path, TINY, str.title)
    first = next(iter(rows["train"]))
    table = "".join(f"{file},{'fear' if file == first else cls}\n" for file, cls in rows["train"].items())
    write(tmp_path / "train_labels.csv", f"image,label\n{table}absent.jpg,fear\n")
    listing = read_rafdb(tmp_path)
    differ, missing = listing.problems
    assert differ.startswith("1 of 5 pictures lie in the folder of another class than train_labels.csv says")
    assert missing == "1 of 6 listed pictures are not there, the first: absent.jpg"
    assert listing.counts()["train"]["fear"] == 1
    write(tmp_path / "train_labels.csv", "a,b\n1,2\n")
    with pytest.raises(InputError, match=r"train_labels.csv needs the columns image and label"):
        read_rafdb(tmp_path)


def test_numbered_folders_that_nothing_tells_need_the_order(tmp_path):
    sizes = {"train": dict.fromkeys(CLASSES[:7], 3), "test": dict.fromkeys(CLASSES[:7], 1)}
    rows = repack(tmp_path, sizes, numbers_of(AFFECTNET))
    with pytest.raises(InputError, match=r"--data.order.*rafdb-from-0 .*affectnet "):
        read_rafdb(tmp_path)
    listing = read_rafdb(tmp_path, order="affectnet")
    assert {name.rpartition("/")[2]: cls for name, cls in by_name(listing).items()} == rows["train"] | rows["test"]


def test_one_part_alone_tells_the_order_too(tmp_path):
    repack(tmp_path, {"test": BASIC.published["test"]}, numbers_of(AFFECTNET), ("test",))
    listing = read_rafdb(tmp_path)
    listing.compare(BASIC.published)
    assert quiet(listing)


@pytest.mark.parametrize("word", ["valid", "val"])
def test_a_copy_with_a_validation_part_in_place_of_the_test_part(tmp_path, small, word):
    repack(tmp_path, SMALL, numbers_of(FROM_0), ("train", word))
    listing = read_rafdb(tmp_path)
    listing.compare(SMALL)
    assert set(listing.parts) == {"train", "test"}
    assert (len(listing.notes), listing.problems) == (1, [])


def test_a_copy_that_is_split_again_says_so(tmp_path, small):
    repack(tmp_path, SMALL, numbers_of(FROM_0))
    (tmp_path / "train/3/test_00001_aligned.jpg").touch()
    listing = read_rafdb(tmp_path)
    assert listing.notes == ["1 pictures are of the other official part by their names: the copy is re-split"]


def test_folders_of_names_prove_nothing_unless_files_or_sizes_do(tmp_path, small):
    repack(tmp_path / "a", TINY, str.upper, name="{i}.png")
    repack(tmp_path / "b", TINY, str.upper)
    repack(tmp_path / "c", SMALL, str.upper, name="{i}.png")
    sure = {name: read_rafdb(tmp_path / name).sure for name in "abc"}
    assert sure == {"a": False, "b": True, "c": True}


@pytest.mark.parametrize("words", [("cats", "dogs"), ("angry", "anger", "fear"), tuple("0123456789"), ("happy", "0")])
def test_other_folders_are_something_else(tmp_path, words):
    for word in words:
        touch(tmp_path / "train" / word / "x.jpg")
    assert read_rafdb(tmp_path) is None
    assert read_rafdb_compound(tmp_path) is None


def test_numbered_folders_of_basic_are_not_compound(tmp_path):
    repack(tmp_path, TINY | {"train": dict.fromkeys(CLASSES[:7], 2)}, numbers_of(OFFICIAL))
    assert read_rafdb_compound(tmp_path) is None


def test_an_empty_folder_and_a_file_hold_nothing(tmp_path):
    assert read_rafdb(tmp_path) is None
    assert read_rafdb(touch(tmp_path / "x.csv")) is None


def test_an_order_that_lacks_the_numbers_is_refused(tmp_path):
    repack(tmp_path, TINY | {"train": dict.fromkeys(CLASSES[:7], 2)}, numbers_of(OFFICIAL))
    with pytest.raises(InputError, match=r"order is 'affectnet'; allowed for .*: rafdb \(1 surprise"):
        read_rafdb(tmp_path, order="affectnet")
