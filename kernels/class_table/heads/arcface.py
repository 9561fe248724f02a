"""ArcFace, an additive angular margin: the contract of :mod:`.softmax` on unit rows and unit class weights."""

import math
from typing import NamedTuple

import triton
import triton.language as tl

from ...common.tiles import inverse_or_zero, value_of
from ..arguments import YES, Head


class ArcFace(NamedTuple):
    """Scale s, and of the margin m its cos m, sin m and m sin m."""

    s: float
    cos: float
    sin: float
    drop: float


def arcface(s: float, m: float) -> ArcFace:
    """The arguments from scale and margin."""
    return ArcFace(s, math.cos(m), math.sin(m), m * math.sin(m))


@triton.jit
def _sine(cosine):
    return tl.sqrt(tl.maximum((1 - cosine) * (1 + cosine), 0.0))


@triton.jit
def arcface_logits(dot, hot, x_length, w_length, bias, a):
    """f_j = s cos θ_j, f_y = s cos(θ_y + m), past θ_y = π - m s (cos θ_y - m sin m); dot is the cosine."""
    own = tl.where(dot > -a.cos, a.cos * dot - a.sin * _sine(dot), dot - a.drop)
    return value_of(a.s) * tl.where(hot, own, dot)


@triton.jit
def arcface_chain(p, dot, hot, x_length, w_length, a):
    """G = s p, for the own class times sin(θ_y + m) / sin θ_y before π - m; R = -Σ_j G_j cos θ_j, Q = -G cos θ."""
    slope = a.cos + a.sin * dot * inverse_or_zero(_sine(dot))
    g = value_of(a.s) * p * tl.where(hot & (dot > -a.cos), slope, 1.0)
    along = -g * dot
    return g, tl.sum(along, 1), along


STEEPEST = tl.constexpr(2**12)  # a cosine in float32 is 1, or gives 1 / sin θ up to 2^11.5
ARCFACE = Head(arcface_logits, arcface_chain, unit_x=YES, unit_w=YES, lengths=YES, steepest=STEEPEST), arcface
