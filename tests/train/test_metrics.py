"""Metrics against cases worked out by hand, against what cannot be defined, and intervals against simulated data."""

import json
import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_fast.errors import InputError
from fer_fast.train.metrics import BOUNDED, evaluate, intervals, krippendorff_alpha, of_confusion

ABC = ("a", "b", "c")
LABELS = torch.tensor([0, 0, 0, 1, 1, 2])
SCORES = torch.tensor(
    [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.3, 0.5, 0.2], [0.2, 0.7, 0.1], [0.1, 0.4, 0.5], [0.3, 0.1, 0.6]]
)
MACRO = ("accuracy", "average_accuracy", "macro_f1", "cohen_kappa", "krippendorff_alpha", "auc", "auc_pr")


def one_hot(predicted: list[int], count: int = 3) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predicted), count).double()


def close(value: float) -> object:
    # torchmetrics works out kappa and the areas in float32.
    return pytest.approx(value, abs=1e-6)


def test_hand_computed_case():
    # Predictions 0 0 1 1 2 2, so M = [2 1 0; 0 1 1; 0 0 1].
    result = evaluate(LABELS, SCORES, ABC)
    assert result["confusion_matrix"] == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert result["accuracy"] == close(4 / 6)
    # Recalls 2/3, 1/2, 1: mean 13/18.
    assert result["average_accuracy"] == close(13 / 18)
    # F1 = 2·TP / (predicted + support): 4/5, 2/4, 2/3; mean 59/90.
    assert result["macro_f1"] == close(59 / 90)
    # p_o = 4/6, p_e = (3·2 + 2·2 + 1·2) / 36 = 1/3, κ = (2/3 - 1/3) / (1 - 1/3) = 1/2.
    assert result["cohen_kappa"] == close(1 / 2)
    # Values used: 3+2, 2+2, 1+2 = 5, 4, 3 of 12. Unequal pairs 2·2 = 4, by chance 144 - 25 - 16 - 9 = 94;
    # α = 1 - 11·4/94 = 25/47.
    assert result["krippendorff_alpha"] == close(25 / 47)
    # Pairs won, a tie counts half. a: .8 and .6 win 3 each, .3 wins 2 and ties 1: 8.5/9; b: (4 + 3)/8; c: 5/5.
    assert result["auc"] == close((8.5 / 9 + 7 / 8 + 1) / 3)
    # Precision at each gain of recall. a: 1/3·1 + 1/3·1 + 1/3·3/4 = 11/12; b: 1/2·1 + 1/2·2/3 = 5/6; c: 1.
    assert result["auc_pr"] == close((11 / 12 + 5 / 6 + 1) / 3)
    assert result["per_class"]["a"] == {"precision": 1.0, "recall": close(2 / 3), "f1": close(4 / 5), "support": 3}
    assert result["per_class"]["b"] == {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "support": 2}
    assert result["per_class"]["c"] == {"precision": 1 / 2, "recall": 1.0, "f1": close(2 / 3), "support": 1}
    assert result["classes"] == list(ABC)


def test_perfect():
    result = evaluate(torch.tensor([0, 1, 2, 1]), one_hot([0, 1, 2, 1]), ABC)
    assert [result[key] for key in MACRO] == [1.0] * len(MACRO)


def test_worst():
    # Two balanced classes, every prediction wrong: p_o = 0, p_e = 1/2, κ = -1; α = 1 - 7·8 / (64 - 16 - 16) = -3/4;
    # both rankings upside down: AUC 0, and average precision 2/4.
    result = evaluate(torch.tensor([0, 0, 1, 1]), one_hot([1, 1, 0, 0], 2), ("a", "b"))
    assert result["accuracy"] == result["average_accuracy"] == result["macro_f1"] == result["auc"] == 0
    assert result["cohen_kappa"] == close(-1)
    assert result["krippendorff_alpha"] == close(-3 / 4)
    assert result["auc_pr"] == close(1 / 2)


def test_one_class_everywhere_leaves_nothing_to_chance():
    result = evaluate(torch.zeros(4, dtype=torch.int64), one_hot([0, 0, 0, 0]), ABC)
    assert result["accuracy"] == result["average_accuracy"] == result["macro_f1"] == result["auc_pr"] == 1
    assert result["cohen_kappa"] is result["krippendorff_alpha"] is result["auc"] is None
    assert result["per_class"]["b"] == {"precision": None, "recall": None, "f1": None, "support": 0}


