"""The shares of all keys joined: log D or losses, the anchors that count, and the bank's sums."""

import triton
import triton.language as tl

from ..common.pair_tiles import LN2, load_rows, number, store_rows
from .tiles import load_partners, partner_of


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
def _row_sums(
    z, y, statistics, peak, rows, kept, n, d, z_stride, splits, scale, PAIRED: tl.constexpr, SLOPES: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Mass, mass times logits, sum of similarities to positives and their number from all splits, (BLOCK,) each."""
    mass, logits, similar, positives = (
        tl.zeros_like(peak),
        tl.zeros_like(peak),
        tl.zeros_like(peak),
        tl.zeros_like(peak),
    )
    for split in range(splits):
        of_split = statistics + split * n + rows
        decay = tl.exp2(tl.load(of_split, mask=kept, other=0.0) - peak)
        mass += decay * tl.load(of_split + splits * n, mask=kept, other=0.0)
        if SLOPES:
            logits += decay * tl.load(of_split + 4 * splits * n, mask=kept, other=0.0)
        if not PAIRED:
            similar += tl.load(of_split + 2 * splits * n, mask=kept, other=0.0)
            positives += tl.load(of_split + 3 * splits * n, mask=kept, other=0.0)
    if PAIRED:
        partners = partner_of(rows, n)
        both = tl.load(y + partners, mask=kept, other=-1) >= 0
        positives += both.to(tl.float32)
        for start in range(0, d, BLOCK_D):
            columns = start + tl.arange(0, BLOCK_D)
            row = load_partners(z, rows, both, z_stride, columns, d).to(tl.float32)
            similar += scale * tl.sum(row * load_partners(z, partners, both, z_stride, columns, d).to(tl.float32), 1)
    return mass, logits, similar, positives


@triton.jit(do_not_specialize=["n", "splits"])
def combine(
    z, y, bound, statistics, values, weight, result, row_peak, row_share, row_pull, partial,
    n, d, z_stride, splits, scale, PAIRED: tl.constexpr, JOIN: tl.constexpr, POSITIVES: tl.constexpr,
    SLOPES: tl.constexpr, RAISE: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Per row its `result`, w_i/D_i as 2^-peak · share, and its pull; per tile the sums over rows of w_i times their
    result, of w_i, and, with SLOPES, of -τ w_i times the derivatives of the results by τ: (3, tiles). For
    `batch_gradient` share and pull are raised by 2^RAISE, and its factor lowered.

    The result is log D_i or, POSITIVES, the loss, of the rows that have a positive; only these have a weight then. w_i
    is one or that of `weight` (n,). The pull is 2/|P_i|, alike both ways as two rows of a class have equally many
    positives; with weights w_i/|P_i|, and w_i + w_j of the two views of an image.

    D stays in two parts: rounded into one logarithm, large logits would lose the digits that P is made of. A grid of
    (tiles of rows, chunks of columns): to JOIN the splits' values each program takes a chunk, and those of the first do
    the rest.
    """
    tile, tiles = tl.program_id(0), tl.num_programs(0)
    rows = tile * BLOCK + tl.arange(0, BLOCK)
    valid = rows < n
    # Nothing is known of an anchor that is left out: anything may have been summed.
    kept = tl.load(y + rows, mask=valid, other=-1) >= 0
    peak = tl.full((BLOCK,), float("-inf"), tl.float32)
    for split in range(splits):
        peak = tl.maximum(peak, tl.load(statistics + split * n + rows, mask=kept, other=0.0))
    peak = tl.where(peak == float("-inf"), 0.0, peak)
    if JOIN:
        _join_values(values, statistics, peak, n, d, splits, BLOCK, BLOCK_D)
    if tl.program_id(1) == 0:
        mass, logits, similar, positives = _row_sums(
            z, y, statistics, peak, rows, kept, n, d, z_stride, splits, number(scale), PAIRED, SLOPES, BLOCK_D
        )  # fmt: skip
        log2_denominator, slope = peak + tl.log2(mass), logits / tl.where(mass == 0, 1.0, mass)
        found = log2_denominator * LN2
        w = tl.full((BLOCK,), 1.0, tl.float32)
        if weight is not None:
            w = tl.load(weight + rows, mask=valid, other=0.0).to(tl.float32)
        if POSITIVES:
            anchor = positives > 0
            divisor = tl.maximum(positives, 1.0)
            b = tl.load(bound)
            found = tl.where(anchor, (log2_denominator - similar / divisor) * LN2, 0.0)
            found += tl.where(b == b, 0.0, b)  # a row that is not finite reaches the loss, even if no logit shows it
            slope -= similar / divisor
            pull = w * 2.0**RAISE
            if weight is None:
                pull *= 2
            elif PAIRED:
                pull += tl.load(weight + partner_of(rows, n), mask=valid, other=0.0).to(tl.float32) * 2.0**RAISE
            w = tl.where(anchor, w, 0.0)
            tl.store(row_pull + rows, tl.where(anchor, pull / divisor, 0.0), mask=valid)
            tl.store(partial + tile, tl.sum(tl.where(valid, w * found, 0.0)))
            tl.store(partial + tiles + tile, tl.sum(tl.where(valid, w, 0.0)))
        tl.store(result + rows, found, mask=valid)
        tl.store(row_peak + rows, peak, mask=valid)
        tl.store(row_share + rows, tl.where(mass == 0, 0.0, w / mass * 2.0**RAISE), mask=valid)
        if SLOPES:
            tl.store(partial + 2 * tiles + tile, tl.sum(tl.where(valid & (w != 0), w * slope, 0.0)) * LN2)
