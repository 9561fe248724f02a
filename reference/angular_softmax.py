"""A-softmax (SphereFace) and L-softmax: a multiplicative angular margin (Lu & Wu 2022; Liu et al. 2016, 2017)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from .params import Count, NonNegative, formula
from .primitives import accumulate, present, unit
from .softmax import cross_entropies, hard_targets, with_targets


class AngularParams(NamedTuple):
    """Margin and blend of A-softmax and L-softmax."""

    m: Count = 4  # margin: the factor of the target's angle
    lambda_: NonNegative = 5.0  # λ, the weight of the plain cosine beside ψ's one


DEFAULT = AngularParams()


def blended_cosine(cosine: Tensor, m: int, lambda_: float) -> Tensor:
    """(λ cos θ + ψ(θ)) / (1 + λ) with ψ(θ) = (-1)^k cos(mθ) - 2k for θ in [kπ/m, (k+1)π/m].

    cos(mθ) is the Chebyshev polynomial T_m(cos θ), and k counts the thresholds cos(jπ/m) the cosine lies below, so no
    arccos (whose slope is infinite at ±1) is taken.
    """
    previous, multiple = torch.ones_like(cosine), cosine
    for _ in range(m - 1):
        previous, multiple = multiple, 2 * cosine * multiple - previous
    thresholds = torch.tensor([math.cos(j * math.pi / m) for j in range(1, m)], dtype=cosine.dtype)
    k = (cosine.detach()[..., None] < thresholds.to(cosine.device)).sum(-1)
    psi = (1 - 2 * (k % 2)) * multiple - 2 * k
    return (lambda_ * cosine + psi) / (1 + lambda_)


def a_softmax_logits(x: Tensor, weight: Tensor) -> Tensor:
    """f_j = ‖x‖ cos θ_j, without the margin: (n, C)."""
    return accumulate(linear(accumulate(x), unit(accumulate(weight))))


@formula(AngularParams, by_row=True)
def a_softmax(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    m: int = DEFAULT.m,
    lambda_: float = DEFAULT.lambda_,
    reduction: str = "mean",
    sample_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of f_j = ‖x‖ cos θ_j, the target's cos θ_y replaced by :func:`blended_cosine`.

    features x (n, d), labels y (n,) or (n, C), weight w (C, d), whose rows are scaled to length one; m the integer
    margin, λ the blend in force. Soft labels have a margin where they are one class's alone; for the rest see
    :func:`.softmax.cross_entropies`.
    """
    logits = _angular_margin(present(x, sample_weights), y, unit(accumulate(weight)), m, lambda_)
    return cross_entropies(logits, y, None, label_smoothing, sample_weights, reduction)


@formula(AngularParams, by_row=True)
def l_softmax(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    m: int = DEFAULT.m,
    lambda_: float = DEFAULT.lambda_,
    reduction: str = "mean",
    sample_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of f_j = ‖x‖ ‖w_j‖ cos θ_j, the target's cos θ_y replaced by :func:`blended_cosine`.

    features x (n, d), labels y (n,) or (n, C), weight w (C, d): as :func:`a_softmax`, but the class weights keep their
    lengths.
    """
    logits = _angular_margin(present(x, sample_weights), y, accumulate(weight), m, lambda_)
    return cross_entropies(logits, y, None, label_smoothing, sample_weights, reduction)


def _angular_margin(x: Tensor, y: Tensor, weight: Tensor, m: int, lambda_: float | Tensor) -> Tensor:
    x = accumulate(x)
    logits = accumulate(linear(x, weight))
    own = weight[hard_targets(y)[0]]
    lengths = torch.linalg.vector_norm(x, dim=-1) * torch.linalg.vector_norm(own, dim=-1)
    cosine = (unit(x) * unit(own)).sum(-1)
    target = lengths * blended_cosine(cosine, m, lambda_)
    return with_targets(logits, y, target[:, None].to(logits.dtype))
