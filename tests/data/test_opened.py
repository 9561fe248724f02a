"""What can be wanted of a dataset, and what is refused because it would do nothing, or something else than it says."""

import numpy as np
import pytest

from fer_fast.data import Wanted, load_dataset, open_dataset
from fer_fast.data.check import check
from fer_fast.errors import InputError
from layouts import LAYOUTS
from stub_datasets import listed, photograph, put, row, table_of

NAMED = ("fer2013.csv", "fer2013 folders", "fer2013 shards", "fer2013 arrow", "affectnet older", "yolo")
NUMBERED = ("fer2013 parquet", "affectnet newer", "affectnet.csv", "rafdb")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("faces", "align"),
        ("no_face", "skip"),
        ("unreadable", "skip"),
        ("duplicates", "drop"),
        ("fold", 1),
        ("folds", 5),
        ("validation", 0.25),
        ("order", "official"),
    ],
)
def test_drawn_faces_have_no_copy_to_be_particular_about(key, value):
    with pytest.raises(InputError, match=f"faces is drawn, so {key} does nothing; leave {key} out"):
        load_dataset("faces", samples=10, **{key: value})
    default = getattr(Wanted(), key)
    assert len(load_dataset("faces", samples=10, **{key: default})) == 10


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("order", ["official", "alphabetical", "x"])
def test_an_order_is_refused_where_a_copy_tells_its_own(name, order, tmp_path):
    """It would be believed to have done something, in the one place where nobody looks."""
    build, dataset, _ = LAYOUTS[name]
    build(tmp_path)
    with pytest.raises(InputError, match=r"\(.+\) tells what its classes are; leave order out"):
        open_dataset(dataset, tmp_path, Wanted(order=order))
    with pytest.raises(InputError, match="leave order out"):
        open_dataset(dataset, tmp_path, Wanted(options={"order": order}))
    with pytest.raises(InputError, match="leave order out"):
        check(tmp_path, dataset=dataset, order=order)
    open_dataset(dataset, tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NUMBERED)
def test_an_order_that_there_is_not_is_refused_with_those_there_are(name, tmp_path):
    build, dataset, order = LAYOUTS[name]
    build(tmp_path)
    with pytest.raises(InputError, match=rf"order is 'x'; allowed for {tmp_path}.*: \w+"):
        open_dataset(dataset, tmp_path, Wanted(order="x"))
    open_dataset(dataset, tmp_path, Wanted(order=order or "rafdb"))


def test_a_check_refuses_an_order_that_the_dataset_found_has_not(tmp_path):
    LAYOUTS["folder"].build(tmp_path)
    with pytest.raises(InputError, match="folder has no option 'order'"):
        check(tmp_path, order="official")


def test_boxes_are_cut_where_there_are_boxes(tmp_path):
    paths = [put(tmp_path / f"{i}.png", photograph(i)) for i in range(4)]
    boxes = np.array([[8, 8, 16, 16]] * 4, np.float32)
    with table_of(
        row(lambda root: listed(paths, part="test")), row(lambda root: listed(paths, part="test", boxes=boxes), "boxed")
    ):
        with pytest.raises(
            InputError, match=r"stub \(files\) gives no box of a face; faces can be whole, align or haar"
        ):
            load_dataset("stub", tmp_path, split="test", faces="box")
        cut = load_dataset("boxed", tmp_path, split="test", faces="box", image_size=16)
    assert (cut.images[0][0].numpy() == photograph(0)[8:24, 8:24, 0]).all()


@pytest.mark.parametrize("value", ["no", "false", 1, None])
def test_a_switch_is_true_or_false(value, tmp_path):
    LAYOUTS["mmi"].build(tmp_path)
    with pytest.raises(InputError, match=f"mmi: stills is {value!r}; allowed: true or false"):
        open_dataset("mmi", tmp_path, Wanted(options={"stills": value}))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"folds": 2}, "folds is 2; allowed: 3 or more, to test, select and train on"),
        ({"validation": 0}, "validation is 0; allowed: a share of the training images below 1, or so many images a"),
        ({"validation": -0.5}, "validation is -0.5; allowed"),
        ({"validation": 1.5}, "validation is 1.5; allowed"),
        ({"validation": float("nan")}, "validation is nan; allowed"),
        ({"validation": float("inf")}, "validation is inf; allowed"),
    ],
)
def test_cuts_out_of_range_are_refused(wanted, message):
    with pytest.raises(InputError, match=message):
        Wanted(**wanted)


@pytest.mark.filterwarnings("ignore")
def test_folds_share_one_cache(tmp_path, cache):
    """Whatever number of them, and whatever is cut for validation."""
    LAYOUTS["oulu_casia"].build(tmp_path)
    for wanted in ({}, {"fold": 2}, {"folds": 3, "fold": 3}, {"role": "training", "validation": 5}):
        opened = open_dataset("oulu-casia", tmp_path, Wanted(**wanted))
        assert len(opened.split("train")) + len(opened.split("val")) > 0
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


def test_a_split_that_loses_all_its_images_says_why(tmp_path):
    """Each picture to train on is in the test part as well."""
    paths = [put(tmp_path / f"{i}.png", photograph(i)) for i in range(6)]

    def read(root):
        listing = listed(paths, labels=[0, 1] * 3)
        listing.parts["test"] = listing.parts["train"]
        return listing

    with (
        table_of(row(read)),
        pytest.raises(InputError, match=r"no image of stub is left for val; 2 images that are also"),
    ):
        load_dataset("stub", tmp_path, split="val", duplicates="drop")
