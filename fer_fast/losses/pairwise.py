"""Marginal and range loss: modules called as `loss(features, labels)`, (n, d) and (n,).

A negative label takes its row out of everything: pairs, class means and the count that a mean divides by.
"""

from .base import Loss


class MarginalLoss(Loss):
    """1/(n²-n) Σ_{i≠j} [ξ - y_ij (θ - ‖x̂_i - x̂_j‖²)]₊; see :func:`fer_fast.reference.marginal`."""

    name = "marginal"


class RangeLoss(Loss):
    """α Σ_c harmonic mean of the k widest pairs of class c + β [M - nearest class means]₊.

    See :func:`fer_fast.reference.range_loss`. No term runs over samples: `reduction` changes nothing.
    """

    name = "range"
