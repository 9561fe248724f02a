"""Custom classes: the mean direction of a few images, the largest cosine, and unknown below a threshold."""

import json
import math

import pytest
import torch

from data_trees import draw, write
from fer_fast.cli import main
from fer_fast.data.dataset import FaceDataset
from fer_fast.data.sources.rafdb import COMPOUND
from fer_fast.errors import InputError
from fer_fast.serve import custom_classes
from fer_fast.serve.custom_classes import Enrolment, evaluate_enrolment
from fer_fast.serve.enrolment import NO_CLASS, prototypes, recognise
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.config import RunConfig, config_parser, resolve
from fer_fast.train.evaluation import Trained
from fer_fast.train.hardware import Hardware
from fer_fast.train.learner import build_recogniser
from fer_fast.train.objective import plan_losses
from quarters import QUARTERS, SIDE
from tiny_backbone import TINY

CLASSES = ("bright left", "bright right", "never seen")


@pytest.fixture(autouse=True)
def backbones(monkeypatch, tmp_path):
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    monkeypatch.setitem(BACKBONES, "quarters", QUARTERS)
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path / "cache"))


def images(quarters, split, labels, classes=CLASSES):
    """One image a number: which of its quarters is white."""
    pixels = torch.zeros(len(quarters), 1, SIDE, SIDE, dtype=torch.uint8)
    half = SIDE // 2
    for image, quarter in zip(pixels, quarters, strict=True):
        row, column = divmod(quarter, 2)
        image[:, row * half :, column * half :][:, :half, :half] = 255
    return FaceDataset(pixels, torch.tensor(labels), classes, split)


def trained(loss="lmcl"):
    flags = ["--backbone=quarters", f"--loss={loss}", f"--augment.size={SIDE}", "--hardware.device=cpu"]
    config: RunConfig = resolve(config_parser(), flags, [])[0]
    recogniser = build_recogniser(config, plan_losses(config), torch.ones(7), tuple("abcdefg")).eval()
    return Trained(recogniser, tuple("abcdefg"), config, Hardware(config.hardware), {}, ())


# Directions


def test_a_prototype_is_the_mean_of_directions_whatever_their_lengths():
    features = torch.tensor([[3.0, 0.0], [-2.0, 0.0], [0.0, 100.0]])
    half = math.sqrt(0.5)
    torch.testing.assert_close(
        prototypes(features, torch.tensor([0, 1, 0]), 2), torch.tensor([[half, half], [-1.0, 0.0]])
    )


def test_the_paper_s_equation_term_by_term():
    features = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % 3
    for number, direction in enumerate(prototypes(features, labels, 3)):
        mean = (
            sum(x / x.norm() for x, y in zip(features, labels, strict=True) if y == number) / (labels == number).sum()
        )
        torch.testing.assert_close(direction, mean / mean.norm())


def test_the_largest_cosine_is_recognised_where_it_exceeds_the_threshold():
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    features = torch.tensor([[5.0, 1.0], [0.1, 0.3], [1.0, 1.1], [-1.0, 0.0], [-1.0, 3.0]])
    # Largest cosines: 5/√26 = 0.981, 3/√10 = 0.949, 1.1/√2.21 = 0.740, 0, 3/√10 = 0.949.
    assert recognise(features, directions, 0.6).tolist() == [0, 1, 1, NO_CLASS, 1]
    assert recognise(features, directions, 0.75).tolist() == [0, 1, NO_CLASS, NO_CLASS, 1]
    assert recognise(features, directions, 0.96).tolist() == [0, NO_CLASS, NO_CLASS, NO_CLASS, NO_CLASS]
    assert recognise(features, directions, 0.0)[3] == NO_CLASS  # no more than the threshold
    assert recognise(features, directions, -0.5)[3] == 1


# A checkpoint on a dataset


def test_numbers_of_images_whose_directions_are_known(tmp_path):
    """Quarter 0 is enrolled as the first class, quarter 1 as the second; their cosine is 0, as that with the others."""
    enrolled = images([0, 0, 1, 1], "train", [0, 0, 1, 1])
    verified = images([0, 0, 0, 1, 3, 1, 1], "test", [0, 0, 0, 0, 0, 1, 1])
    metrics = evaluate_enrolment(trained(), enrolled, verified, Enrolment(samples=2), tmp_path / "out")
    assert metrics == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx(5 / 7)
    assert metrics["average_accuracy"] == pytest.approx((3 / 5 + 1) / 2)
    assert metrics["enrol"] == {"samples": 2, "threshold": 0.6, "verify": None, "seed": 0, "unknown": 1 / 7}
    assert metrics["per_class"] == {
        "bright left": {"recall": 0.6, "unknown": 0.2, "support": 5},
        "bright right": {"recall": 1.0, "unknown": 0.0, "support": 2},
    }
    assert metrics["confusion_matrix"] == [[3, 1, 1], [0, 2, 0]]
    assert (metrics["classes"], metrics["split"], metrics["images"]) == (list(CLASSES[:2]), "test", 7)
    with pytest.raises(InputError, match="already holds a run"):
        evaluate_enrolment(trained(), enrolled, verified, Enrolment(samples=2), tmp_path / "out")


