"""ArcFace: an additive angular margin (Deng et al. 2019)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .lmcl import lmcl_logits
from .params import Angle, Positive, formula


class ArcFaceParams(NamedTuple):
    """Scale of the cosines and margin of the target's angle."""

    s: Positive = 64.0  # scale: the logits of other classes lie in [-s, s]
    m: Angle = 0.5  # margin, in radians


DEFAULT = ArcFaceParams()


@formula(ArcFaceParams)
def arcface(
    x: Tensor, y: Tensor, weight: Tensor, s: float = DEFAULT.s, m: float = DEFAULT.m, reduction: str = "mean"
) -> Tensor:
    """L = -Σ_i log softmax_j(f_j) at j = y_i, f_j = s·cos θ_j for j ≠ y_i and f_y = s·cos(θ_y + m).

    Past θ_y = π - m, where it would rise again, f_y = s·(cos θ_y - m·sin m). x (n, d), y (n,), weight (C, d); scale s,
    margin m in radians. Features and class weights are both scaled to length one; there is no bias. A zero feature has
    no direction: its cosines are 0. At θ_y = 0 the loss has a kink, where sin θ_y counts as a constant.
    """
    y = y.long()[:, None]
    cosines = lmcl_logits(x, weight, 1.0)
    own = cosines.gather(1, y)
    # A product of two small factors loses no digits where the cosine is near ±1; below the bound it has no slope.
    sine = ((1 - own) * (1 + own)).clamp(min=torch.finfo(own.dtype).tiny).sqrt()
    target = torch.where(own > -math.cos(m), own * math.cos(m) - sine * math.sin(m), own - m * math.sin(m))
    return cross_entropy(s * cosines.scatter(1, y, target), y[:, 0], reduction=reduction)
