"""Center loss, the plain case of the center family.

An auxiliary loss is up to six functions. `<name>(own, anti, scalar, a)` gives the loss of each row and its slopes in
own = ‖x - c_y‖² and anti = S = Σ_{j≠y} ‖x - c_j‖², all (rows,); `scalar` is the row's class's entry of
`<name>_scalar(weights, spread, variance, a)`, taken once from the table: W_k, Σ_j ‖c_j - c_k‖² and σ² of affinity loss.
`<name>_constant(spread_total, cosine_total, a)` is the term over centers alone, which is never divided by n.
`<name>_paper_slope(spread_total, a)` is the factor of Σ_j (c_y - c_j) that a switch may add to the feature gradient.
`<name>_move(c, pull, push, apart, directions, count, scalar, spread_total, inverse_length, along, a)` moves the centers
c of a tile (classes, columns) by the paper's rule: pull = Σ_{y=k} (x - c_k), push = Σ_{y≠k} (c_k - x) p(x) with the
weights p of `<name>_push(anti, a)`, apart = Σ_j (c_k - c_j), directions = Σ_{j≠k} ĉ_j / (C-1); count n_k, the scalar,
1/‖c_k‖ and along = ĉ_k·directions, (classes, 1) each. What a loss does not use the compiler drops.
"""

from typing import NamedTuple

import triton
import triton.language as tl


class Center(NamedTuple):
    """α, the centers' own learning rate."""

    alpha: float = 0.0


@triton.jit
def center(own, anti, scalar, a):
    """½ ‖x - c_y‖²."""
    return 0.5 * own, tl.full(own.shape, 0.5, tl.float32), tl.zeros_like(own)


@triton.jit
def no_scalar(weights, spread, variance, a):
    """For losses without a factor per class."""
    return tl.zeros_like(spread)


@triton.jit
def no_constant(spread_total, cosine_total, a):
    """For losses without a term over centers alone."""
    return 0.0


@triton.jit
def no_push(anti, a):
    """For losses that push no center away from other classes' samples."""
    return tl.zeros_like(anti)


@triton.jit
def no_paper_slope(spread_total, a):
    """For losses whose printed gradient is the exact one."""
    return 0.0


@triton.jit
def center_move(c, pull, push, apart, directions, count, scalar, spread_total, inverse_length, along, a):
    """c + α Σ_{y=k} (x - c_k) / (1 + n_k)."""
    return c + a.alpha * (pull / (1 + count))
