"""The numbers a run reports: accuracy, agreement and ranking metrics of one set of predictions."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    multiclass_confusion_matrix,
)

from fer_fast.errors import InputError

BOUNDED = ("accuracy", "average_accuracy", "macro_f1")  # what an interval is given for

RESAMPLES = 2000
CONFIDENCE = 0.95
_SEED = 0
_CHUNK = 1 << 22  # counts of resamples that are in memory at once

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def evaluate(labels: Tensor, scores: Tensor, classes: Sequence[str], units: Tensor | None = None) -> dict[str, Any]:
    """Score predictions against the truth.

    The predicted class is the highest score of a row, the first one where scores tie. A class is *present* when at
    least one label names it. Macro averages (``average_accuracy``, ``macro_f1``, ``auc``, ``auc_pr``) run over the
    present classes: an absent class has no recall and no ranking to average. A false alarm for an absent class still
    counts, against the class it was taken from.

    Whatever cannot be defined is ``None``, so that the result is valid JSON: precision of a class never predicted,
    recall of an absent class, F1 of a class neither present nor predicted; ``auc`` where every label is the same
    class; ``cohen_kappa`` and ``krippendorff_alpha`` where truth and predictions hold one and the same class
    throughout, which leaves no disagreement to expect by chance.

    Args:
        labels: (n,) integers, the true index into ``classes``.
        scores: (n, C) floating point, probabilities in [0, 1].
        classes: the C >= 2 class names, in the order of the columns.
        units: (n,) integers; samples of one number belong together (frames of a sequence, pictures of a person) and are
            drawn together in ``intervals``. None: every sample stands for itself.

    Returns:
        What `of_confusion` gives, ``auc`` (one-vs-rest ROC), ``auc_pr`` (average precision) and ``intervals``
        (``accuracy``, ``average_accuracy``, ``macro_f1`` -> [low, high], 95 %), as plain floats, ints, lists and
        strings.

    Raises:
        InputError: wrong shape or dtype, no sample, a label out of range, a score outside [0, 1] or not finite,
            fewer than two classes or a name used twice.
    """
    classes = tuple(classes)
    _check(labels, scores, classes, units)
    labels = labels.detach().cpu().long()
    scores = scores.detach().cpu().double()
    confusion = multiclass_confusion_matrix(scores.argmax(1), labels, len(classes))
    support = confusion.sum(1)
    present = support > 0
    return {
        **of_confusion(confusion, classes),
        "auc": _one_vs_rest(binary_auroc, labels, scores, present & (support < len(labels))),
        "auc_pr": _one_vs_rest(binary_average_precision, labels, scores, present),
        "intervals": intervals(*(kinds(confusion) if units is None else _unit_kinds(labels, scores, units))),
    }


def of_confusion(confusion: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """The numbers that follow from a confusion matrix alone, undefined ones and absent classes as in `evaluate`.

    Args:
        confusion: (C, C) counts, at least one of them; rows are the truth.
        classes: the C class names.

    Returns:
        ``accuracy``, ``average_accuracy`` (mean per-class recall), ``macro_f1``, ``cohen_kappa``,
        ``krippendorff_alpha`` (nominal; truth and prediction are the two raters), ``per_class`` (name ->
        ``precision``, ``recall``, ``f1``, ``support``), ``confusion_matrix`` and ``classes``.
    """
    hits, support, chosen = confusion.diagonal().double(), confusion.sum(1), confusion.sum(0)
    present = support > 0
    # 0/0 is NaN here, which is how an undefined value travels until _plain.
    precision, recall, f1 = hits / chosen, hits / support, 2 * hits / (chosen + support)
    per_class = {
        name: {"precision": _plain(p), "recall": _plain(r), "f1": _plain(f), "support": int(s)}
        for name, p, r, f, s in zip(classes, precision, recall, f1, support, strict=True)
    }
    return {
        "accuracy": _plain(hits.sum() / support.sum()),
        "average_accuracy": _plain(recall[present].mean()),
        "macro_f1": _plain(f1[present].mean()),
        "cohen_kappa": cohen_kappa(confusion),
        "krippendorff_alpha": krippendorff_alpha(confusion),
        "per_class": per_class,
        "confusion_matrix": confusion.tolist(),
        "classes": list(classes),
    }


def intervals(kinds: np.ndarray, counts: np.ndarray) -> dict[str, list[float]]:
    """95 % percentile bootstrap intervals: the numbers of 2 000 resamples, each of as many units as there are.

    A unit is a sample, or samples that belong together. The numbers depend on three counts a class, so units of equal
    counts are one kind, and a resample is one multinomial draw over the kinds. Where every sample is right, the
    intervals have no width.

    Args:
        kinds: (K, 3, C) of the units of each kind, by class: hits, samples of the class, predictions of the class.
        counts: (K,) units of each kind.

    Returns:
        ``accuracy``, ``average_accuracy``, ``macro_f1`` -> [low, high]; the same for the same counts.

    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 8.
    """
    generator, units = np.random.default_rng(_SEED), counts.sum()
    flat, parts = kinds.reshape(len(kinds), -1).astype(np.float64), []
    size = max(1, _CHUNK // len(kinds))
    for start in range(0, RESAMPLES, size):
        drawn = generator.multinomial(units, counts / units, size=min(size, RESAMPLES - start))
        parts.append(_headlines((drawn @ flat).reshape(-1, *kinds.shape[1:])))
    tail = (1 - CONFIDENCE) / 2
    ends = np.quantile(np.concatenate(parts), (tail, 1 - tail), axis=0)
    return dict(zip(BOUNDED, ends.T.tolist(), strict=True))


def _headlines(counts: np.ndarray) -> np.ndarray:
    """(r, 3, C) counts as `intervals` takes them -> (r, 3): `BOUNDED` of each."""
    hits, support, chosen = counts.transpose(1, 0, 2)
    present = support > 0
    recall = np.divide(hits, support, out=np.zeros_like(hits), where=present)
    f1 = np.divide(2 * hits, support + chosen, out=np.zeros_like(hits), where=present)
    classes = present.sum(1)
    return np.stack((hits.sum(1) / support.sum(1), recall.sum(1) / classes, f1.sum(1) / classes), 1)


def kinds(confusion: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Kinds and counts for `intervals` where every sample is a unit: the cells of the matrix."""
    truth, predicted = confusion.numpy().nonzero()
    one = np.eye(len(confusion))
    hits = one[truth] * (truth == predicted)[:, None]
    return np.stack((hits, one[truth], one[predicted]), 1), confusion.numpy()[truth, predicted]


