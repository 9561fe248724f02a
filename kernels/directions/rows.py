"""Directions of rows."""

import triton
import triton.language as tl

from ..common.tiles import is_finite


@triton.jit
def unit_rows(x, columns, width, STANDARDISE: tl.constexpr):
    """Directions u (R, D) of rows x (R, D, zero past the width) and 1/‖v‖ (R,), as in `reference/primitives.py`.

    A zero or constant row has no direction: u and 1/‖v‖ are 0. A row whose square is not finite is NaN throughout.
    """
    inside = (columns < width)[None, :]
    if STANDARDISE:
        first = tl.sum(tl.where(columns[None, :] == 0, x, 0.0), 1)
        x = tl.where(inside, x - first[:, None], 0.0)
        x = tl.where(inside, x - (tl.sum(x, 1) / width)[:, None], 0.0)
    squared = tl.sum(x * x, 1)
    constant = squared == 0
    norm = tl.where(is_finite(squared), tl.sqrt_rn(tl.where(constant, 1.0, squared)), float("nan"))
    u = tl.div_rn(x, tl.broadcast_to(norm[:, None], x.shape))
    return u, tl.where(constant, 0.0, tl.div_rn(tl.full(norm.shape, 1.0, tl.float32), norm))