def test_before_and_after_by_directions_known_by_hand(tmp_path):
    """Of the model's seven classes the third is quarter 0 and the fifth quarter 3; the others are opposite to all."""
    model = trained()
    quarter = torch.tensor([[2.0 * (i == k) - 2.0 * (i != k) for i in range(4)] for k in range(4)])
    opposite = -torch.ones(4)
    with torch.no_grad():
        model.recogniser.classifier.weight.copy_(torch.stack([opposite] * 7))
        model.recogniser.classifier.weight[2], model.recogniser.classifier.weight[4] = 3 * quarter[0], quarter[3]
    enrolled = images([0, 0, 1, 1], "train", [0, 0, 1, 1])
    verified = images([0, 0, 0, 1, 3, 1, 1, 2], "test", [0, 0, 0, 0, 0, 1, 1, 1])
    metrics = evaluate_enrolment(model, enrolled, verified, Enrolment(samples=2), tmp_path / "out")
    # Quarters 1 and 2 have cosine 0.5 with `opposite`, and 0 with each other: below the threshold.
    assert metrics["before"] == {
        "classes": list("abcdefg"),
        "confusion_matrix": [[1, 0, 3, 0, 1, 0, 0], [3, 0, 0, 0, 0, 0, 0]],
        "unknown": 4 / 8,
    }
    after = metrics["after"]
    assert after["classes"] == [*"abcdefg", *CLASSES[:2]]
    # Of equal cosines the first: quarter 0 stays the third class's.
    assert after["confusion_matrix"] == [[0, 0, 3, 0, 1, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0, 0, 0, 2, 1]]
    assert [row["recall"] for row in after["per_class"].values()] == [0.0, 2 / 3]
    assert (after["accuracy"], after["average_accuracy"]) == (2 / 8, pytest.approx(1 / 3))
    page = (tmp_path / "out" / "report.html").read_text()
    assert [page.count(f"<h2>{heading}</h2>") for heading in ("Before", "After", "Alone")] == [1, 1, 1]
    assert page.count("</th>") == (1 + 7 + 2) + (1 + 10 + 2) + (1 + 3 + 2)


def test_an_enrolled_class_takes_the_place_of_one_of_its_name():
    model = trained()
    names = ("c", "d", "never seen")
    enrolled, verified = images([0, 1], "train", [0, 1], names), images([0, 0, 1], "test", [0, 0, 1], names)
    after = evaluate_enrolment(model, enrolled, verified, Enrolment(1, threshold=-1))["after"]
    assert after["classes"] == [*"abefg", "c", "d"]
    assert [row["recall"] for row in after["per_class"].values()] == [1.0, 1.0]


def test_a_threshold_below_every_cosine_leaves_nothing_unknown():
    enrolled = images([0, 1], "train", [0, 1])
    metrics = evaluate_enrolment(trained(), enrolled, images([3, 0], "test", [0, 0]), Enrolment(1, threshold=-0.5))
    assert (metrics["accuracy"], metrics["enrol"]["unknown"]) == (1.0, 0.0)  # of equal cosines the first
    assert metrics["per_class"]["bright right"] == {"recall": None, "unknown": None, "support": 0}
    assert metrics["average_accuracy"] == 1.0


