"""Distances to all centers but the own, or their gradient."""

import triton
import triton.language as tl

from ..common.pair_tiles import load_rows, store_rows


@triton.jit(do_not_specialize=["n", "num_classes"])
def anti_center(
    x, y, centers, mean, spreads, spread, grad, output, n, num_classes, d, x_stride, center_stride,
    GRADIENT: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """S_i (n,), or with GRADIENT dx (n, d), through the mean c̄₋ and the spread V₋ of the other centers."""
    first = tl.program_id(0) * BLOCK
    rows = first + tl.arange(0, BLOCK)
    label = tl.load(y + rows, mask=rows < n, other=0).to(tl.int64)  # times a stride
    known = (label >= 0) & (label < num_classes)
    others = (num_classes - 1).to(tl.float64)
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, d, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        inside = known[:, None] & (columns < d)[None, :]
        own = tl.load(centers + (label * center_stride)[:, None] + columns[None, :], mask=inside, other=float("nan"))
        middle = tl.load(mean + columns, mask=columns < d, other=0.0)[None, :]
        row = load_rows(x, first, rows < n, x_stride, columns, d).to(tl.float64)
        # x - c̄₋: in float64, since next to the only other center the two terms all but cancel.
        difference = (row - middle) + (own.to(tl.float64) - middle) / others
        if GRADIENT:
            g = tl.load(grad + rows, mask=rows < n, other=0.0).to(tl.float64)
            dx = (2 * others * g)[:, None] * difference
            store_rows(output, first, d, columns, d, n, dx)
        else:
            total += tl.sum(tl.where((columns < d)[None, :], difference * difference, 0.0), 1)
    if not GRADIENT:
        own_spread = tl.load(spreads + label, mask=known, other=float("nan"))
        rest = tl.load(spread) - own_spread * (others + 1) / others
        s = others * total + tl.where(rest < 0, 0.0, rest)
        tl.store(output + rows, s.to(tl.float32), mask=rows < n)
