"""Softmax cross-entropy: logits of a tile, and the chain rule back to the products x·w.

A classifier is a :class:`..arguments.Head` of two functions, and the type of its settings `a`. `logits(dot, hot,
x_length, w_length, bias, a)` turns the products of a tile of rows with the class weights, (rows, classes), into logits;
that of the own class, where `hot`, is the product in float32. `chain(p, dot, hot, x_length, w_length, a)` takes
p = d loss/d logits and gives G = d loss/d dot (rows, classes), R (rows,) and Q (rows, classes), with which

    d loss/dx = ρ (G W + R x̂),   d loss/dw_j = υ_j (Σ_i G_ij x_i + (Σ_i Q_ij) ŵ_j),

x̂, ŵ the directions. Where a classifier scales rows (weights) to length one, the engine hands it products of the scaled
ones and ρ = 1/‖x‖ (υ_j = 1/‖w_j‖); else ρ (υ) is 1.
"""

import triton
import triton.language as tl
from fer_fast.reference import SoftmaxParams

from ..arguments import Head


@triton.jit
def softmax_logits(dot, hot, x_length, w_length, bias, a):
    """f_j = x·w_j + b_j."""
    return dot + bias[None, :]


@triton.jit
def softmax_chain(p, dot, hot, x_length, w_length, a):
    """f is the product itself: G = p."""
    return p, tl.zeros_like(x_length), tl.zeros_like(p)


SOFTMAX = Head(softmax_logits, softmax_chain), SoftmaxParams
