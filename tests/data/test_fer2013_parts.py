"""Which part of FER2013 a copy holds and what its numbers mean, by names, by sizes and by what the user says."""

import pyarrow as pa
import pytest
import torch

from fer2013_trees import (
    COUNTS,
    NUMBERED,
    SPLIT_OF_WORD,
    contents,
    expected,
    official_table,
    pixels,
    rows,
    write_csv,
    write_folders,
    write_parquet,
    write_tables,
    write_whole,
)
from fer_fast.data import CLASSES, load_dataset
from fer_fast.data.sources.fer2013 import PUBLISHED, read_fer2013
from fer_fast.errors import InputError

# Small copies differ from the published counts, which is told by a warning.
pytestmark = pytest.mark.filterwarnings("ignore:fer2013 in")


@pytest.mark.parametrize("layout", ["csv", "tables", "folders", "called val"])
def test_without_validation_part_it_is_cut_from_training(layout, tmp_path):
    if layout == "csv":
        write_whole(tmp_path, splits=("train", "test"))
    elif layout == "tables":
        write_tables(tmp_path, ("train", "test"))
    elif layout == "folders":  # public test images alone in test/: they are what is reported
        write_folders(tmp_path, {"train": "train", "val": "test"})
    else:
        write_folders(tmp_path / "images", {"train": "train", "val": "validation"}, "{number}.png")
    train, val, test = (load_dataset("fer2013", tmp_path, split=split, seed=3) for split in COUNTS)
    assert len(train) + len(val) == 21
    assert (val.class_counts() == 1).all()
    assert set(train.names).isdisjoint(val.names)
    assert contents(tmp_path, "test") == expected("val" if layout in ("folders", "called val") else "test")
    assert len(test) == 7
    assert load_dataset("fer2013", tmp_path, split="val", seed=3).digest() == val.digest()
    assert load_dataset("fer2013", tmp_path, split="val", seed=4).names != val.names


def test_joined_test_part_of_ad_corre(tmp_path):
    write_whole(tmp_path)
    parts = {split: load_dataset("fer2013", tmp_path, split=split, joined=True) for split in COUNTS}
    assert {split: len(part) for split, part in parts.items()} == {"train": 14, "val": 7, "test": 14}
    alone = [load_dataset("fer2013", tmp_path, split=split).images for split in ("val", "test")]
    assert torch.equal(parts["test"].images[:], torch.cat([images[:] for images in alone]))


def test_joined_needs_both_parts(tmp_path):
    write_whole(tmp_path, splits=("train", "test"))
    with pytest.raises(InputError, match="has not both test parts, which joined puts together"):
        load_dataset("fer2013", tmp_path, split="test", joined=True)


def test_unlabelled_images_of_the_competition_are_counted(tmp_path):
    write_tables(tmp_path, ("train",))
    write_csv(tmp_path / "test.csv", ("pixels",), [(pixels(image),) for _, image in rows("test")])
    listing = read_fer2013(tmp_path)
    assert (list(listing.parts), listing.unlabelled, listing.problems) == (["train"], 7, ["no test images"])
    write_whole(tmp_path, "icml_face_data.csv")
    listing = read_fer2013(tmp_path)
    assert (len(listing.parts["test"]), listing.unlabelled) == (7, None)
    assert listing.ignored == {"tables and archives beside icml_face_data.csv": 2}


def listed(root, sizes, **options):
    """The listing of a csv with these sizes, part -> class -> images, without pixels."""
    lines = [
        (NUMBERED.index(name), "0", {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}[part])
        for part, counts in sizes.items()
        for name, count in counts.items()
        for _ in range(count)
    ]
    write_csv(root / "fer2013.csv", ("emotion", "pixels", "Usage"), lines)
    listing = read_fer2013(root, **options)
    listing.compare(PUBLISHED)
    return listing


