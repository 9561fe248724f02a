"""A-softmax (unit class weights) and L-softmax (class weights as they are): the contract of :mod:`.softmax`."""

import math
from typing import NamedTuple

import triton
import triton.language as tl

from ...common.tiles import inverse_or_zero, value_of
from ..arguments import YES, Head


class AngularSoftmax(NamedTuple):
    """Blend λ, and cos(jπ/m) for j = 1 .. m-1, whose number gives the margin m."""

    lambda_: float
    thresholds: tuple[float, ...]


def angular_softmax(m: float, lambda_: float) -> AngularSoftmax:
    """The arguments from the integer margin m and the blend λ in force."""
    return AngularSoftmax(lambda_, tuple(math.cos(j * math.pi / m) for j in range(1, int(m))))


@triton.jit
def blended_cosine(cosine, a):
    """B = (λ cos θ + (-1)^k cos(mθ) - 2k) / (1 + λ) and its slope dB/d cos θ.

    cos(mθ) is the Chebyshev polynomial T_m(cos θ); k counts the thresholds that cos θ lies below.
    """
    previous = tl.full(cosine.shape, 1.0, tl.float32)
    previous_slope = tl.zeros_like(cosine)
    multiple = cosine
    slope = previous
    k = tl.zeros_like(cosine)
    sign = previous
    for j in tl.static_range(len(a.thresholds)):
        following = 2 * cosine * multiple - previous
        following_slope = 2 * multiple + 2 * cosine * slope - previous_slope
        previous, previous_slope = multiple, slope
        multiple, slope = following, following_slope
        below = cosine < a.thresholds[j]
        k += tl.where(below, 1.0, 0.0)
        sign = tl.where(below, -sign, sign)
    lambda_ = value_of(a.lambda_)
    blend = (lambda_ * cosine + sign * multiple - 2 * k) / (1 + lambda_)
    return blend, (lambda_ + sign * slope) / (1 + lambda_)


@triton.jit
def _target(dot, hot, x_length, own_length, a):
    """B and dB/d cos θ of each row's own class: (rows,) both."""
    cosine = tl.sum(tl.where(hot, dot, 0.0), 1) * inverse_or_zero(x_length) * inverse_or_zero(own_length)
    return blended_cosine(cosine, a)


@triton.jit
def _own_length(hot, w_length):
    return tl.sum(tl.where(hot, w_length[None, :], 0.0), 1)


@triton.jit
def l_softmax_logits(dot, hot, x_length, w_length, bias, a):
    """f_j = x·w_j, but ‖x‖ ‖w_y‖ B(θ_y) for the row's own class."""
    own_length = _own_length(hot, w_length)
    blend, _ = _target(dot, hot, x_length, own_length, a)
    return tl.where(hot, (x_length * own_length * blend)[:, None], dot)


@triton.jit
def l_softmax_chain(p, dot, hot, x_length, w_length, a):
    """Own class: G = p B', R = p ‖w‖ (B - B' cos θ), Q = p ‖x‖ (B - B' cos θ); the others: G = p."""
    own_length = _own_length(hot, w_length)
    cosine = tl.sum(tl.where(hot, dot, 0.0), 1) * inverse_or_zero(x_length) * inverse_or_zero(own_length)
    blend, slope = blended_cosine(cosine, a)
    p_own = tl.sum(tl.where(hot, p, 0.0), 1)
    # A vector of length zero has no angle: its margin passes no gradient.
    slope = tl.where((x_length == 0) | (own_length == 0), 0.0, slope)
    rest = p_own * (blend - slope * cosine)
    g = tl.where(hot, p * slope[:, None], p)
    return g, rest * own_length, tl.where(hot, (rest * x_length)[:, None], 0.0)


@triton.jit
def a_softmax_logits(dot, hot, x_length, w_length, bias, a):
    """f_j = x·ŵ_j, but ‖x‖ B(θ_y) for the row's own class; dot is taken with the unit weights ŵ."""
    return l_softmax_logits(dot, hot, x_length, _unit_length(w_length), bias, a)


@triton.jit
def a_softmax_chain(p, dot, hot, x_length, w_length, a):
    """As :func:`l_softmax_chain` with ‖ŵ‖ = 1, but a direction has no part along itself: Q = -G (x·ŵ)."""
    g, r, _ = l_softmax_chain(p, dot, hot, x_length, _unit_length(w_length), a)
    return g, r, -g * dot


@triton.jit
def _unit_length(length):
    """The length of a scaled vector: 1, or 0 where there was no direction."""
    return tl.where(length == 0, 0.0, tl.where(length == length, 1.0, length))


A_SOFTMAX = Head(a_softmax_logits, a_softmax_chain, unit_w=YES, lengths=YES), angular_softmax
L_SOFTMAX = Head(l_softmax_logits, l_softmax_chain, lengths=YES), angular_softmax
