"""Training on one dataset and reporting on another: which images, which classes, and what is refused."""

import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from fer_fast.cli import main
from fer_fast.data.crossed import of_classes
from fer_fast.data.dataset import FaceDataset
from fer_fast.errors import InputError
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.config import config_parser, resolve
from fer_fast.train.data import load_splits
from fer_fast.train.evaluation import match_classes
from fer_fast.train.idle import refuse_idle
from layouts import LAYOUTS
from stub_datasets import listed, photograph, put, row, table_of
from tiny_backbone import TINY

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

TRAIN = ("happiness", "sadness", "neutral")  # of the stub that is trained on
TEST = ("sadness", "contempt", "happiness")  # of the one that is reported on, in another order


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch, tmp_path_factory):
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path_factory.mktemp("cache")))


def pictures(root: Path, seeds) -> list[Path]:
    return [put(root / f"{seed}.png", photograph(seed)) for seed in seeds]


def configure(root, *flags):
    flags = ("--dataset=trained", f"--root={root}", "--test_dataset=tested", f"--test_root={root}/test", *flags)
    return resolve(config_parser(), ["--backbone=tiny", "--augment.size=32", "--hardware.device=cpu", *flags], [])[0]


@pytest.fixture
def splits(tmp_path):
    """Loads 24 pictures to train on and these to report on."""
    (tmp_path / "test").mkdir()
    trained = pictures(tmp_path, range(24))

    def load(tested, labels, *flags, part="all", columns=None, **about):
        def read_trained(root):
            return listed(trained, TRAIN, np.arange(24) % 3, "all", **(columns or {}))

        def read_tested(root):
            listing = listed(tested, TEST, labels, part, **about)
            if part == "test":
                listing.parts["train"] = listing.parts["test"].take(np.arange(1))
            return listing

        with table_of(row(read_trained, "trained", TRAIN), row(read_tested, "tested", TEST)):
            return load_splits(configure(tmp_path, *flags))

    return load


def names(dataset):
    return set(dataset.names)


# Which images


def test_one_dataset_is_trained_on_whole_and_all_of_the_other_is_reported(splits, tmp_path):
    data = splits(pictures(tmp_path / "test", range(100, 110)), [0, 2] * 5)
    assert names(data.test) == {f"{seed}.png" for seed in range(100, 110)}
    assert names(data.train) | names(data.val) == {f"{seed}.png" for seed in range(24)}
    assert not names(data.train) & names(data.val)
    assert (len(data.train), len(data.val), data.folds) == (21, 3, None)  # an eighth, and nothing for a test
    assert [part.split for part in data[:3]] == ["train", "val", "test"]


def test_an_official_test_part_alone_is_reported(splits, tmp_path):
    data = splits(pictures(tmp_path / "test", range(100, 106)), [0, 2] * 3, part="test")
    assert names(data.test) == {f"{seed}.png" for seed in range(100, 106)}
    assert "reported on tested, its test part" in data.notes


