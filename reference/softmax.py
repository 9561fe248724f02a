"""Softmax cross-entropy and weighted softmax (Ngo & Yoon 2020, weighted-cluster loss, eq. 1 and 6)."""

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from .params import formula
from .primitives import accumulate


class SoftmaxParams(NamedTuple):
    """Softmax has no hyper-parameter."""


def softmax_logits(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """f_j = w_j·x + b_j for features `x` (n, d) and `weight` (C, d): (n, C)."""
    return accumulate(linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype)))


@formula(SoftmaxParams)
def softmax(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    class_weights: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """L = -Σ_i W_{y_i} log p_{y_i}, p = softmax(x Wᵀ + b).

    x (n, d), y (n,), weight (C, d), bias (C,); class_weights W (C,), all one when left out. The mean divides by
    Σ_i W_{y_i}, as PyTorch's own loss does; a batch whose classes all weigh nothing loses nothing.
    """
    logits = softmax_logits(x, weight, bias)
    if class_weights is None:
        return cross_entropy(logits, y.long(), reduction=reduction)
    class_weights = class_weights.to(logits.dtype)
    total = cross_entropy(logits, y.long(), class_weights, reduction="sum")
    weighed = class_weights[y].sum()
    return total if reduction == "sum" else total / weighed.where(weighed != 0, 1)
