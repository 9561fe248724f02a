"""Flash attention with V = K: a tile of anchors over its share of batch and bank."""

import triton
import triton.language as tl

from ..common.pair_tiles import load_rows, number, similarities, store_rows, tile_range, tile_start
from .tiles import common_peak


@triton.jit
def _fold(s, scale, peak, mass, shift, PLAIN: tl.constexpr):
    """Online log-sum-exp: p = 2^(s·scale - peak), the factor that older sums need, and the new peak and mass.

    PLAIN, the peak is above all logits and stays. Else it follows `shift` below the maximum, so that float16
    weights reach 2^shift and small ones are not flushed. NaN may pass by the maximum, never by the mass.
    """
    if PLAIN:
        p = tl.exp2(tl.fma(s, scale, -peak[:, None]))
        decay, new_peak = tl.full(peak.shape, 1.0, tl.float32), peak
        new_mass = mass + tl.sum(p, 1)
    else:
        new_peak = tl.maximum(peak, tl.max(s, 1) * scale - shift)
        finite_peak = tl.where(new_peak == float("-inf"), 0.0, new_peak)
        p = tl.exp2(tl.fma(s, scale, -finite_peak[:, None]))
        decay = tl.exp2(peak - finite_peak)
        new_mass = mass * decay + tl.sum(p, 1)
    return p, decay, new_peak, new_mass


@triton.jit
def _weighed_logits(p, s, scale):
    """p times the logits to base 2, 0 where p is: of what is left out the logit is -inf."""
    return tl.where(p > 0, p * s * scale, 0.0)


