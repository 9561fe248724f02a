"""The sweep over rows: loss, feature gradient, and how each row pulls and pushes the centers.

A program takes tiles of R rows. Up to 2048 columns they stay in registers from load to store; wider rows are visited
twice in chunks, the second time in the L1.
"""

import triton
import triton.language as tl

from ..common.tiles import load_chunk, load_row, read_labels, store_chunk
from .table_stats import load_mean


@triton.jit
def class_scalar(table, rule, y, valid, num_classes):
    """The loss's factor of some classes."""
    weights = tl.full(y.shape, 1.0, tl.float32)
    if table.class_weights is not None:
        weights = tl.load(table.class_weights + y, mask=valid, other=0.0).to(tl.float32)
    squared = tl.load(table.squared + y, mask=valid, other=0.0)
    whole = tl.load(table.spread)
    scalar = rule.scalar(weights, num_classes * squared + whole, whole / (num_classes - 1), rule.a)
    if table.factor is not None:
        scalar *= tl.load(table.factor)
    return scalar


@triton.jit
def spread_total(table, num_classes):
    """Σ_j Σ_k ‖c_j - c_k‖² = 2 C V."""
    return 2.0 * num_classes * tl.load(table.spread)


@triton.jit
def offsets(batch, table, rule, at, y, valid, x_stride, d: tl.constexpr, chunk, BLOCK_D: tl.constexpr):
    """Of a chunk of rows: x - c_y, and for a loss that repels x - m₋o, x - c_o and c_y."""
    x = load_chunk(batch.x, at, valid, x_stride, chunk, d, BLOCK_D).to(tl.float32)
    c = load_chunk(table.c, y, valid, d, chunk, d, BLOCK_D).to(tl.float32)
    own = x - c
    mid = own
    far = own
    if rule.anti:
        high, low = load_mean(table.mean, d, chunk, BLOCK_D)
        mid = x - high - low
        far = x - load_row(table.farthest, 0, d, chunk, d, BLOCK_D)[None, :]
    return own, mid, far, c


@triton.jit
def squares(found, rule):
    """Σ over the columns of a chunk: (R,) of x - c_y, x - m₋o and x - c_o."""
    own, mid, far, _ = found
    own = tl.sum(own * own, 1)
    if rule.anti:
        mid = tl.sum(mid * mid, 1)
        far = tl.sum(far * far, 1)
    else:
        mid = own
        far = own
    return own, mid, far


@triton.jit
def of_others(own, mid, far, others, besides):
    """Σ_{j≠y} of what is linear in the centers, from its values at c_y, at m₋o and at c_o; `besides` is 0 where y is o.

    In this order it is exact for two classes, where what stands at m₋o is that of y."""
    return besides * far + (others * mid - besides * own)


@triton.jit
def gradient(found, table, rule, besides, own_slope, anti_slope, paper_slope, others, d, chunk, BLOCK_D: tl.constexpr):
    """dx of a chunk."""
    own, mid, far, c = found
    dx = own_slope[:, None] * own
    if rule.anti:
        dx += anti_slope[:, None] * of_others(own, mid, far, others, besides[:, None])
    if rule.paper_slope is not None:
        high, low = load_mean(table.mean, d, chunk, BLOCK_D)
        farthest = load_row(table.farthest, 0, d, chunk, d, BLOCK_D)[None, :]
        dx += paper_slope[:, None] * (others * (c - high - low) + (c - farthest))
    return dx


@triton.jit(do_not_specialize=["sizes"])
def rows(
    batch, table, out, rule, sizes, x_stride, d: tl.constexpr, R: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    """Every program takes a strided set of tiles, and leaves its part of the loss and of Σ p (x - m₋o)."""
    CHUNKS: tl.constexpr = (d + BLOCK_D - 1) // BLOCK_D
    program = tl.program_id(0)
    others = (sizes.num_classes - 1).to(tl.float32)
    scale = 2 * sizes.auxiliary_weight / sizes.divisor
    loss_sum = tl.zeros((), tl.float64)
    for tile in range(program, tl.cdiv(sizes.n, R), tl.num_programs(0)):
        at = tile * R + tl.arange(0, R)
        in_batch = at < sizes.n
        y, valid = read_labels(batch.y, at, in_batch, sizes.num_classes, batch.status)
        first = offsets(batch, table, rule, at, y, valid, x_stride, d, 0, BLOCK_D)
        own, mid, far = squares(first, rule)
        for chunk in range(1, CHUNKS):
            more = squares(offsets(batch, table, rule, at, y, valid, x_stride, d, chunk, BLOCK_D), rule)
            own += more[0]
            mid += more[1]
            far += more[2]
        anti = tl.zeros_like(own)
        besides = anti
        if rule.anti:
            besides = tl.where(y == tl.load(table.outlier), 0.0, 1.0)
            anti = of_others(own, mid, far, others, besides) + tl.load(table.rest)
        scalar = 1.0
        if rule.scalar is not None:
            scalar = class_scalar(table, rule, y, valid, sizes.num_classes)
        losses, d_own, d_anti = rule.loss(own, anti, scalar, rule.a)
        losses = tl.where(valid, losses, tl.where(in_batch, float("nan"), 0.0))
        loss_sum += tl.sum(losses, 0).to(tl.float64)
        weight = tl.full(own.shape, 1.0, tl.float32)
        if out.weights is not None:
            if rule.push is not None:
                weight = rule.push(anti, rule.a)
            weight = tl.where(valid, tl.where(own - own == 0, weight, float("nan")), 0.0)
            tl.store(out.weights + at, weight, mask=in_batch)
        row_scale = tl.where(valid, scale, 0.0)
        paper = 0.0
        if rule.paper_slope is not None:
            paper = 0.5 * rule.paper_slope(spread_total(table, sizes.num_classes), rule.a)
        for chunk in range(CHUNKS):
            found = first if CHUNKS == 1 else offsets(batch, table, rule, at, y, valid, x_stride, d, chunk, BLOCK_D)
            if out.dx is not None:
                dx = gradient(
                    found, table, rule, besides, row_scale * d_own, row_scale * d_anti, row_scale * paper, others, d,
                    chunk, BLOCK_D,
                )  # fmt: skip
                store_chunk(out.dx, dx, at, in_batch, d, chunk, d, BLOCK_D)
            if out.pushed is not None:
                columns = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
                to = out.pushed + program.to(tl.int64) * d + columns
                so_far = tl.load(to, mask=columns < d, other=0.0)
                tl.store(to, so_far + tl.sum(weight[:, None] * found[1], 0), mask=columns < d)
    tl.store(out.losses + program, loss_sum)
