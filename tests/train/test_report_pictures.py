"""What a report shows of the predictions: calibration, faces, class activation, subjects."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from fer_fast.train import figures
from fer_fast.train.calibration import calibration, reliability, tempered
from fer_fast.train.metrics import evaluate
from fer_fast.train.pictured import MOST_ACTIVATIONS, MOST_MISTAKES, MOST_OF_A_PAIR, MOST_PAIRS
from report_pages import CLASSES, noise, pixels, run, written


@pytest.mark.parametrize(("n", "channels", "size"), [(3589, 1, 48), (300, 3, 224)])
def test_a_page_with_everything_stays_below_five_megabytes(tmp_path, n, channels, size):
    """Noise, which no format compresses."""
    arguments = run(n=n, channels=channels, size=size, classes=tuple(f"class {c}" for c in range(8)))
    arguments["metrics"]["calibration"] = calibration(arguments["labels"], arguments["scores"])
    arguments |= {"subjects": torch.arange(n) % 150, "activation": noise(size), "features": torch.randn(n, 3)}
    text, page = written(tmp_path, **arguments)
    assert len(text.encode()) < 5_000_000
    assert len(page.images) == MOST_MISTAKES + 2 * MOST_PAIRS * MOST_OF_A_PAIR + 5 * MOST_ACTIVATIONS
    for heading in ("Subjects", "Calibration", "Most confused", "What the model looks at", "Mistakes"):
        assert heading in page.words


def test_calibration_with_and_without_a_temperature(tmp_path):
    arguments = run(n=200)
    labels, scores = arguments["labels"], arguments["scores"]
    assert "Calibration" not in written(tmp_path, **arguments)[1].words
    arguments["metrics"]["calibration"] = calibration(labels, scores)
    _, alone = written(tmp_path, **arguments)
    assert f"15 bins of equal width) {reliability(labels, scores).error:.3f}." in alone.words
    assert "at the temperature" not in alone.words
    arguments["metrics"]["calibration"] = numbers = calibration(labels, scores, (labels[:50], scores[:50]))
    _, both = written(tmp_path, **arguments)
    after = reliability(labels, tempered(scores, numbers["temperature"])).error
    assert f"temperature {numbers['temperature']:.2f}, which the validation split gives, {after:.3f}" in both.words


def test_a_reliability_diagram_has_the_heights_of_its_bins():
    labels, scores = torch.tensor([0, 1, 0, 0]), torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.55, 0.45], [0.95, 0.05]])
    root = ElementTree.fromstring(figures.reliability_diagram(reliability(labels, scores)))
    filled = [node for node in root.iter("{http://www.w3.org/2000/svg}path") if "z" in node.get("d")]
    bars = [node.get("d") for node in filled if figures.PALETTE[0].lower() in node.get("style", "").lower()]
    points = [np.array(re.findall(r"[ML] (\S+) (\S+)", d), dtype=float)[:, 1] for d in bars]
    heights = np.array([each.max() - each.min() for each in points])[:15]  # then the legend's
    np.testing.assert_allclose(heights[[8, 13, 14]] / heights[8], [1.0, 0.5, 1.0], atol=1e-3)
    assert heights[:8].max() == 0


def test_the_pairs_most_confused_stand_side_by_side(tmp_path):
    """Two images of class 0 are taken for 1, one of 2 for 0; a gray level each tells the faces apart."""
    labels, taken = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([0, 1, 1, 1, 2, 0])
    scores = torch.full((6, 3), 0.1).scatter(1, taken[:, None], torch.tensor([0.5, 0.6, 0.7, 0.8, 0.5, 0.5])[:, None])
    images = (40 * torch.arange(6, dtype=torch.uint8)).view(6, 1, 1, 1).expand(6, 1, 8, 8)
    arguments = run(n=6, labels=labels, scores=scores, images=images, metrics=evaluate(labels, scores, CLASSES))
    _, page = written(tmp_path, **arguments)
    assert "neutral taken for happiness: 2, 66.7 % of neutral" in page.words
    assert "sadness taken for neutral: 1, 50.0 % of sadness" in page.words
    assert "happiness taken for" not in page.words
    assert [pixels(address).mean() for address in page.images[:5]] == pytest.approx([80, 40, 120, 200, 0], abs=2)


def test_class_activation_is_asked_for_predictions_and_truths(tmp_path):
    labels, taken = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([0, 0, 1, 1, 2, 0])
    scores = torch.full((6, 3), 0.1).scatter(1, taken[:, None], torch.tensor([0.5, 0.6, 0.7, 0.8, 0.5, 0.5])[:, None])
    images = torch.full((6, 1, 8, 8), 100, dtype=torch.uint8)
    asked = []

    def activation(rows, classes):
        asked.append((rows.tolist(), classes.tolist()))
        maps = torch.zeros(len(rows), 4, 4)
        maps[:, :2] = 1  # the upper half
        return maps

    arguments = run(n=6, labels=labels, scores=scores, images=images, metrics=evaluate(labels, scores, CLASSES))
    assert "looks at" not in written(tmp_path, **arguments)[1].words
    _, page = written(tmp_path, **arguments, activation=activation)
    assert asked == [([1, 3, 4, 2, 5, 2, 5], [0, 1, 2, 1, 0, 0, 2])]
    face, seen = [
        pixels(each["src"]) for each in page.elements if each.get("alt") in ("neutral", "what speaks for neutral")
    ][:2]
    assert abs(face - 100).max() <= 2
    assert abs(seen[-2:] - 100).max() <= 4
    assert np.abs(seen[:2] - 100).max() > 60


def test_activation_where_all_or_nothing_is_right(tmp_path):
    labels = torch.tensor([0, 1, 2, 0])
    for taken, words in ((labels, "Right: "), ((labels + 1) % 3, "Wrong: ")):
        scores = torch.eye(3)[taken]
        metrics = evaluate(labels, scores, CLASSES)
        arguments = run(n=4, labels=labels, scores=scores, metrics=metrics, history=[], activation=noise())
        page = written(tmp_path, **arguments)[1]
        assert words in page.words
        assert len(re.findall("Right: |Wrong: ", page.words)) == 1


def test_subjects_from_the_lowest_to_the_highest(tmp_path):
    """Subject s of 1 to 9 has ten images, s of them right; a tenth subject is right in its one image."""
    subjects = torch.cat((torch.arange(1, 10).repeat_interleave(10), torch.tensor([77])))
    labels = torch.zeros(91, dtype=torch.int64)
    right = torch.cat((torch.arange(10).repeat(9) < subjects[:90], torch.tensor([True])))
    scores = torch.eye(3)[(~right).long()]
    arguments = run(n=91, labels=labels, scores=scores, metrics=evaluate(labels, scores, CLASSES), subjects=subjects)
    _, page = written(tmp_path, **arguments)
    assert "10 subjects, median accuracy 55.0 %" in page.words
    rows = ("1, face_0.jpg lowest 10 10.0", "5, face_40.jpg median 10 50.0", "77, face_90.jpg highest 1 100.0")
    places = [page.words.index(row) for row in rows]
    assert places == sorted(places)
    for absent in ("4, face_30.jpg", "7, face_60.jpg"):
        assert f" {absent}" not in page.words.partition("Most confused")[0]
    alone = written(tmp_path, **{**arguments, "subjects": torch.ones(91, dtype=torch.int64)})[1]
    assert "Subjects" not in alone.words


def test_classes_of_one_colour_have_another_form():
    styles = {(c % len(figures.PALETTE), c % len(figures.MARKERS)) for c in range(56)}
    assert len(styles) == 56
