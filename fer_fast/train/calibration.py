"""Calibration: whether a score of 0.8 is right eight times in ten, and the one number that makes it more so."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

BINS = 15
LARGEST = 100.0  # of a temperature, whose smallest is the inverse: where all is right, none is best
_HALVINGS = 60  # of that range of logarithms, to the last bits of a float


class Reliability(NamedTuple):
    """Predictions by the score of the predicted class, in bins of equal width.

    Attributes:
        counts: int64 (M,), predictions whose score lies in ((m - 1)/M, m/M]; a score of 0 is in the first.
        confidence: float64 (M,), the mean of these scores, NaN without any.
        accuracy: float64 (M,), the share that is right, NaN without any.
    """

    counts: Tensor
    confidence: Tensor
    accuracy: Tensor

    @property
    def error(self) -> float:
        """Expected calibration error, ECE = Σ_m n_m / n · |accuracy_m - confidence_m|, from 0 to 1."""
        share = self.counts.double() / self.counts.sum()
        return float((share * (self.accuracy - self.confidence).abs()).nansum())


def reliability(labels: Tensor, scores: Tensor, bins: int = BINS) -> Reliability:
    """Accuracy and mean score of each of M bins of equal width.

    Args:
        labels: (n,) integers, at least one.
        scores: (n, C) probabilities.
        bins: M.

    Source: C. Guo et al., On calibration of modern neural networks, 2017, equations 1 to 3.
    """
    confidence, predicted = scores.double().max(1)
    edges = torch.arange(1, bins, dtype=torch.float64) / bins
    place = torch.bucketize(confidence, edges)
    counts = torch.bincount(place, minlength=bins)
    sums = (torch.bincount(place, values, bins) for values in (confidence, (predicted == labels).double()))
    return Reliability(counts, *(each / counts for each in sums))


def tempered(scores: Tensor, temperature: float) -> Tensor:
    """Probabilities at a temperature, softmax(z / T) = p^(1/T) / Σ p^(1/T): float64 (n, C). The order stays."""
    return (_logits(scores) / temperature).softmax(1)


def fit_temperature(labels: Tensor, scores: Tensor) -> float:
    """The T that minimises the negative log-likelihood -mean_i log softmax(z_i / T)[y_i] of (n, C) probabilities.

    In β = 1/T that is convex, with the derivative mean_i (Σ_c p_ic z_ic - z_iy), p = softmax(β z): T is where it is
    zero, found by halving; 1/`LARGEST` or `LARGEST` where it is not between these.

    Source: C. Guo et al., On calibration of modern neural networks, 2017, section 4.2.
    """
    logits = _logits(scores)
    truth = logits.gather(1, labels.long()[:, None]).mean()
    low, high = 1 / LARGEST, LARGEST  # of β
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        rises = ((logits * middle).softmax(1) * logits).sum(1).mean() > truth
        low, high = (low, middle) if rises else (middle, high)
    return 1 / (low * high) ** 0.5


def calibration(labels: Tensor, scores: Tensor, validation: tuple[Tensor, Tensor] | None = None) -> dict[str, Any]:
    """The calibration of a split, as JSON values.

    Args:
        labels, scores: (n,) and (n, C) probabilities of the split that is reported.
        validation: the same of the validation split, from which alone a temperature may be fitted.

    Returns:
        ``bins``, ``ece``; with a validation split also ``temperature`` and ``ece_tempered``, the error at it.
    """
    numbers = {"bins": BINS, "ece": reliability(labels, scores).error}
    if validation is not None:
        temperature = fit_temperature(*validation)
        after = reliability(labels, tempered(scores, temperature)).error
        numbers |= {"temperature": temperature, "ece_tempered": after}
    return numbers


def _logits(scores: Tensor) -> Tensor:
    """Logits of probabilities, up to the constant that softmax does not see; of 0 those of the least float32."""
    return scores.double().clamp_min(torch.finfo(torch.float32).tiny).log()
