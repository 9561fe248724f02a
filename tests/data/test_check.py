"""What `check` finds: how much there is of a dataset, and everything that is wrong with its pictures."""

import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace

import cv2
import numpy as np
import pytest

from fer_fast.data import DATASETS, cache, open_dataset
from fer_fast.data.check import LISTED, check
from fer_fast.data.check_page import FACES, MOST_FACES, write_check_page
from fer_fast.errors import InputError
from html_page import Page
from stub_datasets import listed, photograph, put, row, table_of

KEYS = {"dataset", "layout", "classes", "counts", "subjects", "sequences", "unlabelled", "problems"}  # api.md


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path_factory.mktemp("cache")))


def tree(root, counts, first=0):
    """part -> class -> how many pictures, all of them different."""
    seed = first
    for part, classes in counts.items():
        for name, count in classes.items():
            for number in range(count):
                put(root / part / name / f"{number}.png", photograph(seed := seed + 1))
    return root


@pytest.fixture
def only():
    """Leaves these rows alone in the table."""
    with ExitStack() as stack:
        yield lambda *rows: stack.enter_context(table_of(*rows))


FOLDER = DATASETS["folder"]


@pytest.fixture
def small(only):
    """The folder of one's own, at 48×48 gray."""
    only(replace(FOLDER, size=48, channels=1))


def told(report, word):
    """The one problem with this word in it."""
    (line,) = [problem for problem in report.problems if word in problem]
    return line


# What is in it


def test_clean_data_has_no_problem(tmp_path, small):
    root = tree(tmp_path, {"train": {"happiness": 4, "sadness": 3}, "test": {"happiness": 2, "sadness": 2}})
    report = check(root)
    assert report.problems == ()
    assert report.counts == {"train": {"happiness": 4, "sadness": 3}, "test": {"happiness": 2, "sadness": 2}}
    assert report.duplicates == {
        **dict.fromkeys(("flat", "groups", "conflicting", "near", "near_conflicting", "near_across"), 0),
        "in_two_folds": None,
        "across": [],
    }
    printed = json.loads(json.dumps(report.as_dict()))
    assert printed.keys() >= KEYS
    assert [printed[key] for key in ("subjects", "sequences", "unlabelled")] == [None] * 3


