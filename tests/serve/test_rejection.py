"""The rejection curve against a direct double loop, its marked thresholds, and its files."""

import csv

import pytest
import torch
from sklearn.metrics import roc_auc_score

from fer_fast.errors import InputError
from fer_fast.serve import rejection
from fer_fast.serve.rejection import leave_one_class_out, marked, rejection_curve, taken, write_curve


def faces(n=60, classes=5, seed=0, decimals=2):
    """Cosines (n, C) with ties, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    cosines = torch.rand(n, classes, generator=generator, dtype=torch.float64) * 1.2 - 0.4
    cosines[torch.arange(n), labels] += 0.3
    return cosines.mul(10**decimals).round().div(10**decimals).clamp(-1, 1), labels


def test_every_class_in_turn_is_unknown_by_a_double_loop():
    cosines, labels = faces(30, 4)
    known, right, unknown = [], [], []
    for left_out in range(4):
        for row, label in zip(cosines.tolist(), labels.tolist(), strict=True):
            best = max((value, -k) for k, value in enumerate(row) if k != left_out)  # of equal ones the first
            if label == left_out:
                unknown.append(best[0])
            else:
                known.append(best[0])
                right.append(-best[1] == label)
    found = leave_one_class_out(cosines, labels)
    assert [each.tolist() for each in found] == [known, right, unknown]
    assert (len(known), len(unknown)) == (3 * 30, 30)


@pytest.mark.parametrize("seed", range(3))
def test_shares_at_every_threshold_by_a_double_loop(seed):
    known, right, unknown = leave_one_class_out(*faces(seed=seed))
    curve = rejection_curve(known, right, unknown)
    values = sorted({-1.0, *known.tolist(), *unknown.tolist()})
    assert curve.thresholds.tolist() == values
    pairs = list(zip(known.tolist(), right.tolist(), strict=True))
    for i, t in enumerate(values):
        accepted = sum(value > t for value, _ in pairs) / len(pairs)
        named = sum(value > t and hit for value, hit in pairs) / len(pairs)
        rejected = sum(not value > t for value in unknown.tolist()) / len(unknown)
        row = (float(curve.accepted[i]), float(curve.named[i]), float(curve.rejected[i]))
        assert row == pytest.approx((accepted, named, rejected), abs=1e-12)
    truth = [1] * len(known) + [0] * len(unknown)
    assert curve.auroc == pytest.approx(roc_auc_score(truth, [*known.tolist(), *unknown.tolist()]))


def test_thresholds_by_hand():
    known = torch.tensor([0.9, 0.8, 0.7, 0.4], dtype=torch.float64)
    unknown = torch.tensor([0.1, 0.5, 0.6, 0.75], dtype=torch.float64)
    curve = rejection_curve(known, torch.tensor([True, False, True, True]), unknown)
    assert curve.at(0.6) == (0.6, 0.75, 0.5, 0.75)  # what equals the threshold does not exceed it
    assert curve.at(0.55) == (0.55, 0.75, 0.5, 0.5)
    assert curve.at(-1)[1:] == (1.0, 0.75, 0.0)
    assert curve.at(-0.5)[1:] == (1.0, 0.75, 0.0)
    assert curve.at(0.99)[1:] == (0.0, 0.0, 1.0)
    assert curve.equal_error == pytest.approx((0.6, 0.75, 0.5, 0.75))
    assert curve.keeping(0.95) == pytest.approx((0.1, 1.0, 0.75, 0.25))
    assert curve.keeping(0.7) == pytest.approx((0.6, 0.75, 0.5, 0.75))
    assert curve.keeping(0.5) == pytest.approx((0.75, 0.5, 0.25, 1.0))
    assert list(marked(curve, None)) == ["the paper's", "equal error", "95 % of known accepted"]
    assert marked(curve, 0.55)["the model's"].accepted == 0.75
    assert marked(curve, None)["the paper's"].threshold == 0.6


def test_what_enrolled_classes_take_by_hand():
    cosines = torch.tensor([[0.5, 0.1, 0.9, 0.0], [0.5, 0.6, 0.2, 0.0], [0.3, 0.4, 0.1, 0.35], [0.2, 0.1, 0.0, 0.9]])
    labels = torch.tensor([0, 1, 0, 1])
    alone, among_all, shares = taken(cosines, labels, 2)
    assert (alone, among_all, shares.tolist()) == (0.5, 0.25, [0.25, 0.25])
    # A face of an enrolled class is none of these.
    assert taken(cosines, torch.tensor([0, 1, 0, 3]), 2)[2].tolist() == pytest.approx([1 / 3, 0])


def test_faces_that_are_apart_leave_nothing_to_choose():
    curve = rejection_curve(torch.full((4,), 0.8), torch.ones(4, dtype=torch.bool), torch.full((3,), 0.2))
    assert curve.auroc == 1.0
    assert curve.equal_error == pytest.approx((0.2, 1.0, 1.0, 1.0))
    assert curve.keeping(0.95) == curve.equal_error


def test_none_right_and_what_is_no_number():
    known = torch.tensor([0.5, torch.nan, 1.0000001])
    curve = rejection_curve(known, torch.zeros(3, dtype=torch.bool), torch.tensor([torch.nan, 0.1]))
    assert curve.named.abs().max() == 0
    assert curve.at(-1)[1:] == pytest.approx((2 / 3, 0.0, 0.5))
    assert curve.thresholds.max() == 1.0


@pytest.mark.parametrize(
    ("cosines", "labels"), [(torch.rand(4, 3), torch.ones(4).long()), (torch.rand(4, 1), torch.zeros(4).long())]
)
def test_one_class_has_no_curve(cosines, labels):
    with pytest.raises(InputError, match="two classes or more"):
        leave_one_class_out(cosines, labels)
    with pytest.raises(InputError, match="known and of unknown"):
        rejection_curve(cosines[:, 0], labels == 1, cosines[:0, 0])


def test_the_csv_is_the_curve_and_the_page_needs_nothing_else(tmp_path, monkeypatch):
    curve = rejection_curve(*leave_one_class_out(*faces(200, decimals=6)))
    numbers = write_curve(tmp_path / "curve.html", curve, 0.6, "Known: <faces> & others.")
    header, *rows = csv.reader(numbers.read_text().splitlines())
    assert header == ["threshold", "known_accepted", "known_rightly_named", "unknown_rejected"]
    assert len(rows) == len(curve.thresholds) > 300
    found = torch.tensor([[float(cell) for cell in row] for row in rows], dtype=torch.float64)
    expected = torch.stack((curve.thresholds, curve.accepted, curve.named, curve.rejected), 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=6e-7)
    page = (tmp_path / "curve.html").read_text()
    assert "Known: &lt;faces&gt; &amp; others." in page
    assert f"{curve.equal_error.threshold:.3f}" in page
    assert page.count("<polyline") == 5
    assert not any(word in page for word in ("http://", "https://", "<script", "src="))
    monkeypatch.setattr(rejection, "MOST_ROWS", 100)
    thin = list(csv.reader(write_curve(tmp_path / "thin.html", curve, 0.6, "").read_text().splitlines()))
    assert len(thin) == 101
    assert (thin[1], thin[-1]) == (rows[0], rows[-1])
