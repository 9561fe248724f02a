"""The shares of all keys joined: log D, losses, the anchors that count, and the bank's sums."""

import triton
import triton.language as tl

from ..common.pair_tiles import LN2, load_rows, store_rows
from .tiles import load_partners


@triton.jit
def _join_values(values, statistics, peak, n, d, splits, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr):
    """A chunk of columns of each row's sum over the bank, from all splits, in place of the first split's."""
    first_row = tl.program_id(0) * BLOCK
    rows = first_row + tl.arange(0, BLOCK)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros((BLOCK, BLOCK_D), tl.float32)
    for split in range(splits):
        decay = tl.exp2(tl.load(statistics + split * n + rows, mask=rows < n, other=0.0) - peak)
        part = load_rows(values + tl.cast(split, tl.int64) * n * d, first_row, rows < n, d, columns, d)
        total += decay[:, None] * part
    store_rows(values, first_row, d, columns, d, n, total)


@triton.jit
def _row_sums(z, statistics, peak, rows, n, d, z_stride, splits, scale, PAIRED: tl.constexpr, BLOCK_D: tl.constexpr):
    """Mass, sum of similarities to positives and their number from all splits, (BLOCK,) each."""
    mass, similar, positives = tl.zeros_like(peak), tl.zeros_like(peak), tl.zeros_like(peak)
    for split in range(splits):
        of_split = statistics + split * n + rows
        decay = tl.exp2(tl.load(of_split, mask=rows < n, other=0.0) - peak)
        mass += decay * tl.load(of_split + splits * n, mask=rows < n, other=0.0)
        if not PAIRED:
            similar += tl.load(of_split + 2 * splits * n, mask=rows < n, other=0.0)
            positives += tl.load(of_split + 3 * splits * n, mask=rows < n, other=0.0)
    if PAIRED:
        positives += tl.where(rows < n, 1.0, 0.0)
        for start in range(0, d, BLOCK_D):
            columns = start + tl.arange(0, BLOCK_D)
            at = z + rows.to(tl.int64)[:, None] * z_stride + columns[None, :]
            row = tl.load(at, mask=(rows < n)[:, None] & (columns < d)[None, :], other=0.0).to(tl.float32)
            similar += scale * tl.sum(row * load_partners(z, rows, n, z_stride, columns, d).to(tl.float32), 1)
    return mass, similar, positives


@triton.jit(do_not_specialize=["n", "splits"])
def combine(
    z, bound, statistics, values, weight, log_denominator, row_peak, row_share, row_pull, partial,
    n, d, z_stride, splits, scale, PAIRED: tl.constexpr, JOIN: tl.constexpr, WEIGHTED: tl.constexpr,
    RAISE: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Per row log D_i, w_i/D_i as 2^-peak · share, and pull 2/|P_i|; per tile its losses and anchors, (2, tiles). For
    `batch_gradient` share and pull are raised by 2^RAISE, and its factor lowered.

    D stays in two parts: rounded into one logarithm, large logits would lose the digits that P is made of. w_i is 1
    where there is a positive, else 0, or WEIGHTED the given one (n,). A grid of (tiles of rows, chunks of columns): to
    JOIN the splits' values each program takes a chunk, and those of the first do the rest.
    """
    tile, tiles = tl.program_id(0), tl.num_programs(0)
    rows = tile * BLOCK + tl.arange(0, BLOCK)
    valid = rows < n
    peak = tl.full((BLOCK,), float("-inf"), tl.float32)
    for split in range(splits):
        peak = tl.maximum(peak, tl.load(statistics + split * n + rows, mask=valid, other=0.0))
    peak = tl.where(peak == float("-inf"), 0.0, peak)
    if JOIN:
        _join_values(values, statistics, peak, n, d, splits, BLOCK, BLOCK_D)
    if tl.program_id(1) == 0:
        mass, similar, positives = _row_sums(
            z, statistics, peak, rows, n, d, z_stride, splits, scale, PAIRED, BLOCK_D
        )  # fmt: skip
        log2_denominator = peak + tl.log2(mass)
        anchor = positives > 0
        losses = tl.where(anchor, (log2_denominator - similar / tl.maximum(positives, 1.0)) * LN2, 0.0)
        if not tl.load(bound) < float("inf"):
            # 0·z is NaN where z is not finite: such a row reaches the loss even if no similarity shows it.
            for start in range(0, d, BLOCK_D):
                row = load_rows(z, tile * BLOCK, valid, z_stride, start + tl.arange(0, BLOCK_D), d)
                losses += tl.sum(row * 0.0, 1).to(tl.float32)
        w = anchor.to(tl.float32)
        if WEIGHTED:
            w = tl.load(weight + rows, mask=valid, other=0.0)
        tl.store(log_denominator + rows, log2_denominator * LN2, mask=valid)
        tl.store(row_peak + rows, peak, mask=valid)
        tl.store(row_share + rows, tl.where(mass == 0, 0.0, w / mass * 2.0**RAISE), mask=valid)
        # Both ways alike: two rows of a class have equally many positives.
        pull = tl.where(anchor, 2.0 ** (RAISE + 1) / tl.maximum(positives, 1.0), 0.0)
        tl.store(row_pull + rows, pull, mask=valid)
        tl.store(partial + tile, tl.sum(tl.where(valid, losses, 0.0)))
        tl.store(partial + tiles + tile, tl.sum(anchor.to(tl.float32)))
