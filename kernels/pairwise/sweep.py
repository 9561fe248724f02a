"""Tiles of S, the loss of each pair and its slope, and dU += G U, in one loop."""

import triton
import triton.language as tl

from ..common.pair_tiles import load_rows, similarities, store_rows, tile_range, tile_start


@triton.jit
def _visit(
    totals, u, labels, weights, first_row, columns, part, parts, plain, n, batch, args, d: tl.constexpr,
    EPILOGUE: tl.constexpr, GRADIENT: tl.constexpr, PRECISION: tl.constexpr, INTERIOR: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """`totals`, each row's loss (R,) and dU (R, D), with the keys of a share of the tiles added, see `tile_range`."""
    losses, total = totals
    rows = first_row + tl.arange(0, BLOCK_M)
    first, last = tile_range(batch, first_row, part, parts, plain, True, INTERIOR, BLOCK_M, BLOCK_N)
    if first < last:
        tl.assume(
            first < last
        )  # else ptxas finds a path on which the products' sums are not theirs, and waits for each
        own = load_rows(u, first_row, rows < n, d, columns, d)
        label = tl.load(labels + rows, mask=rows < n, other=0)
        weight = tl.load(weights + rows, mask=rows < n, other=0.0)
        for tile in tl.range(first, last, disable_licm=True):  # what is hoisted takes registers
            start = tile_start(tile, batch, first_row, plain, True, INTERIOR, BLOCK_M, BLOCK_N)
            keys = start + tl.arange(0, BLOCK_N)
            inside = None if INTERIOR else keys < batch
            s, key_tile = similarities(
                own, u, first_row, n, d, u, start, inside, d, columns, d, BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_K, PRECISION
            )  # fmt: skip
            same = label[:, None] == tl.load(labels + keys, mask=inside)[None, :]
            key_weight = tl.load(weights + keys, mask=inside)
            loss, slope = EPILOGUE(s, same, weight[:, None], key_weight[None, :], args)
            if not INTERIOR:
                pair = (rows[:, None] != keys[None, :]) & inside[None, :]
                loss, slope = tl.where(pair, loss, 0.0), tl.where(pair, slope, 0.0)
            losses += tl.sum(loss, 1)
            if GRADIENT:
                total = tl.dot(slope.to(own.dtype), key_tile, total, input_precision=PRECISION)
    return losses, total


@triton.jit(do_not_specialize=["n", "batch"])
def sweep(
    u, y, labels, long_label, weights, gradients, partial, n, batch, args, d: tl.constexpr,
    EPILOGUE: tl.constexpr, GRADIENT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of the first n rows of a plane of u (k, batch, d) over a share of its keys: gradients (splits, k, n, d),
    partial loss.

    `labels` are y in 32 bits; `long_label` () is above 0 if they do not tell y apart: then all tiles take y itself.
    None: y has 32 bits.
    """
    tile, split, plane = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    splits = tl.num_programs(1)
    chunks = tl.cdiv(d, BLOCK_D)
    chunk = plane % chunks
    plane = plane // chunks
    u += plane.to(tl.int64) * batch * d
    first_row = tile * BLOCK_M
    columns = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    plain = True if long_label is None else tl.load(long_label) == 0
    totals = tl.zeros((BLOCK_M,), tl.float32), tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for careful in tl.static_range(2):
        totals = _visit(
            totals, u, y if careful else labels, weights, first_row, columns, split, splits, plain, n, batch,
            args, d, EPILOGUE, GRADIENT, PRECISION, not careful, BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_K,
        )  # fmt: skip
    losses, total = totals
    if GRADIENT:
        planes = tl.num_programs(2) // chunks
        gradients += (split.to(tl.int64) * planes + plane) * n * d
        store_rows(gradients, first_row, d, columns, d, n, total)
    if chunk == 0:
        program = (plane * splits + split) * tl.num_programs(0) + tile
        inside = first_row + tl.arange(0, BLOCK_M) < n
        tl.store(partial + program, tl.sum(tl.where(inside, losses, 0.0)))