def test_a_check_decodes_what_training_reads(tmp_path, small, monkeypatch):
    root = tree(tmp_path, {"train": {"happiness": 4, "sadness": 3}, "test": {"happiness": 2, "sadness": 2}})
    check(root)

    def decode(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(cache, "_build", decode)
    assert len(open_dataset("folder", root).split("test")) == 4


def test_identical_images_in_and_across_parts(tmp_path, small):
    root = tree(tmp_path, {"train": {"happiness": 9, "sadness": 6}, "test": {"happiness": 5, "sadness": 4}})
    for number, (source, copy) in enumerate(
        [
            ("train/happiness/0", "train/happiness"),  # in one part, labelled alike
            ("train/happiness/1", "train/sadness"),  # in one part, with two labels
            ("train/happiness/2", "test/happiness"),
            ("train/happiness/2", "test/happiness"),  # two test images that are one training image
            ("train/happiness/3", "test/sadness"),
            ("test/sadness/0", "test/happiness"),
        ]
    ):
        (root / copy / f"copy{number}.png").write_bytes((root / f"{source}.png").read_bytes())
    report = check(root)
    found = report.duplicates
    assert (found["groups"], found["conflicting"], found["near"]) == (5, 3, 0)
    assert found["across"] == [{"part": "test", "also_in": "train", "images": 3, "labelled_otherwise": 1}]
    assert "5 groups of identical images, 3 with conflicting labels, for instance train/" in told(report, "groups")
    assert "3 images of test also in train, 1 labelled otherwise" in told(report, "also in")
    assert len(report.problems) == 2


def test_nearly_identical_images(tmp_path, small):
    root = tree(tmp_path, {"train": {"happiness": 20, "sadness": 20}, "test": {"happiness": 9, "sadness": 9}})
    for part, name, number in (("train", "sadness", 3), ("test", "happiness", 4), ("test", "sadness", 5)):
        brighter = (cv2.imread(str(root / "train/happiness" / f"{number}.png"), 0) * 0.8 + 30).astype(np.uint8)
        put(root / part / name / f"near{number}.jpg", brighter)
    report = check(root)
    assert (report.duplicates["groups"], report.duplicates["across"]) == (0, [])
    assert [report.duplicates[key] for key in ("near", "near_conflicting", "near_across")] == [3, 2, 2]
    line = told(report, "nearly identical")
    assert line.startswith(
        "3 pairs of nearly identical images, 2 with conflicting labels, 2 across parts, for instance "
    )
    assert report.problems == (line,)


@pytest.mark.parametrize("columns", ["subjects", "groups"])
def test_images_of_one_subject_or_sequence_may_be_alike(columns, tmp_path, only):
    files = [put(tmp_path / f"{i}.png", (photograph(i // 2) * (1 - 0.2 * (i % 2))).astype(np.uint8)) for i in range(6)]
    only(row(lambda root: listed(files, part="all", **{columns: tuple("ppqqrs")})))
    report = check(tmp_path)
    assert report.duplicates["near"] == 1
    where = "1 across folds" if columns == "subjects" else "0 across parts"
    assert f"{where}, for instance 4.png (a) and 5.png (a)" in told(report, "nearly")
    assert report.subjects == (4 if columns == "subjects" else None)


def test_flat_images(tmp_path, small):
    root = tree(tmp_path, {"train": {"happiness": 3, "sadness": 3}, "test": {"happiness": 2, "sadness": 2}})
    put(root / "train/sadness/black.png", np.zeros((48, 48), np.uint8))
    put(root / "train/sadness/gray.png", np.full((60, 70), 128, np.uint8))
    put(root / "train/happiness/ramp.png", np.tile(np.arange(48, dtype=np.uint8), (48, 1)))  # gets brighter everywhere
    report = check(root)
    assert report.duplicates["flat"] == 2
    assert report.problems == ("2 images of one flat colour, for instance train/sadness/black.png (sadness)",)


def test_one_flat_colour_in_colour(tmp_path, only):
    only(replace(FOLDER, size=32, channels=3))
    root = tree(tmp_path, {"train": {"happiness": 3, "sadness": 3}, "test": {"happiness": 2, "sadness": 2}})
    put(root / "train/sadness/blue.png", np.full((48, 48, 3), (200, 20, 20), np.uint8))
    assert check(root).duplicates["flat"] == 1


def test_unreadable_images_are_listed_up_to_a_number(tmp_path, small):
    root = tree(tmp_path, {"train": {"happiness": 3, "sadness": 3}, "test": {"happiness": 2, "sadness": 2}})
    for number in range(LISTED + 5):
        (root / "train/sadness" / f"bad{number:02}.png").write_bytes(b"no picture")
    report = check(root)
    assert len(report.problems) == LISTED + 1
    assert report.problems[0].startswith("train: train/sadness/bad00.png: ")
    assert report.problems[-1] == "and 5 more images that cannot be read"
    assert report.counts["train"]["sadness"] == 3 + LISTED + 5
    assert report.duplicates["groups"] == report.duplicates["flat"] == 0


def test_nothing_can_be_read(tmp_path, small):
    for part in ("train", "test"):
        for name in ("happiness", "sadness"):
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "0.png").write_bytes(b"no picture")
    report = check(tmp_path)
    assert len(report.problems) == 4
    write_check_page(tmp_path / "report.html", report, tmp_path)
    assert Page((tmp_path / "report.html").read_text(encoding="utf-8")).images == []


def test_subjects_and_sequences_in_two_parts(tmp_path, only):
    files = [put(tmp_path / f"{i}.png", photograph(i)) for i in range(6)]

    def read(root):
        train = listed(files[:4], labels=[0, 0, 1, 1], subjects=tuple("pqrs"), groups=("p1", "q1", "r1", "s1"))
        test = listed(files[4:], labels=[0, 1], part="test", subjects=("q", "t"), groups=("q1", "t1"))
        return replace(train, parts=train.parts | test.parts, sequences=6, unlabelled=7)

    only(row(read))
    report = check(tmp_path)
    assert (report.subjects, report.sequences, report.unlabelled) == (5, 6, 7)
    assert report.problems == (
        "1 subject in train and in test, for instance q",
        "1 sequence in train and in test, for instance q1",
    )


def test_the_same_picture_in_two_folds(tmp_path, only):
    files = [put(tmp_path / f"{i}.png", photograph(i % 5)) for i in range(8)]
    subjects = ("s00", "s01", "s02", "s03", "s04", "s01", "s01", "s12")  # 5 = 0 is in two folds, 6 = 1 and 7 = 2 in one
    people = tuple(f"s{i:02}" for i in range(13))
    files += [put(tmp_path / f"more{i}.png", photograph(50 + i)) for i in range(13)]
    labels = [0] * 8 + [0, 1] + [0] * 8 + [1, 1, 1]  # of the thirteen, s01 and s10 to s12 are of class b
    only(row(lambda root: listed(files, labels=labels, part="all", subjects=subjects + people)))
    report = check(tmp_path)
    assert (report.duplicates["groups"], report.duplicates["in_two_folds"]) == (3, 1)
    assert "3 groups of identical images" in told(report, "1 in two folds")
    (note,) = report.notes
    assert note.endswith(": " + ", ".join(f"fold {fold} (b)" for fold in range(4, 11)))


def test_fewer_subjects_than_folds_are_told(tmp_path, only):
    files = [put(tmp_path / f"{i}.png", photograph(i)) for i in range(8)]
    only(row(lambda root: listed(files, labels=[0, 1] * 4, part="all", subjects=tuple("aabbccdd"))))
    assert check(tmp_path).notes == ("4 subjects, too few for 10 folds: --data.folds says how many",)


def test_what_a_reader_tells_is_passed_on(tmp_path, only):
    files = [put(tmp_path / f"{i}.png", photograph(i)) for i in range(4)]
    only(
        row(
            lambda root: replace(
                listed(files, labels=[0, 0, 1, 1], part="all"),
                notes=["cut anew"],
                problems=["a list without a picture"],
                faults=[f"line {number}: no label" for number in range(LISTED + 1)],
                ignored=Counter({"folder dev": 3}),
            ),
            licence="by mail",
        )
    )
    report = check(tmp_path)
    assert (report.notes, report.ignored, report.licence) == (("cut anew",), {"folder dev": 3}, "by mail")
    assert report.problems[0] == "line 0: no label"
    assert report.problems[LISTED:] == ("and 1 more rows or files that are corrupt", "a list without a picture")


def test_missing_parts_and_classes(tmp_path, only):
    files = [put(tmp_path / f"{i}.png", photograph(i)) for i in range(4)]
    read = lambda root: listed(files, labels=[0, 0, 1, 1], classes=tuple("abcd"))  # noqa: E731
    only(row(read, published={"train": {"a": 2, "b": 2, "c": 0, "d": 1}}))
    report = check(tmp_path)
    assert "d 0 (published 1)" in report.problems[0]
    assert report.problems[1:] == ("no test images", "train has no image of d")


@pytest.mark.parametrize(
    ("counts", "mixed"),
    [
        ((30, 20, 10), None),
        ((29, 20, 10), None),
        ((20, 30, 10), "b for a, a for b"),
        ((10, 30, 20), "b for a, c for b, a for c"),
        ((5, 5, 5), None),
    ],
)
def test_sizes_that_are_those_of_other_classes(counts, mixed, tmp_path, only):
    files = [put(tmp_path / f"{i}.png", photograph(i)) for i in range(sum(counts))]
    labels = np.repeat([0, 1, 2], counts)
    only(row(lambda root: listed(files, tuple("abc"), labels), published={"train": {"a": 30, "b": 20, "c": 10}}))
    lines = [line for line in check(tmp_path).problems if "another order" in line]
    assert len(lines) == (mixed is not None)
    if mixed:
        assert sorted(lines[0].rpartition(": ")[2].split(", ")) == sorted(mixed.split(", "))


def test_an_edition_is_compared_with_its_own_sizes(tmp_path, only):
    files = [put(tmp_path / f"{i}.png", photograph(i)) for i in range(3)]
    edition = {"all": {"a": 2, "b": 1}}
    only(
        row(
            lambda root: replace(listed(files, labels=[0, 0, 1], part="all"), published=edition),
            published={"all": {"a": 9, "b": 9}},
        )
    )
    report = check(tmp_path)
    assert (report.published, report.problems) == (edition, ())


def test_a_listing_without_a_picture_is_an_error(tmp_path, only):
    only(row(lambda root: replace(listed([]), faults=["table.csv: line 2: no label"])))
    with pytest.raises(InputError, match=r"no image of stub \(files\); table.csv: line 2: no label"):
        check(tmp_path)


# The page


def test_the_page_shows_faces_of_every_class(tmp_path, small):
    root = tree(tmp_path, {"train": {"happiness": FACES + 5, "sadness": 3}, "test": {"happiness": 2, "sadness": 2}})
    (root / "test/sadness/copy.png").write_bytes((root / "train/happiness/0.png").read_bytes())
    report = check(root)
    pages = []
    for name in ("one.html", "two.html"):
        write_check_page(tmp_path / name, report, root)
        pages.append((tmp_path / name).read_text(encoding="utf-8"))
    assert pages[0] == pages[1]
    page = Page(pages[0])
    assert len(page.images) == FACES + 3 + 2 + 3 + 2  # and the two of the pair
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert "script" not in page.tags
    assert all(line in page.words for line in report.problems)
    assert "Identical images with two labels" in page.words
    assert "Nearly identical" not in page.words


def test_the_page_takes_hostile_names_and_many_classes(tmp_path, small):
    names = [f"<script>alert({i})" for i in range(MOST_FACES + 10)]
    root = tree(tmp_path, {"train": dict.fromkeys(names, 1)})
    report = check(root)
    write_check_page(tmp_path / "report.html", report, "<b>")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not {"script", "b"} & {*page.tags} - {"b"}
    assert len(page.images) == MOST_FACES
    assert "The last 10 classes are not shown." in page.words
    with pytest.raises(InputError, match="cannot write"):
        write_check_page(tmp_path / "missing" / "report.html", report, root)
