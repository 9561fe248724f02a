"""The contrastive engine's kernels; `contrastive.py` has the equations and launches them.

Width and strides are constants of a kernel: a model has one of each, and the offsets of a tile's rows, folded into the
loads, then take no registers beside the 128 of an accumulator of 256 columns. For the same reason nothing is hoisted
out of the loops over keys (`disable_licm`).
"""

import triton
import triton.language as tl

from ..pair_tiles import LN2, load_rows, share, similarities, store_rows
from ..tiles import arrive_last


@triton.jit
def _fold(s, scale, peak, mass, SHIFT: tl.constexpr):
    """Online log-sum-exp: 2^(s·scale - peak), the factor that older sums need, and the new peak and mass.

    The peak is kept SHIFT below the maximum, so that float16 weights reach 2^SHIFT and small ones are not flushed.
    NaN may pass by the maximum, never by the mass.
    """
    new_peak = tl.maximum(peak, tl.max(s, 1) * scale - SHIFT)
    finite_peak = tl.where(new_peak == float("-inf"), 0.0, new_peak)
    p = tl.exp2(tl.fma(s, scale, -finite_peak[:, None]))
    decay = tl.exp2(peak - finite_peak)
    return p, decay, new_peak, mass * decay + tl.sum(p, 1)


@triton.jit
def _add_pairs(a, b, other_a, other_b):
    return a + other_a, b + other_b


@triton.jit
def _labels(y, rows, n, PAIRED: tl.constexpr):
    if PAIRED:
        return rows % (n // 2)
    else:  # two types, of which one is compiled
        return tl.load(y + rows, mask=rows < n, other=0)


@triton.jit(do_not_specialize=["n", "m"])
def sweep(
    z, y, bank_z, bank_y, statistics, values, n, m, scale,
    d: tl.constexpr, z_stride: tl.constexpr, bank_stride: tl.constexpr,
    BANK: tl.constexpr, OWN_LABEL: tl.constexpr, PAIRED: tl.constexpr, GRADIENT: tl.constexpr,
    SHIFT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of anchors over one share of the keys; statistics (4, splits, n), values (splits, n, d)."""
    tile, split, chunk = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    splits = tl.num_programs(1)
    rows = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    anchors = load_rows(z, tile * BLOCK_M, rows < n, z_stride, columns, d)
    labels = _labels(y, rows, n, PAIRED)
    peak = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    mass = tl.zeros((BLOCK_M,), tl.float32)
    similar = tl.zeros((BLOCK_M,), tl.float32)
    positives = tl.zeros((BLOCK_M,), tl.float32)

    first, last = share(n, split, splits, BLOCK_N)
    for start in tl.range(first, last, BLOCK_N, disable_licm=True):
        keys = start + tl.arange(0, BLOCK_N)
        s, _ = similarities(
            anchors, z, tile * BLOCK_M, rows < n, z_stride, z, start, keys < n, z_stride, columns, d, BLOCK_K, PRECISION
        )
        others = (keys < n)[None, :] & (rows[:, None] != keys[None, :])
        _, _, peak, mass = _fold(tl.where(others, s, float("-inf")), scale, peak, mass, SHIFT)
        same = others & (labels[:, None] == _labels(y, keys, n, PAIRED)[None, :])
        # One reduction of both: on its own the count would be laid out, and its labels compared, a second time.
        tile_similar, tile_positives = tl.reduce((tl.where(same, s, 0.0), tl.where(same, 1.0, 0.0)), 1, _add_pairs)
        similar += tile_similar
        positives += tile_positives

    output = split * n + rows
    plane = splits * n
    if chunk == 0:
        tl.store(statistics + 2 * plane + output, similar * scale, mask=rows < n)
        tl.store(statistics + 3 * plane + output, positives, mask=rows < n)
    if BANK:
        total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        first, last = share(m, split, splits, BLOCK_N)
        for start in tl.range(first, last, BLOCK_N, disable_licm=True):
            keys = start + tl.arange(0, BLOCK_N)
            filled = tl.load(bank_y + keys, mask=keys < m, other=-1) >= 0
            s, key_tile = similarities(
                anchors, z, tile * BLOCK_M, rows < n, z_stride, bank_z, start, filled, bank_stride, columns, d,
                BLOCK_K, PRECISION,
            )  # fmt: skip
            # Read again (from cache): a mask of the tile made before the product is held in registers during it.
            key_labels = tl.load(bank_y + keys, mask=keys < m, other=-2)
            counted = (key_labels >= 0)[None, :]
            if not OWN_LABEL:
                counted = counted & (labels[:, None] != key_labels[None, :])
            p, decay, peak, mass = _fold(tl.where(counted, s, float("-inf")), scale, peak, mass, SHIFT)
            if GRADIENT:
                total = tl.dot(p.to(anchors.dtype), key_tile, total * decay[:, None], input_precision=PRECISION)
        if GRADIENT:
            store_rows(values + split.to(tl.int64) * n * d, tile * BLOCK_M, d, columns, d, n, total)
    if chunk == 0:
        tl.store(statistics + output, peak, mask=rows < n)
        tl.store(statistics + plane + output, mass, mask=rows < n)


@triton.jit(do_not_specialize=["n", "splits"])
def combine(
    z, statistics, weight, log_denominator, row_peak, row_share, positive_weight, partial, counter, loss, factor,
    n, d, z_stride, splits, inverse_temperature,
    WEIGHTED: tl.constexpr, MEAN: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Per row log D_i, w_i/D_i as 2^-peak · share, and 1/|P_i|; the loss; dz's factor 1/τ (over |anchors| for a mean).

    D stays in two parts: rounded into one logarithm, large logits would lose the digits that P is made of. w_i is 1
    where there is a positive, else 0, or WEIGHTED the given one (n,).
    """
    tile, tiles = tl.program_id(0), tl.num_programs(0)
    rows = tile * BLOCK + tl.arange(0, BLOCK)
    valid = rows < n
    plane = splits * n
    peak = tl.full((BLOCK,), float("-inf"), tl.float32)
    for split in range(splits):
        peak = tl.maximum(peak, tl.load(statistics + split * n + rows, mask=valid, other=0.0))
    finite_peak = tl.where(peak == float("-inf"), 0.0, peak)
    mass = tl.zeros((BLOCK,), tl.float32)
    similar = tl.zeros((BLOCK,), tl.float32)
    positives = tl.zeros((BLOCK,), tl.float32)
    for split in range(splits):
        share_of_row = statistics + split * n + rows
        rescale = tl.exp2(tl.load(share_of_row, mask=valid, other=0.0) - finite_peak)
        mass += rescale * tl.load(share_of_row + plane, mask=valid, other=0.0)
        similar += tl.load(share_of_row + 2 * plane, mask=valid, other=0.0)
        positives += tl.load(share_of_row + 3 * plane, mask=valid, other=0.0)
    log2_denominator = finite_peak + tl.log2(mass)
    anchor = positives > 0
    # 0·z is NaN where z is not finite: such a row reaches the loss even if no similarity shows it.
    losses = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, d, BLOCK_D):
        losses += tl.sum(load_rows(z, tile * BLOCK, valid, z_stride, start + tl.arange(0, BLOCK_D), d) * 0.0, 1)
    losses += tl.where(anchor, (log2_denominator - similar / tl.maximum(positives, 1.0)) * LN2, 0.0)
    w = anchor.to(tl.float32)
    if WEIGHTED:
        w = tl.load(weight + rows, mask=valid, other=0.0)
    tl.store(log_denominator + rows, log2_denominator * LN2, mask=valid)
    tl.store(row_peak + rows, finite_peak, mask=valid)
    tl.store(row_share + rows, tl.where(mass == 0, 0.0, w / mass), mask=valid)
    tl.store(positive_weight + rows, tl.where(anchor, 1.0 / tl.maximum(positives, 1.0), 0.0), mask=valid)
    tl.store(partial + tile, tl.sum(tl.where(valid, losses, 0.0)))
    tl.store(partial + tiles + tile, tl.sum(anchor.to(tl.float32)))
    if arrive_last(counter, tiles):
        total = tl.zeros((BLOCK,), tl.float32)
        count = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, tiles, BLOCK):
            parts = start + tl.arange(0, BLOCK)
            total += tl.load(partial + parts, mask=parts < tiles, other=0.0, cache_modifier=".cg")
            count += tl.load(partial + tiles + parts, mask=parts < tiles, other=0.0, cache_modifier=".cg")
        divisor = 1.0
        if MEAN:
            divisor = tl.maximum(tl.sum(count), 1.0)
        tl.store(loss, tl.sum(total) / divisor)
        tl.store(factor, inverse_temperature / divisor)


