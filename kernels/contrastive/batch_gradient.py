"""The pairs of the batch once more, as anchors and as keys: dz."""

import triton
import triton.language as tl

from ..common.pair_tiles import load_rows, number, similarities, store_rows, tile_range, tile_start
from .tiles import common_peak, load_partners, partner_of


@triton.jit
def _pull_and_push(
    total, z, y, signs, row_peak, row_share, row_pull, first_row, part, parts, plain, peak, n, batch, scale,
    columns, d: tl.constexpr, z_stride: tl.constexpr,
    PULLED: tl.constexpr, WEIGHTED: tl.constexpr, PRECISION: tl.constexpr, INTERIOR: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """`total` (BLOCK_M, BLOCK_D) with Σ_j g_ij z_j of a share of the batch's tiles added. In INTERIOR ones one peak
    serves all rows, and one exponential both ways."""
    rows = first_row + tl.arange(0, BLOCK_M)
    first, last = tile_range(batch, first_row, part, parts, plain, True, INTERIOR, BLOCK_M, BLOCK_N)
    if first < last:
        tl.assume(first < last)
        anchors = load_rows(z, first_row, rows < n, z_stride, columns, d)
        label = tl.load(y + rows, mask=rows < n, other=-1) if PULLED else None
        own_peak = None if INTERIOR else tl.load(row_peak + rows, mask=rows < n, other=0.0)
        weight = tl.load(row_share + rows, mask=rows < n, other=0.0)
        pull = tl.load(row_pull + rows, mask=rows < n, other=0.0)
        for tile in tl.range(first, last, disable_licm=True):
            start = tile_start(tile, batch, first_row, plain, True, INTERIOR, BLOCK_M, BLOCK_N)
            keys = start + tl.arange(0, BLOCK_N)
            inside = None if INTERIOR else keys < batch
            filled = None if INTERIOR else tl.load(signs + keys, mask=inside, other=-1) >= 0  # others hold anything
            s, key_tile = similarities(
                anchors, z, first_row, n, z_stride, z, start, filled, z_stride, columns, d,
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
                pulls = pull[:, None]
                if WEIGHTED:
                    pulls += tl.load(row_pull + keys, mask=inside)[None, :]
                g -= tl.where(label[:, None] == tl.load(y + keys, mask=inside)[None, :], pulls, 0.0)
            if not INTERIOR:
                key_label = tl.load(signs + keys, mask=inside, other=-2)[None, :]  # again: see `sweep`
                g = tl.where((key_label >= 0) & (rows[:, None] != keys[None, :]), g, 0.0)
            total = tl.dot(g.to(anchors.dtype), key_tile, total, input_precision=PRECISION)
    return total


@triton.jit(do_not_specialize=["n", "batch"])
def batch_gradient(
    z, y, labels, bound, row_peak, row_share, row_pull, values, factor, gradients, n, batch, scale,
    d: tl.constexpr, z_stride: tl.constexpr,
    BANK: tl.constexpr, PAIRED: tl.constexpr, POSITIVES: tl.constexpr, WEIGHTED: tl.constexpr,
    SHIFT: tl.constexpr, MOST: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """dz of the first n rows of the batch from the bank's values and one visit of their pairs, in parts (splits, n, d);
    POSITIVES are subtracted for a loss.

    `row_share`, `row_pull` and `factor` are raised and lowered by a power of two for the sake of float16 products.
    """
    split, splits = tl.program_id(1), tl.num_programs(1)
    first_row = tl.program_id(0) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    columns = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    plain, peak, _ = common_peak(bound, SHIFT, MOST)
    scale = number(scale)
    total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    here = rows < tl.where(split == 0, n, 0)  # what is added once
    if BANK:
        weight = tl.load(row_share + rows, mask=here, other=0.0)
        total += weight[:, None] * load_rows(values, first_row, here & (weight != 0), d, columns, d)
    for careful in tl.static_range(2):
        total = _pull_and_push(
            total, z, y if careful else labels, labels, row_peak, row_share, row_pull, first_row, split, splits, plain,
            peak, n, batch, scale, columns, d, z_stride, POSITIVES and not PAIRED, WEIGHTED, PRECISION, not careful,
            BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_K,
        )  # fmt: skip
    if POSITIVES and PAIRED:
        pull = tl.load(row_pull + rows, mask=here, other=0.0)
        partners = load_partners(z, partner_of(rows, n), pull != 0, z_stride, columns, d)
        total -= pull[:, None] * partners.to(tl.float32)
    kept = tl.load(y + rows, mask=rows < n, other=-1) >= 0
    total = tl.where(kept[:, None], total, 0.0)  # of a row that is left out anything may have been summed
    gradients += split.to(tl.int64) * n * d
    store_rows(gradients, first_row, d, columns, d, n, total * tl.load(factor))
