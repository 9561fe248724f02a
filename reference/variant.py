"""Variant loss (Pham et al. 2023): pull to the own center, push from all others, spread the centers."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .center import center_direction
from .params import NonNegative, formula
from .primitives import (
    accumulate,
    anti_center_distances,
    center_spread,
    own_distances,
    present,
    reduce_rows,
    unless_spoiled,
)

FeatureGradient = Literal["exact", "paper"]  # engines take the place among these


class VariantParams(NamedTuple):
    """Weights of the terms beside the pull to the own center, what keeps them finite, and how fast centers move."""

    lambda1: NonNegative = 0.4  # λ₁, weight of the push from the other centers
    lambda2: NonNegative = 0.6  # λ₂, weight of the spread of the centers
    eps1: NonNegative = 0.01  # ε₁, in squared feature units
    eps2: NonNegative = 0.01  # ε₂, in squared feature units
    alpha: NonNegative = 0.5  # the centers' learning rate
    feature_gradient: FeatureGradient = "exact"  # whether the features' gradient has the printed third term


DEFAULT = VariantParams()


def variant_update(
    x: Tensor,
    y: Tensor,
    centers: Tensor,
    lambda1: float = DEFAULT.lambda1,
    lambda2: float = DEFAULT.lambda2,
    eps1: float = DEFAULT.eps1,
    eps2: float = DEFAULT.eps2,
    alpha: float = DEFAULT.alpha,
    sample_weights: Tensor | None = None,
) -> Tensor:
    """c ← c - α ∇_k (eq. 5), with

    ∇_k = Σ_i δ(y_i,k) (c_k-x_i)/(1+n_k) - λ₁ Σ_i (1-δ(y_i,k)) (c_k-x_i)/(ε₁+S_i)² - λ₂ Σ_{n≠k} (c_k-c_n)/(2(ε₂+T)²).

    The plus printed in eq. 4 would ascend; Algorithm 1 has the minus, used here. A class absent from the batch is
    still pushed by the samples of the others. With sample_weights (n,) each row counts so many times. Returns (C, d).
    """
    old = accumulate(centers)
    x = present(x.to(old.dtype), sample_weights)
    num_classes = len(old)
    pull = center_direction(x, y, old, sample_weights)
    push_weight = (eps1 + anti_center_distances(x, y, old)).pow(-2)
    if sample_weights is not None:
        push_weight = sample_weights.to(old.dtype) * push_weight
    others = (torch.arange(num_classes, device=y.device)[:, None] != y).to(old.dtype) * push_weight
    push = others.sum(1, keepdim=True) * old - others @ x
    spread = num_classes * old - old.sum(0)
    direction = pull - lambda1 * push - lambda2 * spread / (2 * (eps2 + center_spread(old).sum()).square())
    return unless_spoiled(old - alpha * direction, centers)


@formula(VariantParams, variant_update)
def variant(
    x: Tensor,
    y: Tensor,
    centers: Tensor,
    lambda1: float = DEFAULT.lambda1,
    lambda2: float = DEFAULT.lambda2,
    eps1: float = DEFAULT.eps1,
    eps2: float = DEFAULT.eps2,
    feature_gradient: str = DEFAULT.feature_gradient,
    reduction: str = "mean",
    sample_weights: Tensor | None = None,
) -> Tensor:
    """L = ½ Σ_i ( ‖x_i - c_{y_i}‖² + λ₁ / (ε₁ + S_i) ) + λ₂ / (ε₂ + T)   (eq. 1).

    S_i = Σ_{j≠y_i} ‖x_i - c_j‖² and T = Σ_m Σ_{n≠m} ‖c_m - c_n‖² over ordered pairs of all classes.
    features x (n, d), labels y (n,), centers c (C, d). The last term runs over centers: it is not divided by n.

    `feature_gradient="exact"` gives the derivative of this formula. `"paper"` adds the third term of the printed
    eq. 3, -λ₂ · 2 Σ_{n≠y_i} (c_{y_i} - c_n) / (ε₂ + T)², although the centers are not functions of x_i; it changes the
    gradient only, not the value.
    """
    old = accumulate(centers)
    spread = center_spread(old).sum()
    x = present(x, sample_weights)
    own, anti = own_distances(x, y, old), anti_center_distances(x, y, old)
    samples = 0.5 * (own + lambda1 / (eps1 + anti))
    if feature_gradient == "paper":
        printed = -lambda2 * 2 * (len(old) * old - old.sum(0)) / (eps2 + spread).square()
        along = (accumulate(x) * printed[y]).sum(-1)
        samples = samples + (along - along.detach())  # adds exactly 0, however close the centers are
    return reduce_rows(samples, sample_weights, reduction) + lambda2 / (eps2 + spread)
