"""Class sums, of rows in the order of a stable sort of their labels: slices that lie within one class.

Offsets x - c_y are summed, not x: nothing cancels where features and centers share a large offset.
"""

import triton
import triton.language as tl

from ..common.tiles import load_chunk, load_row
from .arguments import VARYING


@triton.jit
def class_sums(
    batch, order, weights, c, first, count, gap, skipped, x_stride, d: tl.constexpr, chunk, PUSH: tl.constexpr,
    R: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Σ w (x - c) and Σ w p (x - c), (BLOCK_D,) both, of `count` sorted rows from `first` on; after the first `gap`,
    some are skipped. `weights` are the latter's, or the former's of a loss that does not push. One row that is not
    finite has the weight NaN, and makes NaN of all columns."""
    pulled = tl.zeros((R, BLOCK_D), tl.float32)
    pushed = tl.zeros((R, BLOCK_D), tl.float32)
    for start in range(0, count, R):
        slots = start + tl.arange(0, R)
        inside = slots < count
        at = tl.load(order + first + slots + tl.where(slots < gap, 0, skipped), mask=inside, other=0)
        weight = tl.load(weights + at, mask=inside, other=0.0)[:, None]
        of_row = tl.full((R, 1), 1.0, tl.float32)
        if batch.sample_weights is not None:
            of_row = tl.load(batch.sample_weights + at, mask=inside, other=0.0)[:, None]
            inside = inside & (tl.reshape(of_row, (R,)) != 0)
        offset = load_chunk(batch.x, at, inside, x_stride, chunk, d, BLOCK_D).to(tl.float32) - c
        if PUSH:
            pulled += tl.where(inside[:, None], of_row * offset + weight * 0.0, 0.0)
            pushed += weight * offset
        else:
            pulled += weight * offset
    return tl.sum(pulled, 0), tl.sum(pushed, 0)


@triton.jit
def put_slice(to, part, kind: tl.constexpr, values, d: tl.constexpr, chunk, PUSH: tl.constexpr, BLOCK_D: tl.constexpr):
    columns = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    tl.store(to + (part * (1 + PUSH) + kind) * d + columns, values, mask=columns < d)


@triton.jit(do_not_specialize=VARYING)
def slices(
    batch, table, weights, rows, num_classes, slice_rows, x_stride, d: tl.constexpr, PUSH: tl.constexpr,
    R: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """A grid of (slices, chunks); slices of more than one class are left to :mod:`.finish`."""
    part = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    first = part * slice_rows
    label = tl.load(rows.labels + first)
    last = tl.load(rows.labels + first + slice_rows - 1)
    if (label == last) & (label >= 0) & (label < num_classes):
        c = load_row(table.c, label.to(tl.int64), d, chunk, d, BLOCK_D)[None, :]
        pulled, pushed = class_sums(
            batch, rows.order, weights, c, first, slice_rows, 0, 0, x_stride, d, chunk, PUSH, R, BLOCK_D
        )  # fmt: skip
        put_slice(rows.slices, part, 0, pulled, d, chunk, PUSH, BLOCK_D)
        if PUSH:
            put_slice(rows.slices, part, 1, pushed, d, chunk, PUSH, BLOCK_D)