def test_absent_class_is_left_out_of_the_averages_but_its_false_alarms_count():
    # c is never true and predicted once, for a b: recalls 2/2 and 1/2, F1 4/4 and 2/3.
    result = evaluate(torch.tensor([0, 0, 1, 1]), one_hot([0, 0, 1, 2]), ABC)
    assert result["average_accuracy"] == close(3 / 4)
    assert result["macro_f1"] == close(5 / 6)
    # One-vs-rest, a: perfect, 4 of 4 pairs. b: one wins both pairs, the other ties both: (2 + 1) / 4.
    assert result["auc"] == close((1 + 3 / 4) / 2)
    assert result["per_class"]["c"] == {"precision": 0.0, "recall": None, "f1": 0.0, "support": 0}


def test_class_never_predicted_has_no_precision():
    result = evaluate(torch.tensor([0, 1]), one_hot([0, 0], 2), ("a", "b"))
    assert result["per_class"]["b"] == {"precision": None, "recall": 0.0, "f1": 0.0, "support": 1}


@pytest.mark.parametrize(("predicted", "accuracy", "alpha"), [(1, 1.0, None), (0, 0.0, 0.0)])
def test_single_sample(predicted, accuracy, alpha):
    # Wrong: two values, both different: α = 1 - 1·2 / (4 - 1 - 1) = 0.
    result = evaluate(torch.tensor([1]), one_hot([predicted]), ABC)
    assert result["accuracy"] == accuracy
    assert result["krippendorff_alpha"] == alpha
    assert result["auc"] is None


def test_ties_go_to_the_first_class_and_rank_as_half():
    result = evaluate(torch.tensor([0, 1, 2]), torch.full((3, 3), 1 / 3), ABC)
    assert result["confusion_matrix"] == [[1, 0, 0]] * 3
    assert result["auc"] == close(1 / 2)
    assert result["auc_pr"] == close(1 / 3)


def test_alpha_of_a_published_example():
    # K. Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), section B: two observers, twelve articles.
    first, second = "aabbdcccedda", "babbbccceddd"
    confusion = torch.zeros(5, 5, dtype=torch.int64)
    for one, other in zip(first, second, strict=True):
        confusion["abcde".index(one), "abcde".index(other)] += 1
    assert krippendorff_alpha(confusion) == pytest.approx(0.692, abs=5e-4)


