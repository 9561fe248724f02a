"""Of each row the k extreme partners behind it."""

import triton
import triton.language as tl

from ..common.pair_tiles import squared_distances, store_rows


@triton.jit
def _insert(best, partners, slots, value, partner):
    """Put candidates (R,) into lists best (R, K), over their smallest value, if larger: of equals the earlier stays."""
    smallest = tl.min(best, 1)
    weakest = tl.min(tl.where(best == smallest[:, None], -slots[None, :], 1), 1)
    here = (slots[None, :] == -weakest[:, None]) & (value > smallest)[:, None]
    return tl.where(here, value[:, None], best), tl.where(here, partner[:, None], partners)


@triton.jit
def _any_larger(candidates, best):
    """Whether a candidate (R, N) belongs into its row's list (R, K)."""
    return tl.max((candidates > tl.min(best, 1)[:, None]).to(tl.int32)) > 0


@triton.jit(do_not_specialize=["n"])
def extremes(
    table, ends, values, partners, n, d, LARGEST: tl.constexpr, K: tl.constexpr, SLOTS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Per row i the K extreme distances to rows j in (i, end_i), and those j: (n, K), missing ones below any distance.

    Keeps the largest of ±D. NaN ranks first, so that it is chosen and reaches the loss.
    """
    first_row = tl.program_id(0) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    end = tl.load(ends + rows, mask=rows < n, other=0).to(tl.int32)
    slots = tl.arange(0, SLOTS)
    # Slots past K, up to the power of two a tensor needs, can never be the smallest.
    best = tl.where(slots[None, :] < K, tl.full((BLOCK_M, SLOTS), float("-inf"), tl.float32), float("inf"))
    chosen = tl.full((BLOCK_M, SLOTS), -1, tl.int32)
    for start in range(first_row, tl.max(end), BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        distance = squared_distances(table, rows, table, keys, d, CHUNK)
        if not LARGEST:
            distance = -distance
        distance = tl.where(distance != distance, float("inf"), distance)
        pair = (keys[None, :] > rows[:, None]) & (keys[None, :] < end[:, None])
        candidates = tl.where(pair, distance, float("-inf"))
        while _any_larger(candidates, best):
            value = tl.max(candidates, 1)
            partner = tl.min(tl.where(candidates == value[:, None], keys[None, :], n), 1)
            best, chosen = _insert(best, chosen, slots, value, partner)
            candidates = tl.where(keys[None, :] == partner[:, None], float("-inf"), candidates)
    store_rows(values, first_row, K, slots, K, n, best)
    store_rows(partners, first_row, K, slots, K, n, chosen)