@triton.jit(do_not_specialize=["n", "splits"])
def batch_gradient(
    z, y, row_peak, row_share, positive_weight, statistics, values, factor, dz, n, splits, scale,
    d: tl.constexpr, z_stride: tl.constexpr,
    BANK: tl.constexpr, PAIRED: tl.constexpr, POSITIVES: tl.constexpr, SHIFT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """dz (n, d) from the bank's values and one visit of the batch's pairs; POSITIVES are subtracted for a loss.

    G is 2^SHIFT times too large until the end, as the sweep's weights are, for the sake of float16 products.
    """
    tile, chunk = tl.program_id(0), tl.program_id(1)
    rows = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    anchors = load_rows(z, tile * BLOCK_M, rows < n, z_stride, columns, d)
    labels = _labels(y, rows, n, PAIRED)
    peak = tl.load(row_peak + rows, mask=rows < n, other=0.0)
    weight = tl.load(row_share + rows, mask=rows < n, other=0.0) * 2.0**SHIFT
    # Both ways alike: two rows of a class have equally many positives.
    pull = tl.load(positive_weight + rows, mask=rows < n, other=0.0) * 2.0 ** (SHIFT + 1)
    total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for start in tl.range(0, n, BLOCK_N, disable_licm=True):
        keys = start + tl.arange(0, BLOCK_N)
        s, key_tile = similarities(
            anchors, z, tile * BLOCK_M, rows < n, z_stride, z, start, keys < n, z_stride, columns, d, BLOCK_K, PRECISION
        )
        key_peak = tl.load(row_peak + keys, mask=keys < n, other=0.0)
        key_weight = tl.load(row_share + keys, mask=keys < n, other=0.0) * 2.0**SHIFT
        g = tl.exp2(tl.fma(s, scale, -peak[:, None])) * weight[:, None]
        g += tl.exp2(tl.fma(s, scale, -key_peak[None, :])) * key_weight[None, :]
        if POSITIVES:
            g -= tl.where(labels[:, None] == _labels(y, keys, n, PAIRED)[None, :], pull[:, None], 0.0)
        g = tl.where((keys < n)[None, :] & (rows[:, None] != keys[None, :]), g, 0.0)
        total = tl.dot(g.to(anchors.dtype), key_tile, total, input_precision=PRECISION)
    if BANK:
        for split in range(splits):
            part_peak = tl.load(statistics + split * n + rows, mask=rows < n, other=0.0)
            part = load_rows(values + tl.cast(split, tl.int64) * n * d, tile * BLOCK_M, rows < n, d, columns, d)
            total += (tl.exp2(part_peak - peak) * weight)[:, None] * part
    store_rows(dz, tile * BLOCK_M, d, columns, d, n, total * (tl.load(factor) * 2.0**-SHIFT))
