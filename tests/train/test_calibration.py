"""Calibration against a loop over the samples, and a temperature against a search."""

import math

import pytest
import torch

from fer_fast.train.calibration import LARGEST, calibration, fit_temperature, reliability, tempered


def predictions(n=400, classes=5, sharpness=1.0, seed=0):
    """Labels drawn from probabilities, whose logits are then multiplied: calibrated at 1, overconfident above."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return labels, (sharpness * logits).softmax(1).float()


def looped(labels, scores, bins):
    """Equations 1 to 3 of Guo et al. as they stand."""
    pairs = [(float(row.max()), int(row.argmax()) == int(label)) for row, label in zip(scores, labels, strict=True)]
    error = 0.0
    for m in range(1, bins + 1):
        inside = [pair for pair in pairs if (m - 1) / bins < pair[0] <= m / bins]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(score for score, _ in inside) / len(inside)
            error += len(inside) / len(pairs) * abs(accuracy - confidence)
    return error


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_expected_calibration_error(bins, sharpness):
    labels, scores = predictions(sharpness=sharpness)
    found = reliability(labels, scores, bins)
    assert found.error == pytest.approx(looped(labels, scores, bins), abs=1e-12)
    assert found.counts.sum() == len(labels)


def test_by_hand():
    """Two bins of width 1/2: one prediction of 0.5 that is right; of 0.75 and 1 one of two is."""
    scores = torch.tensor([[0.5, 0.3, 0.2], [0.75, 0.25, 0.0], [0.0, 1.0, 0.0]])
    found = reliability(torch.tensor([0, 1, 1]), scores, bins=2)
    assert found.counts.tolist() == [1, 2]
    assert found.confidence.tolist() == [0.5, 0.875]
    assert found.accuracy.tolist() == [1.0, 0.5]
    assert found.error == pytest.approx(0.5 / 3 + 0.375 * 2 / 3)


def test_empty_bins_and_the_edges():
    found = reliability(torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert found.counts.tolist() == [0] * 14 + [2]
    assert found.accuracy[:14].isnan().all()
    assert found.error == 0.5
    assert reliability(torch.tensor([0]), torch.zeros(1, 3)).counts[0] == 1


@pytest.mark.parametrize("sharpness", [0.25, 1.0, 4.0])
def test_the_temperature_is_the_one_of_a_search(sharpness):
    labels, scores = predictions(n=2000, sharpness=sharpness)
    temperature = fit_temperature(labels, scores)

    def loss(at):
        logits = scores.double().log() / at
        return float(torch.nn.functional.cross_entropy(logits, labels))

    grid = [math.exp(k / 500) for k in range(-1500, 1501)]
    best = min(grid, key=loss)
    assert temperature == pytest.approx(best, rel=3e-3)
    assert loss(temperature) <= loss(best)
    assert temperature == pytest.approx(sharpness, rel=0.1)  # what the logits were multiplied by


def test_a_temperature_keeps_the_order_and_one_changes_nothing():
    _, scores = predictions()
    torch.testing.assert_close(tempered(scores, 1.0), scores.double(), atol=1e-6, rtol=1e-6)
    for temperature in (0.5, 3.0):
        after = tempered(scores, temperature)
        assert torch.equal(after.argmax(1), scores.argmax(1))
        torch.testing.assert_close(after.sum(1), torch.ones(len(scores), dtype=torch.float64))
    assert tempered(torch.tensor([[1.0, 0.0]]), 2.0).isfinite().all()


def test_all_right_or_all_wrong_ends_at_the_bounds():
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    assert fit_temperature(torch.tensor([0, 1]), scores) == pytest.approx(1 / LARGEST)
    assert fit_temperature(torch.tensor([1, 0]), scores) == pytest.approx(LARGEST)


def test_the_reported_split_fits_no_temperature():
    labels, scores = predictions(sharpness=3.0)
    alone = calibration(labels, scores)
    assert alone.keys() == {"bins", "ece"}
    validation = predictions(n=3000, sharpness=3.0, seed=1)
    both = calibration(labels, scores, validation)
    assert both["ece"] == alone["ece"]
    assert both["temperature"] == fit_temperature(*validation) != fit_temperature(labels, scores)
    assert both["ece_tempered"] == reliability(labels, tempered(scores, both["temperature"])).error < both["ece"] / 2
