"""Metrics against cases worked out by hand, and against what cannot be defined."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_fast.errors import InputError
from fer_fast.train.metrics import evaluate, krippendorff_alpha

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
