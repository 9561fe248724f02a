"""Rejection: from the largest cosines of faces of known and unknown classes to the threshold between them.

A face is accepted where its largest cosine exceeds the threshold. The higher that is, the more faces of no class are
called unknown, and the more faces of the model's classes are, too: the curve shows both shares over every threshold,
and that of known faces which are accepted and rightly named (Dhamija et al. 2018 draw these two against each other).
"""

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fer_fast.errors import InputError
from fer_fast.page import write_page
from fer_fast.serve.enrolment import THRESHOLD
from fer_fast.written import write_text

MOST_ROWS = 10_000  # of the csv; of more thresholds as many are taken, evenly by rank
MOST_POINTS = 400  # of a line on the page


class Operating(NamedTuple):
    """What a threshold does: shares of known faces accepted and rightly named, and of unknown ones rejected."""

    threshold: float
    accepted: float
    named: float
    rejected: float


class Curve(NamedTuple):
    """Shares over every threshold at which one changes: float64 (t,), ascending from -1, which accepts nearly all.

    Attributes:
        thresholds: -1 and each distinct cosine.
        accepted: of the faces of known classes those whose largest cosine is above.
        named: those of them whose nearest class is theirs.
        rejected: of the faces of unknown classes those whose largest cosine is not above.
        auroc: chance that a known face has a larger cosine than an unknown one, ties counted half.
        known, unknown: how many faces there were.
    """

    thresholds: Tensor
    accepted: Tensor
    named: Tensor
    rejected: Tensor
    auroc: float
    known: int
    unknown: int

    def at(self, threshold: float) -> Operating:
        """What a threshold does, also one between two of the curve."""
        return self._row(max(int(torch.searchsorted(self.thresholds, threshold, right=True)) - 1, 0), threshold)

    @property
    def equal_error(self) -> Operating:
        """Where as large a share of known faces is rejected as of unknown ones accepted, or nearly."""
        return self._row(int((self.accepted - self.rejected).abs().argmin()))

    def keeping(self, share: float) -> Operating:
        """The highest threshold at which so large a share of known faces is accepted."""
        return self._row(max(int((self.accepted >= share).sum()) - 1, 0))

    def _row(self, i: int, threshold: float | None = None) -> Operating:
        at = float(self.thresholds[i]) if threshold is None else threshold
        return Operating(at, float(self.accepted[i]), float(self.named[i]), float(self.rejected[i]))


