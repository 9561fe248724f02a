"""What becomes of the sums over rows: the loss, and the moved centers, a class a program.

A class adds its slices to its rows beside them. Between `slices` and this kernel other processes may add theirs.
"""

import triton
import triton.language as tl

from ..common.tiles import is_finite, load_chunk, value_of
from .arguments import VARYING, Sizes
from .rows import class_scalar, spread_total
from .slices import class_sums
from .table_stats import from_mean, load_row


@triton.jit
def finish_loss(table, out, rule, sizes):
    """weight (Σ loss / divisor + the term over centers alone), in the order of the programs."""
    total = tl.zeros((256,), tl.float64)
    for first in range(0, sizes.programs, 256):
        at = first + tl.arange(0, 256)
        total += tl.load(out.losses + at, mask=at < sizes.programs, other=0.0)
    loss = tl.sum(total, 0) / value_of(sizes.divisor)
    if rule.constant is not None:
        classes = sizes.num_classes.to(tl.float32)
        spread = 0.0
        cosines = 0.0
        if rule.spread:
            spread = spread_total(table, sizes.num_classes)
        if rule.directions:
            cosines = tl.load(table.cosines) + classes * (classes - 1)
        loss += rule.constant(spread, cosines, rule.a)
    tl.store(out.loss, (sizes.auxiliary_weight * loss).to(tl.float32))


@triton.jit
def add_slices(
    slices,
    first,
    count,
    kind: tl.constexpr,
    d: tl.constexpr,
    chunk,
    PUSH: tl.constexpr,
    R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Σ of one kind over `count` slices from `first` on: (BLOCK_D,)."""
    total = tl.zeros((R, BLOCK_D), tl.float32)
    for start in range(0, count, R):
        slots = start + tl.arange(0, R)
        total += load_chunk(slices + kind * d, first + slots, slots < count, (1 + PUSH) * d, chunk, d, BLOCK_D)
    return tl.sum(total, 0)


@triton.jit
def members(batch, rows, first, last):
    """How many sorted rows there are from `first` to `last`, or the sum of their weights: float32."""
    AT_ONCE: tl.constexpr = 256
    count = (last - first).to(tl.float32)
    if batch.sample_weights is not None:
        total = tl.zeros((AT_ONCE,), tl.float32)
        for start in range(first, last, AT_ONCE):
            slots = start + tl.arange(0, AT_ONCE)
            at = tl.load(rows.order + slots, mask=slots < last, other=0)
            total += tl.load(batch.sample_weights + at, mask=slots < last, other=0.0)
        count = tl.sum(total, 0)
    return count


@triton.jit
def move(
    batch, table, out, rows, rule, sizes, x_stride, d: tl.constexpr, label, first, last, chunk, R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """A chunk of a class's moved center; its sorted rows are those from `first` to `last`. It stays where that is not
    finite."""
    PUSH: tl.constexpr = out.pushed is not None
    first_slice = tl.cdiv(first, sizes.slice_rows)
    count = tl.maximum(last // sizes.slice_rows - first_slice, 0)
    skipped = count * sizes.slice_rows
    here = tl.full((1,), True, tl.int1)
    c = load_chunk(table.c, label + tl.zeros((1,), tl.int64), here, d, chunk, d, BLOCK_D).to(tl.float32)
    pull, push = class_sums(
        batch, rows.order, out.weights, c, first, last - first - skipped, first_slice * sizes.slice_rows - first,
        skipped, x_stride, d, chunk, PUSH, R, BLOCK_D,
    )  # fmt: skip
    pull = (pull + add_slices(rows.slices, first_slice, count, 0, d, chunk, PUSH, R, BLOCK_D))[None, :]
    push = push[None, :]
    apart = push
    directions = push
    one = tl.full((1, 1), 1.0, tl.float32)
    scalar, inverse, along = one, one, one
    total = 0.0
    others = (sizes.num_classes - 1).to(tl.float32)
    if rule.anti:
        centered = from_mean(c, table.mean, here, d, chunk, BLOCK_D)
        apart = others * centered + (c - load_row(table.farthest, 0, here, d, chunk, BLOCK_D))
        if PUSH:
            push += add_slices(rows.slices, first_slice, count, 1, d, chunk, PUSH, R, BLOCK_D)[None, :]
            push += tl.load(rows.pushes) * centered - load_row(rows.pushed, 0, here, d, chunk, BLOCK_D)
    if rule.spread:
        total = spread_total(table, sizes.num_classes)
    if rule.scalar is not None:
        y = label + tl.zeros((1, 1), tl.int64)
        scalar = class_scalar(table, rule, y, y >= 0, sizes.num_classes)
    if rule.directions:
        inverse = one * tl.load(table.inverse + label)
        along = one * tl.load(table.along + label)
        directions = load_row(table.directions, 0, here, d, chunk, BLOCK_D) - c * inverse
        directions /= tl.maximum(others, 1.0)
    moved = rule.move(
        c, pull, push, apart, directions, one * members(batch, rows, first, last), scalar, total, inverse, along, rule.a
    )  # fmt: skip
    columns = (chunk * BLOCK_D + tl.arange(0, BLOCK_D))[None, :]
    moved = tl.where(is_finite(moved), moved, c).to(table.c.dtype.element_ty)
    tl.store(table.c + label * d + columns, moved, mask=columns < d)


@triton.jit(do_not_specialize=VARYING)
def finish(
    batch, table, out, rows, rule, n, num_classes, divisor, auxiliary_weight, programs, slice_rows, x_stride,
    d: tl.constexpr, UPDATE: tl.constexpr, R: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """A grid of (classes, chunks), or of one program that writes the loss alone."""
    sizes = Sizes(n, num_classes, divisor, auxiliary_weight, programs, slice_rows)
    label = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    if (label == 0) & (chunk == 0):
        finish_loss(table, out, rule, sizes)
    if UPDATE:
        first = tl.load(rows.starts + label)
        last = tl.load(rows.starts + label + 1)
        if (last > first) | (rule.anti or rule.directions):  # no other loss moves the center of an absent class
            move(batch, table, out, rows, rule, sizes, x_stride, d, label, first, last, chunk, R, BLOCK_D)
