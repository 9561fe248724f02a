"""Every layout under every protocol: no picture, subject or group is on two sides, and none gets lost."""

from itertools import combinations

import numpy as np
import pytest

from data_trees import draw, write
from fer_fast.data import SPLITS, OnDisk, Wanted, open_dataset
from fer_fast.data.crossed import Crossed
from fer_fast.data.splits import is_folded
from fer_fast.errors import InputError
from fer_fast.train.config import config_parser, resolve
from fer_fast.train.data import open_data
from layouts import LAYOUTS


def press_photographs(root):
    """A folder of one's own that says who is in a picture: thirteen people of two to four pictures."""
    rows = [(f"{person}-{number}", person) for person in range(13) for number in range(2 + person % 3)]
    write(root / "labels.csv", "\n".join(["image,subject,emotion", *(f"{n}.png,{p},{p % 3}" for n, p in rows)]))
    for i, (name, _) in enumerate(rows):
        draw(root / f"images/{name}.png", 30, 30, i)


TREES = {**{name: (layout.build, layout.dataset, layout.order) for name, layout in LAYOUTS.items()}}
TREES["labels.csv with subjects"] = (press_photographs, "folder", None)
TOO_FEW = ("affectnet older", "affectnet.csv")  # one picture a class to train on
NO_TEST = ("ckextended",)
BOTH_TESTS = ("fer2013.csv", "fer2013 tables", "fer2013 packed", "fer2013 folders")  # which joined puts together


def units(data: OnDisk, split: str) -> tuple[set, set]:
    """The pictures of a split as it is loaded, and the subjects and groups that they belong to."""
    part, rows = data._rows(split)
    listed, loaded = data.listing.parts[part], data.split(split)
    assert loaded.names == tuple(np.array(listed.names)[rows])
    columns = {"subject": listed.subjects, "group": listed.groups}
    kin = {(kind, column[row]) for kind, column in columns.items() if column for row in rows.tolist()}
    return {(part, row) for row in rows.tolist()}, kin


def assert_apart(data: OnDisk, splits=SPLITS) -> set:
    """No two of the splits share anything; gives all of their pictures."""
    found = {split: units(data, split) for split in splits}
    names = [name for split in splits for name in data.split(split).names]
    assert len(set(names)) == len(names)
    for one, other in combinations(splits, 2):
        for of_one, of_other in zip(found[one], found[other], strict=True):
            assert not of_one & of_other, (one, other)
    assert all(pictures for pictures, _ in found.values())
    return set.union(*(pictures for pictures, _ in found.values()))


def everything(data: OnDisk, *left_out: str) -> set:
    parts = data.listing.parts.items()
    return {(name, row) for name, part in parts if name not in left_out for row in range(len(part))}


def protocols(name: str, data: OnDisk) -> list[dict]:
    """What can be asked of a copy."""
    few = [{"seed": seed, "validation": validation} for seed in (0, 1) for validation in (0.125, 0.4)]
    if name in BOTH_TESTS:
        few += [{"options": {"joined": True}, "seed": seed} for seed in (0, 1)]
    if is_folded(data.listing):
        few += [{"folds": folds, "fold": fold} for folds in (3, 6) for fold in (1, 2, folds)]
    return few


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in TREES if name not in (*TOO_FEW, *NO_TEST)])
def test_no_picture_subject_or_group_is_on_two_sides(name, tmp_path):
    build, dataset, order = TREES[name]
    build(tmp_path)
    enough = {"order": order} if dataset != "mmi" else {"order": order, "folds": 6}  # sessions of the tree
    data = open_dataset(dataset, tmp_path, Wanted(**enough))
    for asked in protocols(name, data):
        data = open_dataset(dataset, tmp_path, Wanted(**{**enough, **asked}))
        assert assert_apart(data) == everything(data), asked


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in TREES if name not in (*TOO_FEW, "mmi")])
def test_training_alone_leaves_nothing_back(name, tmp_path):
    build, dataset, order = TREES[name]
    build(tmp_path)
    for seed in (0, 1):
        data = open_dataset(dataset, tmp_path, Wanted(seed=seed, order=order, role="training"))
        assert assert_apart(data, ("train", "val")) == everything(data, "test")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*TOO_FEW, *NO_TEST])
def test_what_cannot_be_cut_says_so(name, tmp_path):
    build, dataset, order = TREES[name]
    build(tmp_path)
    data = open_dataset(dataset, tmp_path, Wanted(order=order))
    split, message = (
        ("test", "has no test images; it has: train") if name in NO_TEST else ("val", "two training images")
    )
    with pytest.raises(InputError, match=message):
        data.split(split)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TREES)
def test_what_is_reported_is_no_part_of_what_is_trained_on(name, tmp_path):
    """Each layout in turn is reported on, and another is trained on; the pictures of two trees are of two datasets."""
    build, dataset, order = TREES[name]
    other = "labels.csv with subjects" if dataset != "folder" else "expw"
    build(tmp_path / "test")
    TREES[other][0](tmp_path / "train")
    options = {dataset: {"order": order} if order else {}}
    flags = [f"--dataset={TREES[other][1]}", f"--root={tmp_path / 'train'}", f"--test_dataset={dataset}"]
    config, _ = resolve(config_parser(), [*flags, f"--test_root={tmp_path / 'test'}"], [{"data": {"options": options}}])
    crossed = open_data(config)
    assert isinstance(crossed, Crossed)
    part, rows = crossed.reported._rows("test")
    parts = crossed.reported.listing.parts
    assert part == ("test" if "test" in parts else {"ckextended": "train"}.get(name, "all"))
    assert len(rows) == len(parts[part])
    assert assert_apart(crossed.trained, ("train", "val")) == everything(crossed.trained)