def leave_one_class_out(cosines: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unknown faces without any additional ones: the faces of each class in turn, whose direction is left out.

    A face of one of K classes present counts once as unknown and K - 1 times as known. The network was trained to keep
    these classes apart, so faces of a class that it never saw are rejected less often than this says.

    Args:
        cosines: (n, C) with the directions of the model's classes.
        labels: int64 (n,).

    Returns:
        What `rejection_curve` takes.

    Raises:
        InputError: faces of fewer than two classes, or a model of fewer.
    """
    present = labels.unique()
    if len(present) < 2 or cosines.shape[1] < 2:
        raise InputError("a curve needs faces of two classes or more: those of one count as unknown to the others")
    known, right, unknown = [], [], []
    for left_out in present.tolist():
        others = cosines.clone()
        others[:, left_out] = -math.inf
        best, chosen = others.max(1)
        own = labels == left_out
        unknown.append(best[own])
        known.append(best[~own])
        right.append((chosen == labels)[~own])
    return torch.cat(known), torch.cat(right), torch.cat(unknown)


def rejection_curve(known: Tensor, right: Tensor, unknown: Tensor) -> Curve:
    """The shares over all thresholds.

    Args:
        known: largest cosines (n,) of faces of known classes; one that is no number is below every threshold.
        right: bool (n,), whether the nearest class is theirs.
        unknown: largest cosines (m,) of faces of other classes.

    Raises:
        InputError: no faces of one kind.
    """
    if not len(known) or not len(unknown):
        raise InputError("a curve needs faces of known and of unknown classes")
    known, unknown = (each.double().nan_to_num(nan=-1).clamp(-1, 1) for each in (known, unknown))
    thresholds = torch.cat((known, unknown, known.new_tensor([-1.0]))).unique()
    accepted, named, taken = (
        1 - torch.searchsorted(each.sort().values, thresholds, right=True).double() / len(each)
        if len(each)
        else thresholds * 0
        for each in (known, known[right], unknown)
    )
    return Curve(
        thresholds, accepted, named * right.double().mean(), 1 - taken, _auroc(known, unknown), len(known), len(unknown)
    )


def taken(cosines: Tensor, labels: Tensor, trained: int) -> tuple[float, float, Tensor]:
    """What enrolled classes take of the others: a mean of features can lie nearer to all features than a weight does.

    Args:
        cosines: (n, C), the first `trained` columns with the classes that the model was trained on.
        labels: int64 (n,).
        trained: how many these are, at least 1.

    Returns:
        Of the faces of those classes the share that is rightly named, by those classes alone and by all; and the share
        that each enrolled class takes (C - trained,).
    """
    rows = labels < trained
    cosines, labels = cosines[rows], labels[rows]
    chosen = cosines.argmax(1)
    alone = (cosines[:, :trained].argmax(1) == labels).double().mean()
    counts = torch.bincount(chosen, minlength=cosines.shape[1])[trained:].double()
    return float(alone), float((chosen == labels).double().mean()), counts / max(1, len(labels))


def _auroc(known: Tensor, unknown: Tensor) -> float:
    from sklearn.metrics import roc_auc_score  # takes a second to import

    positive = np.concatenate((np.ones(len(known)), np.zeros(len(unknown))))
    return float(roc_auc_score(positive, torch.cat((known, unknown)).numpy()))


def marked(curve: Curve, threshold: float | None) -> dict[str, Operating]:
    """The thresholds worth a name: that of the model, or the paper's where it has none, and two of the curve."""
    return {
        "the paper's" if threshold is None else "the model's": curve.at(THRESHOLD if threshold is None else threshold),
        "equal error": curve.equal_error,
        "95 % of known accepted": curve.keeping(0.95),
    }


def write_curve(path: Path, curve: Curve, threshold: float | None, about: str) -> Path:
    """Write the curve as a page, and beside it as a csv, whose path it gives.

    Args:
        path: of the page.
        curve: to be shown.
        threshold: the model's, if it has any.
        about: what the faces are, in a sentence.

    Raises:
        InputError: a file cannot be written.
    """
    thinned = _thinned(curve, MOST_ROWS)
    rows = [(f"{t:.6f}", f"{a:.6f}", f"{n:.6f}", f"{r:.6f}") for t, a, n, r in _rows(curve, thinned)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [("threshold", "known_accepted", "known_rightly_named", "unknown_rejected"), *rows]
    )
    write_text(path.with_suffix(".csv"), text.getvalue())
    points = list(_rows(curve, _thinned(curve, MOST_POINTS)))
    write_page(
        path,
        "serve/rejection.html.j2",
        title="Rejection by threshold",
        facts=[about],
        curve=curve,
        points=points,
        marks=marked(curve, threshold),
        low=math.floor(10 * float(curve.thresholds[min(1, len(curve.thresholds) - 1)])) / 10,
    )
    return path.with_suffix(".csv")


def _thinned(curve: Curve, most: int) -> Tensor:
    """Numbers of so many rows, evenly by rank, the first and the last among them."""
    count = len(curve.thresholds)
    return torch.linspace(0, count - 1, min(most, count), dtype=torch.float64).round().long()


def _rows(curve: Curve, rows: Tensor) -> Iterator[tuple[float, ...]]:
    columns = (curve.thresholds, curve.accepted, curve.named, curve.rejected)
    return zip(*(column[rows].tolist() for column in columns), strict=True)
