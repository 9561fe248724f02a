"""The sweep over rows: loss, feature gradient, and how each row pulls and pushes the centers.

A program takes tiles of R rows. Up to 2048 columns they stay in registers from load to store; wider rows are visited
twice in chunks, the second time in the L1.
"""

import triton
import triton.language as tl

from ..common.tiles import is_finite, load_chunk, read_labels, store_chunk, value_of
from .arguments import VARYING, Sizes
from .table_stats import from_mean, load_row


@triton.jit
def class_scalar(table, rule, y, valid, num_classes):
    """The loss's factor of some classes, but for MVA's, which they share."""
    weights = tl.full(y.shape, 1.0, tl.float32)
    if table.class_weights is not None:
        weights = tl.load(table.class_weights + y, mask=valid, other=0.0).to(tl.float32)
    squared = tl.load(table.squared + y, mask=valid, other=0.0)
    whole = tl.load(table.spread)
    return rule.scalar(weights, num_classes * squared + whole, whole / (num_classes - 1), rule.a)


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
        mid = from_mean(x, table.mean, valid, d, chunk, BLOCK_D)
        far = x - load_row(table.farthest, 0, valid, d, chunk, BLOCK_D)
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
def shares(table, y, num_classes):
    """What c_y, m₋o and c_o count for in a sum over the other centers: (R,) each. Of two, the other is c_o or m₋o."""
    others = (num_classes - 1).to(tl.float32)
    outlier = y == tl.load(table.outlier)
    two = num_classes == 2
    own = tl.where(outlier | two, 0.0, -1.0)
    mid = tl.where(outlier | ~two, others, 0.0)
    return own, mid, tl.where(outlier, 0.0, 1.0)


@triton.jit
def add_apart(dx, c, slope, table, valid, others, d: tl.constexpr, chunk, BLOCK_D: tl.constexpr):
    """dx and a multiple (R,) of Σ_j (c_y - c_j) of a chunk."""
    apart = c - load_row(table.farthest, 0, valid, d, chunk, BLOCK_D)
    apart += others * from_mean(c, table.mean, valid, d, chunk, BLOCK_D)
    return dx + slope[:, None] * apart


@triton.jit(do_not_specialize=VARYING)
def rows(
    batch, table, out, rule, n, num_classes, divisor, auxiliary_weight, programs, slice_rows, x_stride,
    d: tl.constexpr, R: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    """Every program takes a strided set of tiles, and leaves its part of the loss and of Σ p (x - m₋o)."""
    sizes = Sizes(n, num_classes, divisor, auxiliary_weight, programs, slice_rows)
    CHUNKS: tl.constexpr = (d + BLOCK_D - 1) // BLOCK_D
    program = tl.program_id(0)
    others = (sizes.num_classes - 1).to(tl.float32)
    scale = 2 * sizes.auxiliary_weight / value_of(sizes.divisor)
    loss_sum = tl.zeros((), tl.float64)
    for tile in range(program, tl.cdiv(sizes.n, R), tl.num_programs(0)):
        at = tile * R + tl.arange(0, R)
        in_batch = at < sizes.n
        y, valid = read_labels(batch.y, at, in_batch, sizes.num_classes, batch.status)
        bad = in_batch  # without a class
        of_row = tl.full((R,), 1.0, tl.float32)
        if batch.sample_weights is not None:  # a row that weighs nothing may hold anything
            of_row = tl.load(batch.sample_weights + at, mask=in_batch, other=0.0)
            bad = in_batch & ~valid
            valid = valid & (of_row != 0)
        first = offsets(batch, table, rule, at, y, valid, x_stride, d, 0, BLOCK_D)
        own, mid, far = squares(first, rule)
        for chunk in range(1, CHUNKS):
            more = squares(offsets(batch, table, rule, at, y, valid, x_stride, d, chunk, BLOCK_D), rule)
            own += more[0]
            mid += more[1]
            far += more[2]
        anti = tl.zeros_like(own)
        share = (anti, anti, anti)
        if rule.anti:
            share = shares(table, y, sizes.num_classes)
            anti = share[2] * far + (share[1] * mid + tl.load(table.rest) + share[0] * own)
        scalar = 1.0
        if rule.scalar is not None:
            scalar = class_scalar(table, rule, y, valid, sizes.num_classes)
        losses, d_own, d_anti = rule.loss(own, anti, scalar, rule.a)
        if table.factor is not None:  # behind the distance: before it they may be more than float32 holds
            factor = tl.load(table.factor)
            losses *= factor
            d_own *= factor
        losses = tl.where(valid, of_row * losses, tl.where(bad, float("nan"), 0.0))
        if out.row_losses is not None:
            tl.store(out.row_losses + at, sizes.auxiliary_weight * losses, mask=in_batch)
        loss_sum += tl.sum(losses, 0).to(tl.float64)
        weight = of_row
        if out.weights is not None:
            if rule.push is not None:
                weight = of_row * rule.push(anti, rule.a)
            weight = tl.where(valid, tl.where(is_finite(own), weight, float("nan")), 0.0)
            tl.store(out.weights + at, weight, mask=in_batch)
        d_own = tl.where(valid, scale * of_row * d_own, 0.0)
        d_anti = tl.where(valid, scale * of_row * d_anti, 0.0)
        for chunk in range(CHUNKS):
            found = first if CHUNKS == 1 else offsets(batch, table, rule, at, y, valid, x_stride, d, chunk, BLOCK_D)
            if out.dx is not None:
                dx = (d_own + d_anti * share[0])[:, None] * found[0]
                if rule.anti:
                    dx += (d_anti * share[1])[:, None] * found[1] + (d_anti * share[2])[:, None] * found[2]
                if rule.paper_slope is not None:
                    slope = 0.5 * scale * of_row * rule.paper_slope(spread_total(table, sizes.num_classes), rule.a)
                    slope = tl.where(valid, slope, 0.0)
                    dx = add_apart(dx, found[3], slope, table, valid, others, d, chunk, BLOCK_D)
                store_chunk(out.dx, dx, at, in_batch, d, chunk, d, BLOCK_D)
            if out.pushed is not None:
                columns = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
                to = out.pushed + program.to(tl.int64) * d + columns
                so_far = tl.load(to, mask=columns < d, other=0.0)
                tl.store(to, so_far + tl.sum(weight[:, None] * found[1], 0), mask=columns < d)
    tl.store(out.losses + program, loss_sum)
