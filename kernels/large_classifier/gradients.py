"""From the products G W (or Gᵀ x) to gradients of rows: the terms of the target, or the way back from length one."""

import triton
import triton.language as tl

from ..common.pair_tiles import load_rows, store_rows
from ..directions.rows import unit_rows
from .targets import load_targets


@triton.jit(do_not_specialize=["first", "count", "n"])
def row_gradients(
    products, x, w, targets, coefficients, gradients, by_table, first, count, n, d, x_stride,
    APART: tl.constexpr, UNIT_W: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradients of `count` rows of x from `first` on, of `n`, from `products` (count, d).

    A direction has no part along itself: (dU - (dU·x̂) x̂) / ‖x‖. To rows that kept their length, APART, G_y w_y + R x̂ is
    added; what the target adds to the gradient of w_y, G_y x + Q ŵ_y, goes to `by_table` (count, d).
    """
    block = tl.program_id(0) * BLOCK
    rows, columns = block + tl.arange(0, BLOCK), tl.arange(0, BLOCK_D)
    inside = rows < count
    start = first + block
    gradient = load_rows(products, block, inside, d, columns, d).to(tl.float32)
    features = load_rows(x, start, inside, x_stride, columns, d).to(tl.float32)
    u, inverse = unit_rows(features, columns, d, False)
    if APART:
        own = load_targets(w, tl.load(targets + first + rows, mask=inside, other=-1), d, columns)
        v = unit_rows(own, columns, d, False)[0]
        at = coefficients + first + rows
        g = tl.load(at, mask=inside, other=0.0)[:, None]
        gradient += g * (v if UNIT_W else own) + tl.load(at + n, mask=inside, other=0.0)[:, None] * u
        added = g * features
        if not UNIT_W:
            added += tl.load(at + 2 * n, mask=inside, other=0.0)[:, None] * v
        store_rows(by_table, block, d, columns, d, count, added)
    else:
        gradient = (gradient - tl.sum(gradient * u, 1)[:, None] * u) * inverse[:, None]
    store_rows(gradients, start, d, columns, d, first + count, gradient)