@triton.jit
def _sweep_batch(
    state, z, y, signs, first_row, part, parts, plain, shift, n, batch, scale, columns,
    d: tl.constexpr, z_stride: tl.constexpr,
    PAIRED: tl.constexpr, SLOPES: tl.constexpr, PRECISION: tl.constexpr, INTERIOR: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Peak, mass and, SLOPES, the mass times logits (BLOCK_M,), and similarities to positives and their number, summed
    entry by entry of the tiles (BLOCK_M, BLOCK_N), with a share of the batch's tiles added, see
    :func:`..common.pair_tiles.tile_range`. A key with a negative label is left out, whatever it holds."""
    peak, mass, logits, similar, positives = state
    rows = first_row + tl.arange(0, BLOCK_M)
    first, last = tile_range(batch, first_row, part, parts, plain, True, INTERIOR, BLOCK_M, BLOCK_N)
    if first < last:
        tl.assume(first < last)
        anchors = load_rows(z, first_row, rows < n, z_stride, columns, d)
        label = None if PAIRED else tl.load(y + rows, mask=rows < n, other=-1)
        for tile in tl.range(first, last, disable_licm=True):
            start = tile_start(tile, batch, first_row, plain, True, INTERIOR, BLOCK_M, BLOCK_N)
            keys = start + tl.arange(0, BLOCK_N)
            inside = None if INTERIOR else keys < batch
            s, _ = similarities(
                anchors, z, first_row, n, z_stride, z, start, inside, z_stride, columns, d,
                BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_K, PRECISION,
            )  # fmt: skip
            counted = s
            if not INTERIOR:
                # Read where it is used (from cache): a mask made before the product is held in registers during it.
                kept = tl.load(signs + keys, mask=inside, other=-1)[None, :] >= 0
                counted = tl.where(kept & (rows[:, None] != keys[None, :]), s, float("-inf"))
            p, decay, peak, mass = _fold(counted, scale, peak, mass, shift, INTERIOR)
            if SLOPES:
                logits = logits * decay + tl.sum(_weighed_logits(p, counted, scale), 1)
            if not PAIRED:
                # No label of an anchor that counts is that of a key left out.
                same = label[:, None] == tl.load(y + keys, mask=inside, other=None if INTERIOR else -1)[None, :]
                if not INTERIOR:
                    same = same & (rows[:, None] != keys[None, :])
                similar = tl.where(same, similar + s, similar)
                positives = tl.where(same, positives + 1.0, positives)
    return peak, mass, logits, similar, positives


@triton.jit
def _sweep_bank(
    state, z, y, bank_z, bank_y, first_row, part, parts, plain, shift, n, m, scale, columns,
    d: tl.constexpr, z_stride: tl.constexpr, bank_stride: tl.constexpr, OWN_LABEL: tl.constexpr,
    GRADIENT: tl.constexpr, SLOPES: tl.constexpr, PRECISION: tl.constexpr, INTERIOR: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """As :func:`_sweep_batch` peak, mass and logits, and the sum P K (BLOCK_M, BLOCK_D), of the bank's tiles."""
    peak, mass, logits, total = state
    rows = first_row + tl.arange(0, BLOCK_M)
    first, last = tile_range(m, first_row, part, parts, plain, False, INTERIOR, BLOCK_M, BLOCK_N)
    if first < last:
        tl.assume(first < last)
        anchors = load_rows(z, first_row, rows < n, z_stride, columns, d)
        label = tl.load(y + rows, mask=rows < n, other=0)
        for tile in tl.range(first, last, disable_licm=True):
            start = tile_start(tile, m, first_row, plain, False, INTERIOR, BLOCK_M, BLOCK_N)
            keys = start + tl.arange(0, BLOCK_N)
            inside = None if INTERIOR else keys < m
            filled = None if INTERIOR else tl.load(bank_y + keys, mask=inside, other=-1) >= 0  # others hold anything
            s, key_tile = similarities(
                anchors, z, first_row, n, z_stride, bank_z, start, filled, bank_stride, columns, d,
                BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_K, PRECISION,
            )  # fmt: skip
            if not (INTERIOR and OWN_LABEL):
                # As above.
                key_label = tl.load(bank_y + keys, mask=inside, other=None if INTERIOR else -2)[None, :]
                counted = (key_label >= 0) if OWN_LABEL else label[:, None] != key_label
                if not (INTERIOR or OWN_LABEL):
                    counted = counted & (key_label >= 0)
                s = tl.where(counted, s, float("-inf"))
            p, decay, peak, mass = _fold(s, scale, peak, mass, shift, INTERIOR)
            if SLOPES:
                logits = logits * decay + tl.sum(_weighed_logits(p, s, scale), 1)
            if GRADIENT:
                if not INTERIOR:
                    # At every tile: to ask whether a maximum rose costs 52 instructions and a barrier, and saves 128.
                    total *= decay[:, None]
                total = tl.dot(p.to(anchors.dtype), key_tile, total, input_precision=PRECISION)
    return peak, mass, logits, total


@triton.jit(do_not_specialize=["n", "batch", "m"])
def sweep(
    z, y, labels, bank_z, bank_y, bank_labels, bound, statistics, values, n, batch, m, scale,
    d: tl.constexpr, z_stride: tl.constexpr, bank_stride: tl.constexpr,
    BANK: tl.constexpr, OWN_LABEL: tl.constexpr, PAIRED: tl.constexpr, GRADIENT: tl.constexpr, SLOPES: tl.constexpr,
    SHIFT: tl.constexpr, MOST: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of anchors, the first n rows of the batch, over one share of the keys; statistics (4, splits, n), 5 with
    SLOPES, values (splits, n, d).

    `labels` and `bank_labels` are y and bank_y in 32 bits, for interior tiles of a plain problem; the others read y.
    """
    split, splits, chunk = tl.program_id(1), tl.num_programs(1), tl.program_id(2)
    first_row = tl.program_id(0) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    columns = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    plain, peak, shift = common_peak(bound, SHIFT, MOST)
    scale = number(scale)
    peaks = tl.zeros((BLOCK_M,), tl.float32) + tl.where(plain, peak, float("-inf"))
    zero = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    zeros = tl.zeros((BLOCK_M,), tl.float32)
    state = (peaks, zeros, zeros, zero, zero)
    for careful in tl.static_range(2):
        state = _sweep_batch(
            state, z, y if careful else labels, labels, first_row, split, splits, plain, shift, n, batch, scale,
            columns, d, z_stride,
            PAIRED, SLOPES, PRECISION, not careful, BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_K,
        )  # fmt: skip
    peaks, mass, logits, similar, positives = state
    output = split * n + rows
    plane = splits * n
    if chunk == 0 and not PAIRED:
        tl.store(statistics + 2 * plane + output, tl.sum(similar, 1) * scale, mask=rows < n)
        tl.store(statistics + 3 * plane + output, tl.sum(positives, 1), mask=rows < n)
    if BANK:
        state = (peaks, mass, logits, tl.zeros((BLOCK_M, BLOCK_D), tl.float32))
        for careful in tl.static_range(2):
            state = _sweep_bank(
                state, z, y if careful else labels, bank_z, bank_y if careful else bank_labels, first_row,
                split, splits, plain, shift, n, m, scale, columns, d, z_stride, bank_stride,
                OWN_LABEL, GRADIENT, SLOPES, PRECISION, not careful, BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_K,
            )  # fmt: skip
        peaks, mass, logits, total = state
        if GRADIENT:
            store_rows(values + split.to(tl.int64) * n * d, first_row, d, columns, d, n, total)
    if chunk == 0:
        tl.store(statistics + output, peaks, mask=rows < n)
        tl.store(statistics + plane + output, mass, mask=rows < n)
        if SLOPES:
            tl.store(statistics + 4 * plane + output, logits, mask=rows < n)
