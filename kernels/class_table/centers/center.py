"""Center loss, the plain case of the center family (Wen et al. 2016).

A loss of the family is a :class:`..arguments.Center` of up to six functions, and the type of its settings `a`.
`loss(own, anti, scalar, a)` gives the loss of each row and its slopes in own = ‖x - c_y‖² and anti = S = Σ_{j≠y}
‖x - c_j‖², all (rows,); `scalar` is the row's class's entry of `scalar(weights, spread, variance, a)`, taken once from
the table: W_k, Σ_j ‖c_j - c_k‖² and σ² of affinity loss. `constant(spread_total, cosine_total, a)` is the term over
centers alone, which is never divided by n. `paper_slope(spread_total, a)` is the factor of Σ_j (c_y - c_j) that a
switch may add to the feature gradient. `move(c, pull, push, apart, directions, count, scalar, spread_total,
inverse_length, along, a)` moves the centers c of a tile (classes, columns) by the paper's rule: pull = Σ_{y=k}
(x - c_k), push = Σ_{y≠k} (c_k - x) p(x) with the weights p of `push(anti, a)`, apart = Σ_j (c_k - c_j), directions =
Σ_{j≠k} ĉ_j / (C-1); count n_k, the scalar, 1/‖c_k‖ and along = ĉ_k·directions, (classes, 1) each. What a loss does not
use the compiler drops.
"""

import triton
import triton.language as tl
from fer_fast.reference import CenterParams

from ..arguments import Center


@triton.jit
def center(own, anti, scalar, a):
    """½ ‖x - c_y‖²."""
    return 0.5 * own, tl.full(own.shape, 0.5, tl.float32), tl.zeros_like(own)


@triton.jit
def center_move(c, pull, push, apart, directions, count, scalar, spread_total, inverse_length, along, a):
    """c + α Σ_{y=k} (x - c_k) / (1 + n_k)."""
    return c + a.alpha * (pull / (1 + count))


CENTER = Center(center, center_move), CenterParams
