"""ArcFace: an additive angular margin (Deng et al. 2019)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .lmcl import lmcl_logits
from .params import Angle, Learnable, formula
from .primitives import present
from .softmax import cross_entropies, hard_targets, with_targets


class ArcFaceParams(NamedTuple):
    """Scale of the cosines and margin of the target's angle."""

    s: Learnable = 64.0  # scale: the logits of other classes lie in [-s, s]
    m: Angle = 0.5  # margin, in radians


DEFAULT = ArcFaceParams()


@formula(ArcFaceParams, by_row=True)
def arcface(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    s: float | Tensor = DEFAULT.s,
    m: float = DEFAULT.m,
    reduction: str = "mean",
    sample_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """L = -Σ_i log softmax_j(f_j) at j = y_i, f_j = s·cos θ_j for j ≠ y_i and f_y = s·cos(θ_y + m).

    Past θ_y = π - m, where it would rise again, f_y = s·(cos θ_y - m·sin m). features x (n, d), labels y (n,) or
    (n, C), weight w (C, d); scale s, margin m in radians. Features and class weights are both scaled to length one;
    there is no bias. A zero feature has no direction: its cosines are 0. At θ_y = 0 the loss has a kink, where sin θ_y
    counts as a constant. Soft labels have a margin where they are one class's alone; for the rest see
    :func:`.softmax.cross_entropies`.
    """
    cosines = lmcl_logits(present(x, sample_weights), weight, 1.0)
    own = cosines.gather(1, hard_targets(y)[0][:, None])
    # A product of two small factors loses no digits where the cosine is near ±1; below the bound it has no slope.
    sine = ((1 - own) * (1 + own)).clamp(min=torch.finfo(own.dtype).tiny).sqrt()
    target = torch.where(own > -math.cos(m), own * math.cos(m) - sine * math.sin(m), own - m * math.sin(m))
    return cross_entropies(s * with_targets(cosines, y, target), y, None, label_smoothing, sample_weights, reduction)
