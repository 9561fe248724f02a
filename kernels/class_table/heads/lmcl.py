"""LMCL, also CosFace and AM-softmax: the contract of :mod:`.softmax` on unit rows and unit class weights."""

import triton
import triton.language as tl
from fer_fast.reference import LMCLParams

from ...common.tiles import value_of
from ..arguments import YES, Head


@triton.jit
def lmcl_logits(dot, hot, x_length, w_length, bias, a):
    """f_j = s (cos θ_j - m [j = y]); dot is the cosine."""
    return value_of(a.s) * (dot - tl.where(hot, a.m, 0.0))


@triton.jit
def lmcl_chain(p, dot, hot, x_length, w_length, a):
    """G = s p; a direction has no part along itself: R = -Σ_j G_j cos θ_j, Q = -G cos θ."""
    g = value_of(a.s) * p
    along = -g * dot
    return g, tl.sum(along, 1), along


LMCL = Head(lmcl_logits, lmcl_chain, unit_x=YES, unit_w=YES, lengths=YES), LMCLParams
