"""Weighted-cluster loss (Ngo & Yoon 2020): distances to the own center, relative to the other centers."""

from typing import NamedTuple

import torch
from torch import Tensor

from .params import NonNegative, Positive, formula
from .primitives import (
    accumulate,
    center_spread,
    class_counts,
    class_sums,
    own_distances,
    present,
    reduce_rows,
    unless_spoiled,
)


class WeightedClusterParams(NamedTuple):
    """What keeps the ratio finite, and how fast centers move."""

    alpha: Positive = 1.0  # α, in squared feature units
    gamma: NonNegative = 1.0  # γ, the centers' learning rate


DEFAULT = WeightedClusterParams()


def weighted_cluster_update(
    x: Tensor,
    y: Tensor,
    centers: Tensor,
    class_weights: Tensor | None = None,
    alpha: float = DEFAULT.alpha,
    gamma: float = DEFAULT.gamma,
    sample_weights: Tensor | None = None,
) -> Tensor:
    """c_k ← c_k + γ Σ_{y_i=k} W_k (x_i - c_k) / (Σ_{j≠k} ‖c_j - c_k‖² + α): (C, d).

    Eq. 8-9 print a sign that ascends; this one descends. γ is the centers' learning rate.
    """
    old = accumulate(centers)
    counts = class_counts(y, len(old), old.dtype, sample_weights)[:, None]
    pull = class_sums(x.to(old.dtype), y, len(old), sample_weights) - counts * old
    return unless_spoiled(old + gamma * _class_scale(old, class_weights, alpha)[:, None] * pull, centers)


@formula(WeightedClusterParams, weighted_cluster_update, by_row=True)
def weighted_cluster(
    x: Tensor,
    y: Tensor,
    centers: Tensor,
    class_weights: Tensor | None = None,
    alpha: float = DEFAULT.alpha,
    reduction: str = "mean",
    sample_weights: Tensor | None = None,
) -> Tensor:
    """L = ½ Σ_i W_{y_i} ‖x_i - c_{y_i}‖² / (Σ_{j≠y_i} ‖c_j - c_{y_i}‖² + α)   (eq. 4; its inner j≠i is j≠y_i).

    features x (n, d), labels y (n,), centers c (C, d); class_weights W (C,), all one when left out; α > 0 in squared
    feature units.
    The mean divides by n, or by the sum of sample_weights (n,).
    """
    scale = _class_scale(accumulate(centers), class_weights, alpha)
    distances = own_distances(present(x, sample_weights), y, centers)
    return reduce_rows(scale[y] * distances / 2, sample_weights, reduction)


def _class_scale(centers: Tensor, class_weights: Tensor | None, alpha: float) -> Tensor:
    weights = torch.ones_like(centers[:, 0]) if class_weights is None else class_weights.to(centers.dtype)
    return weights / (center_spread(centers) + alpha)