def test_whole_subjects_are_cut_for_validation(splits, tmp_path):
    people = {"subjects": tuple(f"p{i // 3}" for i in range(24))}
    data = splits(pictures(tmp_path / "test", [100]), [0], columns=people)
    sides = [{int(name.split(".")[0]) // 3 for name in part.names} for part in (data.train, data.val)]
    assert sides[0] | sides[1] == set(range(8))
    assert not sides[0] & sides[1]
    assert len(sides[1]) == 1


def test_seeds_cut_and_so_many_images_a_class_are_cut(splits, tmp_path):
    tested = pictures(tmp_path / "test", [100])
    first, again, other = (splits(tested, [0], f"--seed={seed}").val for seed in (0, 0, 1))
    assert names(first) == names(again) != names(other)
    assert splits(tested, [0], "--data.validation=2").val.class_counts().tolist() == [2, 2, 2]
    with pytest.raises(InputError, match="trained: validation takes 8 images of each class, of happiness there are 8"):
        splits(tested, [0], "--data.validation=8")


# Which classes


def test_classes_meet_by_name_and_those_that_are_not_trained_on_are_left_out(splits, tmp_path):
    data = splits(pictures(tmp_path / "test", range(100, 106)), [0, 1, 2, 1, 0, 1])
    assert names(data.test) == {"100.png", "102.png", "104.png"}
    assert match_classes(data.test, data.train.classes).tolist() == [1, 0, 1]  # sadness, happiness, sadness
    assert data.notes[-2:] == (
        "test: 3 images of classes that are not trained on are left out: 3 of contempt",
        "test: the test split has no neutral: mean accuracy is over the classes present",
    )
    assert "reported on tested, all of it" in data.notes


def test_a_dataset_of_no_class_that_is_trained_on_is_refused(splits, tmp_path):
    with pytest.raises(InputError, match="the test data has images of contempt and none of what is trained on: happi"):
        splits(pictures(tmp_path / "test", [100, 101]), [1, 1])


def test_images_of_classes_keep_their_columns():
    images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)
    dataset = FaceDataset(images, torch.tensor([2, 0, 1, 2]), ("a", "b", "c"), "test", subjects=torch.arange(4))
    kept = of_classes(dataset, ("c", "a"))
    assert (kept.labels.tolist(), kept.subjects.tolist(), kept.images.flatten().tolist()) == (
        [2, 0, 2],
        [0, 1, 3],
        [0, 1, 3],
    )
    assert kept.notes == ("1 images of classes that are not trained on are left out: 1 of b",)
    assert of_classes(dataset, ("a", "b", "c")) == dataset


# Pictures that are in both


def test_what_is_reported_never_selects_the_model(splits, tmp_path):
    """Each picture of training is reported as well, but for seven."""
    copies = [Path(shutil.copy(tmp_path / f"{seed}.png", tmp_path / "test")) for seed in range(17)]
    data = splits(copies, [0, 2] * 8 + [0])
    left = names(data.val)
    assert left <= {f"{seed}.png" for seed in range(17, 24)}
    assert f"val: {3 - len(left)} images that are also in the test split are left out" in data.notes
    repeated = len(names(data.train) & names(data.test))
    assert f"pixel for pixel or nearly: {repeated} images of train and val" in data.notes[-1]
    data = splits(copies, [0, 2] * 8 + [0], "--data.duplicates=drop")
    assert not names(data.train) & names(data.test)
    assert f"train: {repeated} images that are also in the test split are left out" in data.notes


def test_a_copy_of_what_is_trained_on_leaves_nothing_to_select_by(splits, tmp_path):
    copies = [Path(shutil.copy(tmp_path / f"{seed}.png", tmp_path / "test")) for seed in range(24)]
    with pytest.raises(InputError, match="no image of trained is left for val; 3 images that are also in the test"):
        splits(copies, [0, 2] * 12)


def test_pictures_in_both_are_found_at_another_size_and_in_colour(splits, tmp_path):
    larger = np.repeat(np.repeat(photograph(0), 2, 0), 2, 1)
    tested = [put(tmp_path / "test/x.png", np.repeat(larger, 3, 2)), *pictures(tmp_path / "test", [100])]
    data = splits(tested, [0, 0], "--data.duplicates=drop")
    assert "0.png" not in names(data.train) | names(data.val)
    assert len(data.train) + len(data.val) == 23


def test_faces_that_are_cut_otherwise_are_said(splits, tmp_path):
    boxes = {"boxes": np.array([[0, 0, 40, 40]] * 2, np.float32)}

    def cut(listing):
        listing.faces = "box"
        return listing

    tested = pictures(tmp_path / "test", [100, 101])
    trained = pictures(tmp_path, range(24))
    with table_of(
        row(lambda root: listed(trained, TRAIN, np.arange(24) % 3, "all"), "trained", TRAIN),
        row(lambda root: cut(listed(tested, TEST, [0, 2], "all", **boxes)), "tested", TEST),
    ):
        data = load_splits(configure(tmp_path))
    assert "faces: whole in training, box in test, so pictures in both may go unseen" in data.notes


# What is refused


def said(capsys, *flags):
    assert main(["train", "--backbone=tiny", "--augment.size=32", *map(str, flags)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--test_root=x", "test_root is x, without a test_dataset that lies there (--test_dataset NAME)"),
        ("--test_dataset=ckplus", "ckplus is read from a folder; give its path as test_root (--test_root DIR)"),
        ("--test_dataset=ckpuls", "test_dataset: 'ckpuls' is not one of"),
        ("--test_dataset=faces", "faces is what is trained on; leave test_dataset out to report its own test split"),
        ("--dataset=ckplus --root=x --test_dataset=faces --test_root=x", "faces are drawn and read no folder; leave"),
        ("--test_dataset=ckplus --test_root=x", "x does not exist"),
        ("--test_dataset=ckplus --test_root=x --data.fold=1", "data.fold does nothing in this run; it acts on train"),
        (
            "--dataset=expw --root=x --test_dataset=ckplus --test_root=y --data.fold=2",
            "data.fold does nothing in this run; it acts without test_dataset",
        ),
        (
            "--dataset=expw --root=x --test_dataset=ckplus --test_root=y --data.folds=5",
            "data.folds does nothing in this run; it acts without test_dataset",
        ),
        (
            "--test_dataset=ckplus --test_root=y --data.order=official",
            "data.order does nothing in this run; it acts on t",
        ),
        ("--dataset=expw --root=x --test_dataset=faces --data.duplicates=drop", "where the test images are read"),
        (
            "--dataset=expw --root=x --data.options.ckplus.order=x",
            "data.options.ckplus does nothing in this run, which reads those of expw",
        ),
    ],
)
def test_one_line_says_what_is_wrong(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert message in said(capsys, *flags.split())
    assert not (tmp_path / "runs").exists()


def test_the_folder_that_is_trained_on_is_not_reported(tmp_path, capsys):
    LAYOUTS["expw"].build(tmp_path / "expw")
    os.symlink(tmp_path / "expw", tmp_path / "link")
    for other in (tmp_path / "expw", tmp_path / "link", f"{tmp_path}/expw/../expw/"):
        flags = ("--dataset=expw", f"--root={tmp_path / 'expw'}", "--test_dataset=folder", f"--test_root={other}")
        assert f"{other} is what is trained on; leave test_dataset out" in said(capsys, *flags)


@pytest.mark.parametrize(
    "flags",
    [
        "--dataset=expw --test_dataset=ckplus --data.options.ckplus.order=x --data.duplicates=drop",
        "--test_dataset=ckplus --data.faces=align --data.unreadable=skip",
        "--dataset=expw --test_dataset=faces --data.options.faces.num_classes=8 --data.order=x",
    ],
)
def test_what_acts_on_either_dataset_is_taken(flags):
    config, _ = resolve(config_parser(), flags.split(), [])
    refuse_idle(config, flags.split(), {}, {})


@pytest.mark.parametrize(
    ("name", "crossed", "acts"),
    [
        ("fer2013.csv", False, False),  # has a validation part
        ("fer2013 shards", False, True),
        ("ckplus", False, False),  # a fold is
        ("ckplus", True, True),
        ("expw", False, True),
    ],
)
def test_validation_is_refused_where_nothing_is_cut_for_it(name, crossed, acts, tmp_path):
    build, dataset, _ = LAYOUTS[name]
    build(tmp_path)
    flags = [f"--dataset={dataset}", f"--root={tmp_path}", "--data.validation=0.2"]
    flags += ["--test_dataset=faces"] if crossed else []
    config, _ = resolve(config_parser(), flags, [])
    if acts:
        refuse_idle(config, flags, {}, {})
        return
    with pytest.raises(InputError, match=r"data\.validation does nothing in this run; it acts where there is neither"):
        refuse_idle(config, flags, {}, {})


def test_what_a_recipe_wants_of_pictures_on_disk_does_not_keep_it_from_drawn_ones():
    flags = ["--data.validation=500", "--data.faces=haar", "--data.options.faces.samples=8"]
    assert len(load_splits(resolve(config_parser(), flags, [])[0]).val) == 8
    with pytest.raises(InputError, match="faces is drawn, so fold does nothing; leave fold out"):
        load_splits(resolve(config_parser(), [*flags, "--data.fold=2"], [])[0])


# The command


def test_a_run_on_expw_is_reported_on_ckplus(tmp_path, capsys):
    """Seven classes with neutral are trained on; CK+ has contempt, and none of neutral."""
    LAYOUTS["expw"].build(tmp_path / "expw")
    LAYOUTS["ckplus"].build(tmp_path / "ckplus")
    run = ["train", "--backbone=tiny", "--augment.size=32", "--batch_size=4", "--epochs=1", "--data.faces=whole"]
    run += ["--dataset=expw", f"--root={tmp_path / 'expw'}", "--hardware.device=cpu", f"--out={tmp_path / 'out'}"]
    assert main([*run, "--test_dataset=ckplus", f"--test_root={tmp_path / 'ckplus'}"]) == 0
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    support = {name: about["support"] for name, about in metrics["per_class"].items()}
    # Ten people, person i of class i mod 7 from 1 (anger, contempt, disgust, ...), twice the last three frames.
    assert support == {
        **{"neutral": 0, "happiness": 6, "sadness": 6, "surprise": 6, "fear": 6, "disgust": 12, "anger": 12},
    }
    present = [about["recall"] for name, about in metrics["per_class"].items() if name != "neutral"]
    assert metrics["average_accuracy"] == pytest.approx(sum(present) / 6)
    assert "test: 12 images of classes that are not trained on are left out: 12 of contempt" in metrics["notes"]
    assert not (tmp_path / "out/folds.json").exists()
    # The checkpoint is evaluated on what its run reported, without the images that it was trained on.
    shutil.rmtree(tmp_path / "expw")
    warnings.simplefilter("always")  # until pytest puts its own filters back
    capsys.readouterr()
    for number, options in enumerate(([], ["--dataset=ckplus"], [f"--root={tmp_path / 'ckplus'}"])):
        out = tmp_path / f"eval-{number}"
        assert main(["eval", f"--checkpoint={tmp_path / 'out'}", "--device=cpu", f"--out={out}", *options]) == 0
        assert json.loads((out / "metrics.json").read_text())["data"]["test"] == metrics["data"]["test"]
    assert "images of classes that are not trained on are left out: 12 of contempt" in capsys.readouterr().err
    assert main(["eval", f"--checkpoint={tmp_path / 'out'}", "--fold=2"]) == 2
    assert "a run that is reported on another dataset has no folds; leave fold out" in capsys.readouterr().err


def test_both_folders_may_move_before_a_run_goes_on(tmp_path, capsys):
    LAYOUTS["expw"].build(tmp_path / "expw")
    LAYOUTS["ck48"].build(tmp_path / "ck48")
    run = ["train", "--backbone=tiny", "--augment.size=32", "--batch_size=4", f"--out={tmp_path / 'out'}"]
    run += ["--dataset=expw", "--test_dataset=ckplus", "--data.faces=whole", "--hardware.device=cpu"]
    roots = [f"--root={tmp_path / 'expw'}", f"--test_root={tmp_path / 'ck48'}"]
    assert main([*run, *roots, "--epochs=1"]) == 0
    assert "expw, tested on ckplus, " in capsys.readouterr().out
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("expw", "ck48"):
        (tmp_path / name).rename(moved / name)
    assert main([*run, f"--root={moved / 'expw'}", f"--test_root={moved / 'ck48'}", "--epochs=2", "--resume"]) == 0
    assert main([*run, f"--root={moved / 'expw'}", "--test_dataset=faces", "--epochs=3", "--resume"]) == 2
    assert "test_dataset was ckplus and is now faces" in capsys.readouterr().err


def test_no_image_of_training_is_evaluated_as_test(tmp_path, capsys):
    """Of a dataset without a test part that was trained on whole there is none."""
    LAYOUTS["expw"].build(tmp_path / "expw")
    run = ["train", "--backbone=tiny", "--augment.size=32", "--batch_size=4", "--epochs=1", "--data.faces=whole"]
    run += ["--dataset=expw", f"--root={tmp_path / 'expw'}", "--hardware.device=cpu", f"--out={tmp_path / 'out'}"]
    assert main([*run, "--test_dataset=faces", "--data.options={faces: {samples: 14}}"]) == 0
    evaluate = ["eval", f"--checkpoint={tmp_path / 'out'}", "--device=cpu", "--dataset=expw"]
    assert main([*evaluate, "--split=val"]) == 0
    assert main(evaluate) == 2
    assert "has no test images; it has: all" in capsys.readouterr().err
