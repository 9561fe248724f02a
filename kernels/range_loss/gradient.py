"""dx, of the pairs that count and of the nearest two means."""

import triton
import triton.language as tl

from ..common.pair_tiles import load_rows


@triton.jit(do_not_specialize=["n"])
def range_gradient(
    x, order, index, starts, classes, pairs, slopes, means, nearest, hinge_slope, dx, n, d, alpha,
    K: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dx (n, d): of the class's chosen pairs a row is in, and of its class mean if that is one of the nearest two."""
    first = tl.program_id(0) * BLOCK
    rows = first + tl.arange(0, BLOCK)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    valid = rows < n
    number = tl.load(index + rows, mask=valid, other=0)
    classed = valid & (number < tl.load(classes))
    own = load_rows(x, first, valid, d, columns, d).to(tl.float32)
    gradient = tl.zeros((BLOCK, BLOCK_D), tl.float32)
    for slot in tl.static_range(K):
        slope = tl.load(slopes + number * K + slot, mask=classed, other=0.0)
        there = classed & (slope != 0)
        i = tl.load(pairs + 2 * number * K + slot, mask=there, other=-1)
        j = tl.load(pairs + (2 * number + 1) * K + slot, mask=there, other=-1)
        inside = ((i == rows) | (j == rows))[:, None] & (columns < d)[None, :]
        other = tl.where(i == rows, j, i).to(tl.int64)[:, None] * d + columns[None, :]
        difference = own - tl.load(x + other, mask=inside, other=0.0).to(tl.float32)
        gradient += tl.where(inside, (2 * alpha * slope)[:, None] * difference, 0.0)
    slope = tl.load(hinge_slope)
    if slope != 0:
        a, b = tl.load(nearest), tl.load(nearest + 1)
        apart = tl.load(means + a * d + columns, mask=columns < d, other=0.0)
        apart -= tl.load(means + b * d + columns, mask=columns < d, other=0.0)
        size = tl.load(starts + number + 1, mask=valid, other=1) - tl.load(starts + number, mask=valid, other=0)
        sign = tl.where(number == a, -1.0, tl.where(number == b, 1.0, 0.0))
        gradient += (2 * slope * sign / size.to(tl.float32))[:, None] * apart[None, :]
    output = tl.load(order + rows, mask=valid, other=0)[:, None] * d + columns[None, :]
    tl.store(dx + output, gradient.to(dx.dtype.element_ty), mask=valid[:, None] & (columns < d)[None, :])
