"""Large-margin cosine loss, also known as CosFace and AM-softmax (Lu & Wu 2022, eq. 1-3)."""

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from .params import NonNegative, Positive, formula
from .primitives import accumulate, unit


class LMCLParams(NamedTuple):
    """Scale and margin of the cosines."""

    s: Positive = 30.0  # scale: the logits lie in [-s, s]
    m: NonNegative = 0.35  # margin, in units of the cosine


DEFAULT = LMCLParams()


def lmcl_logits(x: Tensor, weight: Tensor, s: float = DEFAULT.s) -> Tensor:
    """f_j = s·cos θ_j, θ_j the angle between x and w_j, without the margin: (n, C)."""
    return s * accumulate(unit(accumulate(x)) @ unit(accumulate(weight)).mT)


@formula(LMCLParams)
def lmcl(
    x: Tensor, y: Tensor, weight: Tensor, s: float = DEFAULT.s, m: float = DEFAULT.m, reduction: str = "mean"
) -> Tensor:
    """L = -Σ_i log softmax_j( s·(cos θ_j - m·[j = y_i]) ) at j = y_i.

    x (n, d), y (n,), weight (C, d); scale s, margin m in units of the cosine. Features and class weights are both
    scaled to length one; there is no bias. A zero feature has no direction: its cosines are 0.
    """
    logits = lmcl_logits(x, weight, s)
    margins = s * m * one_hot(y.long(), len(weight)).to(logits.dtype)
    return cross_entropy(logits - margins, y.long(), reduction=reduction)
