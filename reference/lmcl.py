"""Large-margin cosine loss, also known as CosFace and AM-softmax (Lu & Wu 2022, eq. 1-3)."""

from typing import NamedTuple

from torch import Tensor

from .params import Learnable, NonNegative, formula
from .primitives import accumulate, present, unit
from .softmax import cross_entropies, hard_targets, with_targets


class LMCLParams(NamedTuple):
    """Scale and margin of the cosines."""

    s: Learnable = 30.0  # scale: the logits lie in [-s, s]
    m: NonNegative = 0.35  # margin, in units of the cosine


DEFAULT = LMCLParams()


def lmcl_logits(x: Tensor, weight: Tensor, s: float | Tensor = DEFAULT.s) -> Tensor:
    """f_j = s·cos θ_j, θ_j the angle between x and w_j, without the margin: (n, C)."""
    return s * accumulate(unit(accumulate(x)) @ unit(accumulate(weight)).mT)


@formula(LMCLParams, by_row=True)
def lmcl(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    s: float | Tensor = DEFAULT.s,
    m: float = DEFAULT.m,
    reduction: str = "mean",
    sample_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """L = -Σ_i log softmax_j( s·(cos θ_j - m·[j = y_i]) ) at j = y_i.

    features x (n, d), labels y (n,) or (n, C), weight w (C, d); scale s, margin m in units of the cosine. Features and
    class weights are both scaled to length one; there is no bias. A zero feature has no direction: its cosines are 0.
    Soft labels have a margin where they are one class's alone; for the rest see :func:`.softmax.cross_entropies`.
    """
    cosines = lmcl_logits(present(x, sample_weights), weight, 1.0)
    own = cosines.gather(1, hard_targets(y)[0][:, None])
    return cross_entropies(s * with_targets(cosines, y, own - m), y, None, label_smoothing, sample_weights, reduction)
