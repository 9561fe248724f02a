"""The contrastive engine's kernels; `contrastive.py` has the equations and launches them.

Width and strides are constants of a kernel: a model has one of each, and the offsets of a tile's rows, folded into the
loads, then take no registers beside the 128 of an accumulator of 256 columns. For the same reason nothing is hoisted
out of the loops over keys (`disable_licm`).
"""

import triton
import triton.language as tl

from ..pair_tiles import LN2, load_rows, similarities, store_rows, tile_range, tile_start
from ..tiles import arrive_last


@triton.jit
def _common_peak(bound, SHIFT: tl.constexpr, MOST: tl.constexpr):
    """Whether the bound b on all logits may stand for every row's maximum, the peak that is subtracted then, and how
    far peaks follow below maxima.

    No weight leaves [2^(shift - 2b), 2^shift], which for b <= MOST is well within the range of their dtype. In float32
    (SHIFT 0) the shift is b and the peak 0: the logits of a row may all lie far below b, and less it they would lose
    the digits that plain PyTorch keeps.
    """
    b = tl.load(bound)
    plain = b <= MOST
    shift = tl.full((), SHIFT, tl.float32)
    if SHIFT == 0:
        shift = tl.where(plain, b, shift)
    return plain, b - shift, shift


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
def _sweep_batch(
    state, z, y, first_row, part, parts, plain, shift, n, scale, columns, d: tl.constexpr, z_stride: tl.constexpr,
    PAIRED: tl.constexpr, PRECISION: tl.constexpr, INTERIOR: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Peak and mass (BLOCK_M,), and similarities to positives and their number, summed entry by entry of the tiles
    (BLOCK_M, BLOCK_N), with a share of the batch's tiles added, see :func:`..pair_tiles.tile_range`."""
    peak, mass, similar, positives = state
    rows = first_row + tl.arange(0, BLOCK_M)
    first, last = tile_range(n, first_row, part, parts, plain, True, INTERIOR, BLOCK_M, BLOCK_N)
    if first < last:
        tl.assume(first < last)
        anchors = load_rows(z, first_row, rows < n, z_stride, columns, d)
        label = None if PAIRED else tl.load(y + rows, mask=rows < n, other=0)
        for tile in tl.range(first, last, disable_licm=True):
            start = tile_start(tile, n, first_row, plain, True, INTERIOR, BLOCK_M, BLOCK_N)
            keys = start + tl.arange(0, BLOCK_N)
            inside = None if INTERIOR else keys < n
            s, _ = similarities(
                anchors, z, first_row, n, z_stride, z, start, inside, z_stride, columns, d,
                BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_K, PRECISION,
            )  # fmt: skip
            counted = s
            if not INTERIOR:
                others = inside[None, :] & (rows[:, None] != keys[None, :])
                counted = tl.where(others, s, float("-inf"))
            _, _, peak, mass = _fold(counted, scale, peak, mass, shift, INTERIOR)
            if not PAIRED:
                same = label[:, None] == tl.load(y + keys, mask=inside)[None, :]
                if not INTERIOR:
                    same = same & others
                similar = tl.where(same, similar + s, similar)
                positives = tl.where(same, positives + 1.0, positives)
    return peak, mass, similar, positives


@triton.jit
def _sweep_bank(
    state, z, y, bank_z, bank_y, first_row, part, parts, plain, shift, n, m, scale, columns,
    d: tl.constexpr, z_stride: tl.constexpr, bank_stride: tl.constexpr, OWN_LABEL: tl.constexpr,
    GRADIENT: tl.constexpr, PRECISION: tl.constexpr, INTERIOR: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Peak, mass and the sum P K (BLOCK_M, BLOCK_D) with a share of the bank's tiles added."""
    peak, mass, total = state
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
                # Read again (from cache): a mask made before the product is held in registers during it.
                key_label = tl.load(bank_y + keys, mask=inside, other=None if INTERIOR else -2)[None, :]
                counted = (key_label >= 0) if OWN_LABEL else label[:, None] != key_label
                if not (INTERIOR or OWN_LABEL):
                    counted = counted & (key_label >= 0)
                s = tl.where(counted, s, float("-inf"))
            p, decay, peak, mass = _fold(s, scale, peak, mass, shift, INTERIOR)
            if GRADIENT:
                if not INTERIOR:
                    # At every tile: to ask whether a maximum rose costs 52 instructions and a barrier, and saves 128.
                    total *= decay[:, None]
                total = tl.dot(p.to(anchors.dtype), key_tile, total, input_precision=PRECISION)
    return peak, mass, total


@triton.jit(do_not_specialize=["n", "m"])
def sweep(
    z, y, labels, bank_z, bank_y, bank_labels, bound, statistics, values, n, m, scale,
    d: tl.constexpr, z_stride: tl.constexpr, bank_stride: tl.constexpr,
    BANK: tl.constexpr, OWN_LABEL: tl.constexpr, PAIRED: tl.constexpr, GRADIENT: tl.constexpr,
    SHIFT: tl.constexpr, MOST: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of anchors over one share of the keys; statistics (4, splits, n), values (splits, n, d).

    `labels` and `bank_labels` are y and bank_y in 32 bits, for interior tiles of a plain problem; the others read y.
    """
    split, splits, chunk = tl.program_id(1), tl.num_programs(1), tl.program_id(2)
    first_row = tl.program_id(0) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    columns = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    plain, peak, shift = _common_peak(bound, SHIFT, MOST)
    peaks = tl.zeros((BLOCK_M,), tl.float32) + tl.where(plain, peak, float("-inf"))
    zero = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    state = (peaks, tl.zeros((BLOCK_M,), tl.float32), zero, zero)
    for careful in tl.static_range(2):
        state = _sweep_batch(
            state, z, y if careful else labels, first_row, split, splits, plain, shift, n, scale, columns, d, z_stride,
            PAIRED, PRECISION, not careful, BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_K,
        )  # fmt: skip
    peaks, mass, similar, positives = state
    output = split * n + rows
    plane = splits * n
    if chunk == 0 and not PAIRED:
        tl.store(statistics + 2 * plane + output, tl.sum(similar, 1) * scale, mask=rows < n)
        tl.store(statistics + 3 * plane + output, tl.sum(positives, 1), mask=rows < n)
    if BANK:
        state = (peaks, mass, tl.zeros((BLOCK_M, BLOCK_D), tl.float32))
        for careful in tl.static_range(2):
            state = _sweep_bank(
                state, z, y if careful else labels, bank_z, bank_y if careful else bank_labels, first_row,
                split, splits, plain, shift, n, m, scale, columns, d, z_stride, bank_stride,
                OWN_LABEL, GRADIENT, PRECISION, not careful, BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_K,
            )  # fmt: skip
        peaks, mass, total = state
        if GRADIENT:
            store_rows(values + split.to(tl.int64) * n * d, first_row, d, columns, d, n, total)
    if chunk == 0:
        tl.store(statistics + output, peaks, mask=rows < n)
        tl.store(statistics + plane + output, mass, mask=rows < n)


@triton.jit
def load_partners(z, rows, n, z_stride, columns, width):
    """The other view of each row of a batch whose rows i and i + n/2 are two views of one image."""
    partners = (rows + n // 2) % n
    at = z + partners.to(tl.int64)[:, None] * z_stride + columns[None, :]
    return tl.load(at, mask=(rows < n)[:, None] & (columns < width)[None, :], other=0.0)


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


@triton.jit
def _loss_and_factor(partial, counter, loss, factor, scale, MEAN: tl.constexpr, BLOCK: tl.constexpr):
    """The last program adds up the losses and the anchors that count, (2, tiles), in fixed order."""
    tiles = tl.num_programs(0)
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
        tl.store(factor, scale / divisor)


@triton.jit(do_not_specialize=["n", "splits"])
def combine(
    z, bound, statistics, values, weight, log_denominator, row_peak, row_share, row_pull, partial, counter,
    loss, factor, n, d, z_stride, splits, scale, inverse_temperature,
    PAIRED: tl.constexpr, JOIN: tl.constexpr, WEIGHTED: tl.constexpr, MEAN: tl.constexpr, RAISE: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Per row log D_i, w_i/D_i as 2^-peak · share, and pull 2/|P_i|; the loss; dz's factor 1/τ (over |anchors| for a
    mean). For `batch_gradient` share and pull are raised by 2^RAISE, and the factor lowered.

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
        _loss_and_factor(partial, counter, loss, factor, inverse_temperature * 2.0**-RAISE, MEAN, BLOCK)


@triton.jit
def _pull_and_push(
    total, z, y, row_peak, row_share, row_pull, first_row, part, parts, plain, peak, n, scale, columns,
    d: tl.constexpr, z_stride: tl.constexpr, PULLED: tl.constexpr, PRECISION: tl.constexpr,
    INTERIOR: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """`total` (BLOCK_M, BLOCK_D) with Σ_j g_ij z_j of a share of the batch's tiles added. In INTERIOR ones one peak
    serves all rows, and one exponential both ways."""
    rows = first_row + tl.arange(0, BLOCK_M)
    first, last = tile_range(n, first_row, part, parts, plain, True, INTERIOR, BLOCK_M, BLOCK_N)
    if first < last:
        tl.assume(first < last)
        anchors = load_rows(z, first_row, rows < n, z_stride, columns, d)
        label = tl.load(y + rows, mask=rows < n, other=0) if PULLED else None
        own_peak = None if INTERIOR else tl.load(row_peak + rows, mask=rows < n, other=0.0)
        weight = tl.load(row_share + rows, mask=rows < n, other=0.0)
        pull = tl.load(row_pull + rows, mask=rows < n, other=0.0)
        for tile in tl.range(first, last, disable_licm=True):
            start = tile_start(tile, n, first_row, plain, True, INTERIOR, BLOCK_M, BLOCK_N)
            keys = start + tl.arange(0, BLOCK_N)
            inside = None if INTERIOR else keys < n
            s, key_tile = similarities(
                anchors, z, first_row, n, z_stride, z, start, inside, z_stride, columns, d,
                BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_K, PRECISION,
            )  # fmt: skip
            key_weight = tl.load(row_share + keys, mask=inside)
            if INTERIOR:
                g = tl.exp2(tl.fma(s, scale, -peak)) * (weight[:, None] + key_weight[None, :])
            else:
                key_peak = tl.load(row_peak + keys, mask=inside)
                g = tl.exp2(tl.fma(s, scale, -own_peak[:, None])) * weight[:, None]
                g += tl.exp2(tl.fma(s, scale, -key_peak[None, :])) * key_weight[None, :]
            if PULLED:
                g -= tl.where(label[:, None] == tl.load(y + keys, mask=inside)[None, :], pull[:, None], 0.0)
            if not INTERIOR:
                g = tl.where(inside[None, :] & (rows[:, None] != keys[None, :]), g, 0.0)
            total = tl.dot(g.to(anchors.dtype), key_tile, total, input_precision=PRECISION)
    return total


@triton.jit(do_not_specialize=["n"])
def batch_gradient(
    z, y, labels, bound, row_peak, row_share, row_pull, values, factor, gradients, n, scale,
    d: tl.constexpr, z_stride: tl.constexpr,
    BANK: tl.constexpr, PAIRED: tl.constexpr, POSITIVES: tl.constexpr,
    SHIFT: tl.constexpr, MOST: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """dz from the bank's values and one visit of the batch's pairs, in parts (splits, n, d); POSITIVES are subtracted
    for a loss.

    `row_share`, `row_pull` and `factor` are raised and lowered by a power of two for the sake of float16 products.
    """
    split, splits = tl.program_id(1), tl.num_programs(1)
    first_row = tl.program_id(0) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    columns = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    plain, peak, _ = _common_peak(bound, SHIFT, MOST)
    total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    here = rows < tl.where(split == 0, n, 0)  # what is added once
    if BANK:
        weight = tl.load(row_share + rows, mask=here, other=0.0)
        total += weight[:, None] * load_rows(values, first_row, here, d, columns, d)
    for careful in tl.static_range(2):
        total = _pull_and_push(
            total, z, y if careful else labels, row_peak, row_share, row_pull, first_row, split, splits, plain,
            peak, n, scale, columns, d, z_stride, POSITIVES and not PAIRED, PRECISION, not careful,
            BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_K,
        )  # fmt: skip
    if POSITIVES and PAIRED:
        pull = tl.load(row_pull + rows, mask=here, other=0.0)
        total -= pull[:, None] * load_partners(z, rows, n, z_stride, columns, d).to(tl.float32)
    gradients += split.to(tl.int64) * n * d
    store_rows(gradients, first_row, d, columns, d, n, total * tl.load(factor))


@triton.jit(do_not_specialize=["size", "parts"])
def add_parts(gradients, dz, size, parts, BLOCK: tl.constexpr):
    """dz = Σ of its parts (parts, size), in fixed order."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for part in range(parts):
        total += tl.load(gradients + tl.cast(part, tl.int64) * size + at, mask=at < size, other=0.0)
    tl.store(dz + at, total.to(dz.dtype.element_ty), mask=at < size)
