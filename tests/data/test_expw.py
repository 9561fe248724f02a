"""ExpW: the official list with its boxes and repeated rows, and the copy of cut faces."""

import numpy as np
import pytest

from data_trees import draw, shuffled, touch, write
from fer_fast.data import load_dataset
from fer_fast.data.labels import CLASSES
from fer_fast.data.sources.expw import NUMBERED, PUBLISHED, read_expw
from fer_fast.errors import InputError

ROWS = [
    "angry_actor_104.jpg 0 28 113 226 311 22.9207 0",
    "angry_actor_104.jpg 1 10 20 60 120 5 3",
    "happy woman 7.jpg 0 0 0 50 40 99.5 3",
    "x.jpg 0 5 5 5 9 1.0 6",
]


def official(base, rows=ROWS, *, table="label/label.lst", images="image/origin", end="\n"):
    write(base / table, "\n".join(rows) + end)
    for row in rows:
        touch(base / images / row.rsplit(maxsplit=7)[0])


def rows_of(listing):
    part = listing.parts["all"]
    return list(zip(part.names, (listing.classes[label] for label in part.labels), part.groups, strict=True))


@pytest.mark.parametrize("parent", ["", "ExpW", "data/expw"])
@pytest.mark.parametrize("table", ["label/label.lst", "label.lst"])
@pytest.mark.parametrize("images", ["image/origin", "origin"])
def test_official_under_every_name(tmp_path, parent, table, images):
    official(tmp_path / parent, table=table, images=images, end="")
    listing = read_expw(tmp_path)
    prefix = f"{parent}/{images}" if parent else images
    assert rows_of(listing) == [
        (f"{prefix}/angry_actor_104.jpg, face 0", "anger", "angry_actor_104.jpg"),
        (f"{prefix}/angry_actor_104.jpg, face 1", "happiness", "angry_actor_104.jpg"),
        (f"{prefix}/happy woman 7.jpg, face 0", "happiness", "happy woman 7.jpg"),
        (f"{prefix}/x.jpg, face 0", "neutral", "x.jpg"),
    ]
    assert (listing.sure, listing.faces, listing.classes) == (True, "box", CLASSES[:7])
    assert (listing.problems, listing.faults, listing.ignored) == ([], [], {})


def test_boxes_are_turned_from_top_left_right_bottom(tmp_path):
    official(tmp_path)
    listing = read_expw(tmp_path)
    boxes = listing.parts["all"].boxes
    assert boxes[:3].tolist() == [[113, 28, 113, 283], [20, 10, 40, 110], [0, 0, 50, 40]]
    assert np.isnan(boxes[3]).all()
    assert listing.notes == ["1 faces have a box without area"]


def test_published_sizes(tmp_path):
    labels = shuffled(PUBLISHED["all"], dict(enumerate(NUMBERED)))
    write(
        tmp_path / "label/label.lst",
        "\n".join(f"{i // 30}.jpg {i % 30} 1 2 30 40 5.5 {n}" for i, n in enumerate(labels)),
    )
    for i in range(len(labels) // 30 + 1):
        touch(tmp_path / f"origin/{i}.jpg")
    listing = read_expw(tmp_path)
    listing.compare(PUBLISHED)
    assert len(listing.parts["all"]) == 91_793
    assert (listing.problems, listing.ignored) == ([], {})


def test_repeated_contradicting_missing_and_unlisted(tmp_path):
    official(tmp_path, [*ROWS, ROWS[0], ROWS[1].replace(" 5 3", " 5 4"), "gone.jpg 0 1 2 3 4 5 6"])
    (tmp_path / "image/origin/gone.jpg").unlink()
    touch(tmp_path / "image/origin/other.jpg")
    listing = read_expw(tmp_path)
    assert len(listing.parts["all"]) == 4
    conflict, missing = listing.problems
    assert conflict.startswith(
        "1 rows give a picture another label than before, the first: angry_actor_104.jpg, face 1 ("
    )
    assert missing == "1 of 5 listed pictures are not there, the first: gone.jpg"
    assert listing.ignored == {"rows that repeat another": 1, "photographs that are not on the list": 1}


@pytest.mark.parametrize(
    "row",
    [
        "a.jpg 0 1 2 3 4 5 7",
        "a.jpg 0 1 2 3 4 5 -1",
        "a.jpg 0 1 x 3 4 5 6",
        "a.jpg f 1 2 3 4 5 6",
        "a.jpg 0 1 2",
        "a.jpg 0 1 2 3 4 5 6.5",
    ],
)
def test_a_row_that_is_none_is_a_fault(tmp_path, row):
    official(tmp_path, [*ROWS, row])
    listing = read_expw(tmp_path)
    assert len(listing.faults) == 1
    assert "label.lst: line 5" in listing.faults[0]


def test_a_list_leads_nowhere_outside(tmp_path):
    touch(tmp_path / "secret.jpg")
    official(tmp_path / "expw")
    with (tmp_path / "expw/label/label.lst").open("a") as file:
        file.write(f"../../../secret.jpg 0 1 2 3 4 5 6\n{tmp_path}/secret.jpg 0 1 2 3 4 5 6\n")
    listing = read_expw(tmp_path / "expw")
    assert len(listing.parts["all"]) == 4
    assert listing.problems == ["2 of 6 listed pictures are not there, the first: ../../../secret.jpg"]


def test_pictures_that_are_still_packed_are_one_line(tmp_path):
    write(tmp_path / "label/label.lst", "\n".join(ROWS))
    touch(tmp_path / "image/origin.7z.001")
    with pytest.raises(
        InputError, match=r"label.lst: none of its pictures lies in .*image; archives have to be unpacked"
    ):
        read_expw(tmp_path)


def test_cuts_go_by_photograph_and_faces_are_cut_out(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path / "cache"))
    rows = [f"{i // 3}.png {i % 3} {10 * (i % 3)} 0 40 {10 * (i % 3) + 30} 9 {i // 3 % 7}" for i in range(210)]
    official(tmp_path / "expw", rows)
    for i in range(70):
        draw(tmp_path / f"expw/image/origin/{i}.png", 40, 60, seed=i)
    with pytest.warns(UserWarning, match="images where 91793 were published"):
        splits = {split: load_dataset("expw", tmp_path / "expw", split=split) for split in ("train", "val", "test")}
    photographs = [{name.partition(",")[0] for name in part.names} for part in splits.values()]
    assert sum(map(len, splits.values())) == 210
    assert sum(map(len, photographs)) == len(set.union(*photographs)) == 70


def test_cut_faces_by_class_name(tmp_path):
    for name, count in PUBLISHED["all"].items():
        touch(tmp_path / "ExpW_image_align_filtrate" / name / f"{count}.jpg")
    listing = read_expw(tmp_path)
    assert (listing.sure, listing.layout, listing.faces) == (True, "<class>/", "whole")
    assert listing.counts()["all"] == dict.fromkeys(CLASSES[:7], 1)
    assert len(listing.notes) == 1
    (tmp_path / "ExpW_image_align_filtrate").rename(tmp_path / "pictures")
    assert not read_expw(tmp_path).sure


@pytest.mark.parametrize("words", [("cat", "dog"), ("0", "1"), ("happy", "contempt"), ("happy", "joy")])
def test_other_folders_are_something_else(tmp_path, words):
    for word in words:
        touch(tmp_path / word / "1.jpg")
    write(tmp_path / "label.txt", "x")
    assert read_expw(tmp_path) is None
    write(tmp_path / "label.lst", "1 2 3\nhello\n")
    assert read_expw(tmp_path) is None
