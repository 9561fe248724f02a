"""What a report says of training: its curves, what was selected, what the run was."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from fer_fast.train import figures
from fer_fast.train.metrics import evaluate
from report_pages import CLASSES, run, written


def test_training_and_validation_loss_share_an_axis_only_where_they_are_one_formula(tmp_path):
    """And a margin's is said to be another."""
    _, apart = written(tmp_path, **run())
    assert "Training objective" in apart.words
    assert "Validation cross-entropy" in apart.words
    assert "their heights cannot be compared" in apart.words
    _, together = written(tmp_path, **run(one_loss=True))
    assert "Training objective" not in together.words
    assert "cannot be compared" not in together.words
    assert together.tags.count("svg") == apart.tags.count("svg") - 1


def test_the_selected_epoch_is_marked_where_it_lies(tmp_path):
    arguments = run()
    assert "which was selected" not in written(tmp_path, **arguments)[1].words
    arguments["metrics"]["epoch"] = 3
    assert written(tmp_path, **arguments)[1].words.count("dotted: 3, which was selected") == 3
    svg = figures.curves(arguments["history"], {"val_loss": "x"}, title="x", marked=3)
    lines = [node.get("d") for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")]
    points = [np.array(re.findall(r"[ML] (\S+) (\S+)", d), dtype=float) for d in lines if d and "z" not in d]
    (drawn,) = (each for each in points if len(each) == 4)
    assert any(len(each) == 2 and abs(each[:, 0] - drawn[2, 0]).max() < 1e-3 for each in points)


def test_the_axis_of_the_rate_is_whole():
    """Read back: every value lies inside of the axes, the last of a cosine and 0, too; decades are equally far."""
    for last in (0.0, 1e-9, 2e-3):
        rates = [0.0 if last == 0 else 1e-3, 0.1, 0.01, last]
        history = [{"epoch": e, "rate": rate} for e, rate in enumerate(rates, 1)]
        root = ElementTree.fromstring(figures.curves(history, {"rate": "rate"}, title="rate", scale="log"))
        paths = [node.get("d") for node in root.iter("{http://www.w3.org/2000/svg}path")]
        shapes = [np.array(re.findall(r"[ML] (\S+) (\S+)", d), dtype=float) for d in paths if d]
        frame = shapes[1]  # the first is the figure's, the second that of the axes
        (drawn,) = (
            each for d, each in zip(filter(None, paths), shapes, strict=True) if len(each) == 4 and "z" not in d
        )
        assert drawn[:, 1].min() > frame[:, 1].min()
        assert drawn[:, 1].max() < frame[:, 1].max()
        heights = dict(zip(rates, drawn[:, 1], strict=True))
        assert heights[last] > heights[0.01] > heights[0.1]  # SVG counts downwards
        if 1e-3 in heights and last < 1e-3:
            assert heights[1e-3] - heights[0.01] == pytest.approx(heights[0.01] - heights[0.1], abs=0.01)
    assert figures.curves([{"epoch": 1, "rate": 0.0}], {"rate": "rate"}, title="rate", scale="log") is not None


def test_what_a_run_was_is_in_its_first_lines(tmp_path):
    arguments = run()
    arguments["metrics"] |= {
        "counts": {"train": 28709, "val": 1, "test": 40},
        "parameters": 11_172_423,
        "date": "2026-11-28T04:40:00+00:00",
        "device": {"type": "cuda", "name": "NVIDIA H100", "precision": "bfloat16", "count": 4},
        "resumed": [{"date": "2026-11-29T00:00:00+00:00"}, {"command": "older"}],
    }
    arguments["history"][0]["images_per_second"], arguments["history"][1]["images_per_second"] = 400, 601
    _, page = written(tmp_path, **arguments)
    for shown in (
        "28\u202f709 train images, 1 val image, 40 test images",
        "11.2 M parameters · cuda bfloat16 on 4 processes",
        "date 2026-11-28T04:40:00+00:00",
        "processes 4",
        "resumed ['2026-11-29T00:00:00+00:00', 'at a date not told']",
        "counts.train 28709",
        "Training read 500 images per second, 400 to 601 by epoch.",
        "AUC, macro, one-vs-rest",
    ):
        assert shown in page.words


def test_chance_is_that_of_the_largest_class_and_of_the_classes_that_are_there(tmp_path):
    labels = torch.tensor([0, 0, 0, 1, 1])
    scores = torch.eye(3)[labels]
    metrics = evaluate(labels, scores, CLASSES)
    _, page = written(tmp_path, **run(n=5, labels=labels, scores=scores, metrics=metrics))
    assert "neutral, the most frequent class, has an accuracy of 60.0 % and an average accuracy of 50.0 %" in page.words
    assert "1 of 2 classes" in page.words