def _unit_kinds(labels: Tensor, scores: Tensor, units: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The same where samples of one number are a unit."""
    predicted, unit = scores.argmax(1), units.unique(return_inverse=True)[1]
    counts = torch.zeros(int(unit.max()) + 1, 3, scores.shape[1], dtype=torch.int32)
    one = torch.ones(len(labels), dtype=torch.int32)
    counts[:, 0].index_put_((unit, labels), (labels == predicted).int(), accumulate=True)
    counts[:, 1].index_put_((unit, labels), one, accumulate=True)
    counts[:, 2].index_put_((unit, predicted), one, accumulate=True)
    return np.unique(counts.numpy(), axis=0, return_counts=True)


def cohen_kappa(confusion: Tensor) -> float | None:
    """Cohen's kappa of a confusion matrix (C, C): κ = (p_o - p_e) / (1 - p_e), None where p_e is 1.

    p_o = Σ_c m_cc / n is the share of agreement, p_e = Σ_c r_c k_c / n² what chance gives for sums r of rows and k of
    columns.

    Source: J. Cohen, A coefficient of agreement for nominal scales, 1960.
    """
    rows, columns = confusion.sum(1).tolist(), confusion.sum(0).tolist()
    total = sum(rows)
    # Whole numbers of Python, as below.
    chance = sum(r * k for r, k in zip(rows, columns, strict=True))
    return None if chance == total**2 else (total * int(confusion.trace()) - chance) / (total**2 - chance)


def krippendorff_alpha(confusion: Tensor) -> float | None:
    """Krippendorff's alpha for nominal data, two raters and no missing value.

    α = 1 - (N - 1) · Σ_{c≠k} o_ck / Σ_{c≠k} n_c n_k, with o = M + Mᵀ the coincidences of confusion matrix M,
    n_c = Σ_k o_ck how often either rater used class c, N = Σ_c n_c = 2n values.

    Args:
        confusion: (C, C) counts, rows one rater, columns the other.

    Returns:
        1 for perfect agreement, 0 for what chance gives, below 0 for worse; ``None`` where only one class was used.

    Source: K. Krippendorff, Content Analysis, 4th ed., 2019, chapter 12.
    """
    coincidences = confusion + confusion.T
    used = coincidences.sum(1).tolist()
    total = sum(used)
    # Whole numbers of Python: n_c · n_k of a large set leaves the range a float holds exactly.
    observed = total - int(coincidences.trace())
    expected = total**2 - sum(n**2 for n in used)
    return None if expected == 0 else 1 - (total - 1) * observed / expected


def _one_vs_rest(
    metric: Callable[[Tensor, Tensor], Tensor], labels: Tensor, scores: Tensor, which: Tensor
) -> float | None:
    """Mean of a binary metric over the classes marked in `which` (C,), each against all the others."""
    values = [metric(scores[:, c], (labels == c).long()).double() for c in which.nonzero().flatten().tolist()]
    return _plain(torch.stack(values).mean()) if values else None


def _plain(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _check(labels: Tensor, scores: Tensor, classes: tuple[str, ...], units: Tensor | None) -> None:
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise InputError(f"classes: at least two different names are needed, got {list(classes)}")
    if not isinstance(labels, Tensor) or labels.ndim != 1 or labels.dtype not in _INTEGERS:
        raise InputError(f"labels: a one-dimensional integer tensor is needed, got {_describe(labels)}")
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        raise InputError(f"scores: a floating-point tensor is needed, got {_describe(scores)}")
    if scores.shape != (len(labels), len(classes)):
        wanted = (len(labels), len(classes))
        raise InputError(f"scores: shape {wanted} (labels, classes) is needed, got {tuple(scores.shape)}")
    if len(labels) == 0:
        raise InputError("labels: at least one sample is needed, got none")
    if units is not None and (units.shape != labels.shape or units.dtype not in _INTEGERS):
        raise InputError(f"units: integers of shape {tuple(labels.shape)} are needed, got {_describe(units)}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(classes):
        raise InputError(f"labels: values from 0 to {len(classes) - 1} are allowed, got {low} to {high}")
    bad = ~((scores >= 0) & (scores <= 1)).all(1)  # also true for NaN
    if bad.any():
        row = int(bad.nonzero()[0])
        raise InputError(f"scores: probabilities in [0, 1] are needed, row {row} holds {scores[row].tolist()[:8]}")


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)} of {value.dtype}"
    return type(value).__name__