@pytest.mark.parametrize("joined", [False, True])
def test_the_published_sizes_are_no_problem(joined, tmp_path):
    listing = listed(tmp_path, PUBLISHED, joined=joined)
    assert listing.problems == []
    assert listing.counts()["test"]["disgust"] == (111 if joined else 55)
    assert len(listing.parts.get("val", ())) == (0 if joined else 3589)


def test_other_sizes_are(tmp_path):
    sizes = {part: dict(counts) for part, counts in PUBLISHED.items()}
    sizes["train"]["fear"] -= 1
    assert listed(tmp_path, sizes).problems == [
        "train has 28708 images where 28709 were published: fear 4096 (published 4097)"
    ]


def held_out(root, sizes, order=NUMBERED):
    """Parquet with official numbers and these sizes; the images are not read."""
    tables = {}
    for word, counts in sizes.items():
        labels = [order.index(name) for name, count in counts.items() for _ in range(count)]
        tables[word] = pa.table({"img_bytes": pa.array([b""] * len(labels), pa.binary()), "labels": labels})
    write_parquet(root, tables, rows_each=10_000)
    listing = read_fer2013(root)
    listing.compare(PUBLISHED)
    return listing


BOTH = {name: PUBLISHED["val"][name] + PUBLISHED["test"][name] for name in NUMBERED}
RESPLIT = {
    "happiness": 1825,
    "neutral": 1216,
    "sadness": 1139,
    "fear": 1018,
    "anger": 960,
    "surprise": 797,
    "disgust": 111,
}


@pytest.mark.parametrize(
    ("sizes", "note"),
    [
        (BOTH, "the test part holds the public and the private images"),
        (PUBLISHED["val"], "there are no private test images; the public ones are the test part"),
        (PUBLISHED["test"], None),
    ],
)
@pytest.mark.parametrize("order", [NUMBERED, sorted(NUMBERED)])
def test_numbers_and_the_held_out_part_are_told_by_their_sizes(sizes, note, order, tmp_path):
    listing = held_out(tmp_path, {"train": PUBLISHED["train"], "test": sizes}, list(order))
    assert (listing.sure, listing.problems) == (True, [])
    assert listing.counts() == {
        "train": {name: PUBLISHED["train"][name] for name in CLASSES[:7]},
        "test": {name: sizes[name] for name in CLASSES[:7]},
    }
    assert [line for line in listing.notes if "validation" not in line] == ([] if note is None else listing.notes[:1])
    assert note is None or listing.notes[0].startswith(note)


def test_an_undivided_test_part_is_already_joined(tmp_path):
    held_out(tmp_path, {"train": PUBLISHED["train"], "test": BOTH})
    assert len(read_fer2013(tmp_path, joined=True).parts["test"]) == 7178


def test_a_copy_that_is_split_anew_says_so(tmp_path):
    together = {name: sum(counts[name] for counts in PUBLISHED.values()) for name in NUMBERED}
    listing = held_out(
        tmp_path, {"train": {name: together[name] - RESPLIT[name] for name in NUMBERED}, "validation": RESPLIT}
    )
    assert {part: len(rows) for part, rows in listing.parts.items()} == {"train": 28_821, "test": 7_066}
    assert (listing.sure, listing.problems) == (True, [])
    assert listing.notes[0].startswith("this copy is re-split across the official parts")


def test_numbers_without_names_that_sizes_do_not_tell(tmp_path):
    write_parquet(tmp_path, {word: official_table(split) for word, split in SPLIT_OF_WORD.items()})
    with pytest.raises(InputError, match=r"--data\.order.*official \(0 anger.*alphabetical \(0 anger"):
        load_dataset("fer2013", tmp_path)
    assert contents(tmp_path, "test", order="official") == expected("test")
    assert contents(tmp_path, "test", order="alphabetical") != expected("test")
    with pytest.raises(InputError, match="order is 'mine'; allowed"):
        load_dataset("fer2013", tmp_path, order="mine")