def test_the_seed_draws_the_images():
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (40, 1, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    enrolled, verified = (
        FaceDataset(pixels[part], torch.arange(20) % 2, CLASSES, split)
        for split, part in (("train", slice(20)), ("test", slice(20, 40)))
    )
    first, again, other = (
        evaluate_enrolment(trained(), enrolled, verified, Enrolment(3, verify=4, seed=seed))["data"]
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first["enrolled"] != other["enrolled"]
    assert first["test"] != other["test"]


def test_so_many_images_of_each_class_are_drawn_and_none_twice():
    dataset = images([0, 1, 2, 3] * 5, "train", [0, 1] * 10)
    drawn = custom_classes.draw(dataset, 4, 0, CLASSES[:2], "enrol")
    assert drawn.class_counts().tolist() == [4, 4, 0]
    numbered = FaceDataset(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1), dataset.labels, CLASSES, "train")
    assert len(custom_classes.draw(numbered, 10, 3, CLASSES[:2], "enrol").images.unique()) == 20


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (Enrolment(3), "enrol takes 3 train images of each class; bright right has 2"),
        (Enrolment(2, verify=2), "verify takes 2 test images of each class; bright right has 1"),
    ],
)
def test_a_class_with_too_few_images_is_named(how, message):
    enrolled, verified = images([0] * 3 + [1] * 2, "train", [0] * 3 + [1] * 2), images([0, 0, 1], "test", [0, 0, 1])
    with pytest.raises(InputError, match=message):
        evaluate_enrolment(trained(), enrolled, verified, how)


@pytest.mark.parametrize("loss", ["softmax", "l-softmax"])
def test_a_classifier_of_other_than_directions_is_refused(loss):
    data = images([0, 1], "train", [0, 1])
    with pytest.raises(
        InputError, match=rf"as lmcl, arcface, a-softmax do; the classifier of this checkpoint is {loss}"
    ):
        evaluate_enrolment(trained(loss), data, data, Enrolment(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "enrol is 0"),
        ({"verify": 0}, "verify is 0"),
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"threshold": -1.1}, "threshold is -1.1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Enrolment(**options)


# The command


def compound(root, train=12, test=3):
    """RAF-DB's compound set: pictures of noise, so many of each of its eleven classes."""
    stems = [f"train_{i:05d}" for i in range(11 * train)] + [f"test_{i:04d}" for i in range(11 * test)]
    rows = [f"{stem}.jpg {i % 11 + 1}" for i, stem in enumerate(stems)]
    write(root / "compound/EmoLabel/list_patition_label.txt", "\n".join(rows))
    for i, stem in enumerate(stems):
        draw(root / f"compound/Image/aligned/{stem}_aligned.jpg", SIDE, SIDE, i)
    return root


def test_compound_expressions_are_enrolled_in_a_model_of_basic_ones(tmp_path, capsys):
    root, out = compound(tmp_path / "raf"), tmp_path / "out"
    train = ["--backbone=tiny", "--loss=lmcl", "--data.options={faces: {samples: 16}}", f"--augment.size={SIDE}"]
    assert main(["train", *train, "--epochs=1", "--batch_size=8", f"--out={tmp_path / 'run'}"]) == 0
    capsys.readouterr()
    command = ["eval", f"--checkpoint={tmp_path / 'run'}", "--dataset=rafdb-compound", f"--root={root}", "--enrol=10"]
    assert main([*command, "--verify=2", "--threshold=-1", "--seed=5", f"--out={out}"]) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    assert "11 classes, each enrolled by 10 images of train, threshold -1\ntest (22 images), " in printed
    assert f"average_accuracy {metrics['average_accuracy']:.4f}  unknown 0.0000" in printed
    assert "recall among 18  nearest before" in printed
    assert f"among all 18: average_accuracy {metrics['after']['average_accuracy']:.4f}\n" in printed
    assert [len(row) for row in metrics["before"]["confusion_matrix"]] == [7] * 11
    assert [len(row) for row in metrics["after"]["confusion_matrix"]] == [19] * 11
    counts, names = metrics["before"]["confusion_matrix"][3], metrics["before"]["classes"]
    row = next(line for line in printed.splitlines() if "sadly angry" in line)
    assert f"  {names[counts.index(max(counts))]} {max(counts) / 2:.0%}" in row
    assert metrics["classes"] == list(COMPOUND.classes)
    assert [row["support"] for row in metrics["per_class"].values()] == [2] * 11
    assert metrics["enrol"] == {"samples": 10, "threshold": -1.0, "verify": 2, "seed": 5, "unknown": 0.0}
    recalls = [row["recall"] for row in metrics["per_class"].values()]
    assert metrics["average_accuracy"] == pytest.approx(sum(recalls) / 11)
    for options, message in (
        (["--verify=4"], "verify takes 4 test images of each class; happily surprised has 3"),
        (["--enrol=13"], "enrol takes 13 train images of each class; happily surprised has 10"),  # two are of val
        (["--split=train"], "--split is val or test"),
    ):
        assert main([*command, *options]) == 2
        assert message in capsys.readouterr().err


def test_options_of_custom_classes_do_nothing_without_them(capsys):
    assert main(["eval", "--checkpoint=x", "--threshold=0.5"]) == 2
    assert "--threshold does nothing without --enrol" in capsys.readouterr().err
