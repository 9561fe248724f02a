"""Softmax cross-entropy and weighted softmax (Ngo & Yoon 2020, weighted-cluster loss, eq. 1 and 6)."""

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from .params import formula
from .primitives import accumulate, present, reduce_rows


class SoftmaxParams(NamedTuple):
    """Softmax has no hyper-parameter."""


def softmax_logits(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """f_j = w_j·x + b_j for features `x` (n, d) and `weight` (C, d): (n, C)."""
    return accumulate(linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype)))


def hard_targets(y: Tensor) -> tuple[Tensor, Tensor | None]:
    """The class of each row, (n,), and which rows have one, (n, 1): None for all.

    Labels `y` are classes (n,), or shares of every class (n, C), of which those of a single class are a hard target.
    """
    if not y.is_floating_point():
        return y.long(), None
    target = y.argmax(1)
    return target, (y.gather(1, target[:, None]) == 1) & (y != 0).sum(1, keepdim=True).eq(1)


def with_targets(logits: Tensor, y: Tensor, targets: Tensor) -> Tensor:
    """Logits (n, C), those of the rows' hard targets replaced by `targets` (n, 1)."""
    own, hard = hard_targets(y)
    if hard is not None:
        targets = targets.where(hard, logits.gather(1, own[:, None]))
    return logits.scatter(1, own[:, None], targets)


def cross_entropies(
    logits: Tensor,
    y: Tensor,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    sample_weights: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Σ_i w_i Σ_j W_j t_ij (log Σ_k e^{f_ik} - f_ij) for logits f (n, C), as PyTorch's cross_entropy: () or (n,).

    Labels y are classes (n,), t_ij = [j = y_i], or shares t (n, C); smoothed by ε, t becomes (1 - ε) t + ε/C.
    class_weights W (C,) and sample_weights w (n,) are one where left out. The mean divides by Σ_i w_i W_{y_i}, and
    for shares of classes by Σ_i w_i; where that is 0 it is 0.
    """
    soft = y.is_floating_point()
    if class_weights is not None:
        class_weights = class_weights.to(logits.dtype)
    y = y.to(logits.dtype) if soft else y.long()
    losses = cross_entropy(logits, y, class_weights, label_smoothing=label_smoothing, reduction="none")
    total = None
    if class_weights is not None and not soft:
        total = (class_weights[y] * (1 if sample_weights is None else sample_weights.to(logits.dtype))).sum()
    return reduce_rows(losses, sample_weights, reduction, total)


@formula(SoftmaxParams, by_row=True)
def softmax(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    class_weights: Tensor | None = None,
    reduction: str = "mean",
    sample_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """L = -Σ_i W_{y_i} log p_{y_i}, p = softmax(x wᵀ + b).

    features x (n, d), labels y (n,) or (n, C), weight w (C, d), bias b (C,); class_weights W (C,), all one when left
    out. The mean divides by Σ_i W_{y_i}, as PyTorch's own loss does; a batch whose classes all weigh nothing loses
    nothing. For the rest see :func:`cross_entropies`.
    """
    logits = softmax_logits(present(x, sample_weights), weight, bias)
    return cross_entropies(logits, y, class_weights, label_smoothing, sample_weights, reduction)
