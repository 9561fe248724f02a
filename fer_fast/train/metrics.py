"""The numbers a run reports: accuracy, agreement and ranking metrics of one set of predictions."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    multiclass_cohen_kappa,
    multiclass_confusion_matrix,
)

from fer_fast.errors import InputError

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def evaluate(labels: Tensor, scores: Tensor, classes: Sequence[str]) -> dict[str, Any]:
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

    Returns:
        ``accuracy``, ``average_accuracy`` (mean per-class recall), ``macro_f1``, ``cohen_kappa``,
        ``krippendorff_alpha`` (nominal; truth and prediction are the two raters), ``auc`` (one-vs-rest ROC),
        ``auc_pr`` (average precision), ``per_class`` (name -> ``precision``, ``recall``, ``f1``, ``support``),
        ``confusion_matrix`` (rows are the truth; counts) and ``classes``, as plain floats, ints, lists and strings.

    Raises:
        InputError: wrong shape or dtype, no sample, a label out of range, a score outside [0, 1] or not finite,
            fewer than two classes or a name used twice.
    """
    classes = tuple(classes)
    _check(labels, scores, classes)
    labels = labels.detach().cpu().long()
    scores = scores.detach().cpu().double()
    count = len(classes)
    predicted = scores.argmax(1)
    confusion = multiclass_confusion_matrix(predicted, labels, count)
    support = confusion.sum(1)
    present = support > 0

    # 0/0 is NaN here, which is how an undefined value travels until _plain.
    hits, chosen = confusion.diagonal().double(), confusion.sum(0)
    precision, recall, f1 = hits / chosen, hits / support, 2 * hits / (chosen + support)
    per_class = {
        name: {"precision": _plain(p), "recall": _plain(r), "f1": _plain(f), "support": int(s)}
        for name, p, r, f, s in zip(classes, precision, recall, f1, support, strict=True)
    }
    return {
        "accuracy": _plain(hits.sum() / len(labels)),
        "average_accuracy": _plain(recall[present].mean()),
        "macro_f1": _plain(f1[present].mean()),
        "cohen_kappa": _plain(multiclass_cohen_kappa(predicted, labels, count)),
        "krippendorff_alpha": krippendorff_alpha(confusion),
        "auc": _one_vs_rest(binary_auroc, labels, scores, present & (support < len(labels))),
        "auc_pr": _one_vs_rest(binary_average_precision, labels, scores, present),
        "per_class": per_class,
        "confusion_matrix": confusion.tolist(),
        "classes": list(classes),
    }


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


def _check(labels: Tensor, scores: Tensor, classes: tuple[str, ...]) -> None:
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
