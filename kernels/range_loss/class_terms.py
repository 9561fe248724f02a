"""One class: its mean, its k widest pairs, and their harmonic mean."""

import triton
import triton.language as tl

from ..common.pair_tiles import compensated, load_rows
from .candidates import distance, next_widest


@triton.jit
def _class_mean(x, mean, first, last, d, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr):
    """Store the mean of the rows [first, last); 0 comes back, or NaN if one of them is not finite."""
    unbounded = tl.zeros((BLOCK_D,), tl.float32)
    for start in range(0, d, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        total = tl.zeros((BLOCK_D,), tl.float32)
        error = tl.zeros((BLOCK_D,), tl.float32)
        for row in range(first, last, BLOCK):
            valid = row + tl.arange(0, BLOCK) < last
            tile = load_rows(x, row, valid, d, columns, d).to(tl.float32)
            total, error = compensated(total, error, tl.sum(tile, 0))
            unbounded += tl.sum(tile * 0.0, 0)
        tl.store(mean + columns, total / (last - first), mask=columns < d)
    return tl.sum(unbounded)


@triton.jit(do_not_specialize=["n"])
def class_terms(
    x, starts, values, partners, means, pairs, slopes, losses, n, d,
    K: tl.constexpr, SLOTS: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One class: its mean (n, d), K widest pairs (n, 2, K), their harmonic mean (n,) and the slopes there (n, K)."""
    number = tl.program_id(0)
    first = tl.load(starts + number).to(tl.int32)
    last = tl.load(starts + number + 1).to(tl.int32)
    loss = 0.0
    if last > first:
        loss = _class_mean(x, means + number.to(tl.int64) * d, first, last, d, BLOCK, BLOCK_D)
    slots = tl.arange(0, SLOTS)
    distances = tl.full((SLOTS,), float("inf"), tl.float32)
    found = 0
    value, code = tl.full((), float("inf"), tl.float32), tl.full((), -1, tl.int64)
    for slot in tl.static_range(K):
        value, code = next_widest(values, partners, first, last, n, value, code, K, SLOTS, BLOCK)
        if value > float("-inf"):
            i, j = code // n, code % n
            distances = tl.where(slots == slot, distance(x + i * d, x + j * d, d, BLOCK_D), distances)
            tl.store(pairs + (2 * number) * K + slot, i.to(tl.int32))
            tl.store(pairs + (2 * number + 1) * K + slot, j.to(tl.int32))
            found += 1
    # In units of the smallest distance: neither 1/D nor the 1/D² of the slope overflows at near duplicates.
    counted = slots < found
    smallest = tl.min(distances)
    unit = tl.where((smallest > 0) & (smallest < float("inf")), smallest, 1.0)
    inverse = tl.where(counted, unit / tl.where(distances == 0, 1.0, distances), 0.0)
    total = tl.sum(inverse)
    used = (found > 0) & (smallest != 0)
    loss += tl.where(used, unit * found / tl.where(found > 0, total, 1.0), 0.0)
    # Of no pair it is 0 even where the total is NaN: a pair of another slope is looked up.
    share_of_total = tl.where(used & counted, inverse / tl.where(found > 0, total, 1.0), 0.0)
    tl.store(slopes + number * K + slots, found * share_of_total * share_of_total, mask=slots < K)
    tl.store(losses + number, loss)