def test_alpha_is_exact_for_huge_counts():
    # 2⁴⁰ samples, so N = 2⁴¹ values; each rater uses each class for half, half of the pairs agree:
    # α = 1 - (N - 1) · (N/2) / (N²/2) = 1/N.
    quarter = 2**38
    assert krippendorff_alpha(torch.full((2, 2), quarter)) == pytest.approx(2**-41, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_dtype_gives_json(dtype):
    result = evaluate(LABELS.int(), SCORES.to(dtype).requires_grad_(), ABC)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["accuracy"] == close(4 / 6)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_renaming_the_classes_changes_no_average(data):
    n, count = data.draw(st.integers(1, 30)), data.draw(st.integers(2, 6))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    labels = torch.randint(count, (n,), generator=generator)
    scores = torch.rand(n, count, generator=generator, dtype=torch.float64).softmax(1)
    order = torch.randperm(count, generator=generator)
    names = [str(c) for c in range(count)]
    before = evaluate(labels, scores, names)
    after = evaluate(order.argsort()[labels], scores[:, order], names)
    for key in MACRO:
        assert (before[key] is None) == (after[key] is None), key
        assert before[key] is None or math.isclose(before[key], after[key], abs_tol=1e-6), key


@pytest.mark.parametrize(
    ("labels", "scores", "classes", "message"),
    [
        (torch.empty(0, dtype=torch.int64), torch.empty(0, 3), ABC, "at least one sample"),
        (torch.tensor([0, 3]), one_hot([0, 1]), ABC, "values from 0 to 2 are allowed, got 0 to 3"),
        (torch.tensor([-1, 0]), one_hot([0, 1]), ABC, "got -1 to 0"),
        (torch.tensor([0.0, 1.0]), one_hot([0, 1]), ABC, "labels: a one-dimensional integer tensor"),
        (torch.tensor([[0], [1]]), one_hot([0, 1]), ABC, "labels: a one-dimensional integer tensor"),
        ([0, 1], one_hot([0, 1]), ABC, "got list"),
        (torch.tensor([0, 1]), [[0.1, 0.9, 0.0]] * 2, ABC, "scores: a floating-point tensor"),
        (torch.tensor([0, 1]), one_hot([0, 1]).long(), ABC, "scores: a floating-point tensor"),
        (torch.tensor([0, 1]), one_hot([0, 1, 2]), ABC, r"shape \(2, 3\) .* got \(3, 3\)"),
        (torch.tensor([0, 1]), one_hot([0, 1]) * 5 - 1, ABC, r"row 0 holds \[4.0, -1.0, -1.0\]"),
        (torch.tensor([0, 1]), one_hot([0, 1]) / 0, ABC, "probabilities"),
        (torch.tensor([0, 0]), torch.ones(2, 1), ("a",), "at least two different names"),
        (torch.tensor([0, 1]), torch.ones(2, 2), ("a", "a"), "at least two different names"),
    ],
)
def test_bad_input_is_one_clear_line(labels, scores, classes, message):
    with pytest.raises(InputError, match=message) as error:
        evaluate(labels, scores, classes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("units", [torch.zeros(3, dtype=torch.int64), torch.zeros(2), torch.zeros(2, 1).long()])
def test_units_are_one_integer_a_sample(units):
    with pytest.raises(InputError, match=r"units: integers of shape \(2,\) are needed, got shape"):
        evaluate(torch.tensor([0, 1]), one_hot([0, 1]), ABC, units)


def test_what_a_confusion_matrix_decides_is_what_its_samples_give():
    confusion = torch.tensor([[5, 2, 0], [1, 0, 3], [0, 0, 0]])
    truth, predicted = (axis.repeat_interleave(confusion.flatten()) for axis in torch.ones(3, 3).nonzero().T)
    whole = evaluate(truth, one_hot(predicted.tolist()), ABC)
    alone = of_confusion(confusion, ABC)
    assert alone == {key: whole[key] for key in alone}
    assert whole.keys() - alone.keys() == {"auc", "auc_pr", "intervals"}


# Intervals


def drawn(generator, units, rights=(0.8, 0.7, 0.6)):
    """Predictions of units of one class and one to eight samples, each unit with a share of right answers of its own.

    Gives labels, predictions and units (n,). The shares are those of `rights` by class, in the mean over units.
    """
    truth, sizes = generator.integers(len(rights), size=units), generator.integers(1, 9, size=units)
    means = np.array(rights)[truth]
    right = generator.random(sizes.sum()) < np.repeat(generator.beta(4 * means, 4 * (1 - means)), sizes)
    labels, unit = np.repeat(truth, sizes), np.repeat(np.arange(units), sizes)
    wrong = (labels + generator.integers(1, len(rights), size=len(labels))) % len(rights)
    return labels, np.where(right, labels, wrong), unit


def found(labels, predicted, unit=None):
    """The intervals of `evaluate` as an array (3, 2)."""
    units = None if unit is None else torch.from_numpy(unit)
    result = evaluate(torch.from_numpy(labels), one_hot(predicted.tolist()), ABC, units)["intervals"]
    return np.array([result[key] for key in BOUNDED])


def by_hand(labels, predicted):
    """Accuracy, mean recall and mean F1 over the classes present, by counting."""
    recalls, f1s = [], []
    for c in set(labels.tolist()):
        hits = np.sum((labels == c) & (predicted == c))
        recalls.append(hits / np.sum(labels == c))
        f1s.append(2 * hits / (np.sum(labels == c) + np.sum(predicted == c)))
    return np.mean(labels == predicted), np.mean(recalls), np.mean(f1s)


@pytest.mark.parametrize("by_unit", [False, True])
def test_intervals_are_those_of_resampled_predictions(by_unit):
    generator = np.random.default_rng(3)
    labels, predicted, unit = drawn(generator, 120)
    members = [np.flatnonzero(unit == u) for u in range(120)] if by_unit else np.arange(len(labels))[:, None]
    resampled = []
    for _ in range(2000):
        rows = np.concatenate([members[i] for i in generator.integers(len(members), size=len(members))])
        resampled.append(by_hand(labels[rows], predicted[rows]))
    expected = np.quantile(resampled, (0.025, 0.975), axis=0).T
    # An end of 2 000 resamples varies by its density: sqrt(0.025 · 0.975 / 2 000) / 0.058 = 0.06 deviations, and both
    # ends compared do; four times that.
    allowed = 4 * math.sqrt(2) * 0.06 * np.std(resampled, axis=0)[:, None]
    assert (np.abs(found(labels, predicted, unit if by_unit else None) - expected) < allowed).all()


def test_intervals_cover_what_they_should():
    # Cells of known chances; 0.7 of the samples are right. Two deviations of 300 trials are 2.5 %.
    chances = np.array([[30, 6, 4], [5, 20, 5], [4, 6, 20]]) / 100
    generator, covered = np.random.default_rng(1), np.zeros(3)
    rows, columns = np.divmod(np.arange(9), 3)
    truth = by_hand(*(np.repeat(axis, (100 * chances).round().astype(int).ravel()) for axis in (rows, columns)))
    for _ in range(300):
        cells = generator.choice(9, size=300, p=chances.ravel())
        ends = found(rows[cells], columns[cells])
        covered += (ends[:, 0] <= truth) & (truth <= ends[:, 1])
    assert truth[0] == pytest.approx(0.7)
    assert ((covered / 300 >= 0.93) & (covered / 300 <= 0.97)).all(), covered / 300


def test_samples_that_belong_together_must_be_drawn_together():
    # As many right by class as `drawn` says; every wrong answer equally often.
    rights = np.array([0.8, 0.7, 0.6])
    matrix = np.diag(rights) + (1 - np.eye(3)) * ((1 - rights) / 2)[:, None]
    truth = (0.7, 0.7, np.mean(2 * rights / (1 + matrix.sum(0))))
    generator, together, apart = np.random.default_rng(2), np.zeros(3), np.zeros(3)
    for _ in range(200):
        labels, predicted, unit = drawn(generator, 80)
        for covered, units in ((together, unit), (apart, None)):
            ends = found(labels, predicted, units)
            covered += (ends[:, 0] <= truth) & (truth <= ends[:, 1])
    assert ((together / 200 >= 0.93) & (together / 200 <= 0.97)).all(), together / 200
    assert (apart / 200 < 0.9).all(), apart / 200


def test_units_of_one_sample_are_samples():
    labels, predicted, _ = drawn(np.random.default_rng(4), 50)
    alone = found(labels, predicted, np.arange(len(labels)) * 7 - 3)
    # The same kinds in another order draw other numbers of the same distribution.
    np.testing.assert_allclose(alone, found(labels, predicted), atol=0.02)


def test_intervals_of_a_class_that_is_absent_are_those_without_it():
    labels, predicted = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 0, 1, 1, 0])
    two = evaluate(torch.from_numpy(labels), one_hot(predicted.tolist(), 2), ABC[:2])["intervals"]
    assert evaluate(torch.from_numpy(labels), one_hot(predicted.tolist()), ABC)["intervals"] == two
    assert all(0 <= low < high <= 1 for low, high in two.values())


def test_where_every_sample_is_right_intervals_have_no_width():
    result = evaluate(torch.tensor([0, 1, 2, 1]), one_hot([0, 1, 2, 1]), ABC)
    assert result["intervals"] == {key: [1.0, 1.0] for key in BOUNDED}


def test_many_units_and_classes_take_little_memory():
    # Unlike units, the worst case; all resamples at once would be 2 000 × 5 000 × 16 bytes = 160 MB.
    generator = np.random.default_rng(0)
    kinds = generator.integers(0, 3, size=(5000, 3, 60), dtype=np.int32)
    tracemalloc.start()
    try:
        ends = intervals(kinds, np.ones(len(kinds), np.int64))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6
    assert ends["accuracy"][0] < 1 < ends["accuracy"][1]  # hits and samples of a class are drawn alike here
