"""What the lists of extremes hold: a pair's distance, and which pair ranks next."""

import triton
import triton.language as tl

from ..common.pair_tiles import row_pointers


@triton.jit
def distance(a, b, width, BLOCK: tl.constexpr):
    """‖a - b‖² of two rows, by differences."""
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, width, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        left = tl.load(a + columns, mask=columns < width, other=0.0).to(tl.float32)
        right = tl.load(b + columns, mask=columns < width, other=0.0).to(tl.float32)
        total += (left - right) * (left - right)
    return tl.sum(total)


@triton.jit
def next_widest(
    values, partners, first, last, n, value, code, K: tl.constexpr, SLOTS: tl.constexpr, BLOCK: tl.constexpr
):
    """The candidate of rows [first, last) that ranks next after (value, code): by distance, then by pair i·n + j."""
    slots = tl.arange(0, SLOTS)
    best = tl.full((), float("-inf"), tl.float32)
    best_code = tl.full((), -1, tl.int64)
    for start in range(first, last, BLOCK):
        rows = start + tl.arange(0, BLOCK)
        inside = (rows < last)[:, None] & (slots < K)[None, :]
        v = tl.load(row_pointers(values, start, K, slots, BLOCK), mask=inside, other=float("-inf"))
        partner = tl.load(row_pointers(partners, start, K, slots, BLOCK), mask=inside, other=0)
        codes = rows.to(tl.int64)[:, None] * n + partner
        v = tl.where((v < value) | ((v == value) & (codes > code)), v, float("-inf"))
        tile_best = tl.max(v)
        if tile_best > best:  # rows ascend, so an equal one comes later
            best = tile_best
            best_code = tl.min(tl.where(v == tile_best, codes, 9223372036854775807))
    return best, best_code
