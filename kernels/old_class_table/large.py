"""Center family for more than 64 classes: nothing of size (n, C), and no table of sums that a program could not hold.

The table is summarised by sums over its C rows (for center loss there is nothing to summarise). A launch over rows
gives loss and feature gradient, O(d) a row whatever C is. Two launches move the centers, over rows in the order of a
stable sort of the labels: slices within one class are summed, and each class adds its slices to its rows beside them.
No atomics on floats, the same bits, no synchronisation, and no program that visits all rows of a large class.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.tiles import arrive_last, load_chunk, load_row, read_labels, store_chunk
from ..host.chips import HALF_REGISTERS, launch_options
from ..host.launch import arrival_counters, cdiv, gradient_dtype, max_programs, rows_of
from .chunks import load_again, rows_in_chunks
from .epilogues.center import no_push
from .epilogues.class_table import AUXILIARIES
from .gradient_tiles import write_gradient
from .table_tiles import center_distances

SPREAD, REST_SPREAD, COSINES, OUTLIER, ANCHOR = (tl.constexpr(i) for i in range(5))  # entries of Summary.scalars
REST_MEAN, TOTAL, OUTLIER_ROW, DIRECTIONS = (tl.constexpr(i) for i in range(4))  # rows of Summary.rows
ROWS_OF_CLASS, SLICES_OF_CLASS = tl.constexpr(16), tl.constexpr(32)
HELD_CHUNKS = tl.constexpr(4)  # wider rows are visited again, in the L1: held, variant's would spill
CLASS_OPTIONS = launch_options(4)
SUMMARY_BLOCK = 1 << 25  # elements of the table a summary takes at a time

_empty = torch.empty


@triton.jit
def add_pushed(sums_ptr, x, push, d, chunk, BLOCK_D: tl.constexpr):
    """Adds Σ p x of a chunk to the program's row of sums (d,)."""
    cols = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    so_far = tl.load(sums_ptr + cols, mask=cols < d, other=0.0)
    tl.store(sums_ptr + cols, so_far + tl.sum(push[:, None] * x.to(tl.float32), 0), mask=cols < d)


@triton.jit(do_not_specialize=["n", "num_classes", "divisor"])
def row_kernel(
    x_ptr, y_ptr, c_ptr, center_weights_ptr, squared_ptr, scalars_ptr, rows_ptr, status_ptr, losses_ptr, loss_ptr,
    dx_ptr, push_ptr, pushed_ptr, counter_ptr, auxiliary, n, num_classes, d, x_stride, divisor, auxiliary_weight,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
    ROW_LOSS: tl.constexpr, CLASS_SCALAR: tl.constexpr, CONSTANT: tl.constexpr, PUSH_WEIGHT: tl.constexpr,
    PAPER_SLOPE: tl.constexpr, SPREADS: tl.constexpr, ANTI: tl.constexpr, PAPER: tl.constexpr, PUSH: tl.constexpr,
):  # fmt: skip
    """Loss and feature gradient, and for losses that push: each row's weight p and the sum of p x (programs, d)."""
    program = tl.program_id(0)
    others = (num_classes - 1).to(tl.float32)
    scale = auxiliary_weight / divisor
    spread = 0.0
    cosines = 0.0
    without = ()
    if scalars_ptr is not None:
        spread = tl.load(scalars_ptr + SPREAD)
        cosines = tl.load(scalars_ptr + COSINES) + num_classes * others
    spread_total = 2.0 * num_classes * spread
    if ANTI:
        outlier = tl.load(scalars_ptr + OUTLIER).to(tl.int32)
        anchor = tl.load(scalars_ptr + ANCHOR).to(tl.int32)
        without = (outlier, anchor, rows_ptr + REST_MEAN * d, rows_ptr + TOTAL * d)
    loss_sum = tl.zeros((), tl.float64)
    for tile in range(program, tl.cdiv(n, BLOCK_N), tl.num_programs(0)):
        rows = tile * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        in_batch = rows < n
        y, valid = read_labels(y_ptr, rows, in_batch, num_classes, status_ptr)
        x = rows_in_chunks(x_ptr, rows, in_batch, x_stride, d, CHUNKS <= HELD_CHUNKS, BLOCK_D, CHUNKS)
        squared = tl.zeros((BLOCK_N,), tl.float32)
        weights = tl.full((BLOCK_N,), 1.0, tl.float32)
        if SPREADS:
            squared = tl.load(squared_ptr + y, mask=valid, other=0.0)
        if center_weights_ptr is not None:
            weights = tl.load(center_weights_ptr + y, mask=valid, other=0.0).to(tl.float32)
        own, anti = center_distances(x, y, valid, c_ptr, num_classes, d, without, ANTI, BLOCK_N, BLOCK_D, CHUNKS)
        if ANTI:
            rest = tl.maximum(spread - squared * (num_classes / others), 0.0)
            anti = others * anti + tl.where(y == outlier, tl.load(scalars_ptr + REST_SPREAD), rest)
        scalar = CLASS_SCALAR(weights, num_classes * squared + spread, spread / others, auxiliary)
        losses, d_own, d_anti = ROW_LOSS(own, anti, scalar, auxiliary)
        losses = tl.where(valid, losses, tl.where(in_batch, float("nan"), 0.0))
        loss_sum += tl.sum(losses.to(tl.float64), 0)
        if dx_ptr is not None:
            slopes = (
                tl.where(valid, 2 * scale * d_own, 0.0),
                tl.where(valid, 2 * scale * others * d_anti, 0.0),
                tl.where(valid, scale * PAPER_SLOPE(spread_total, auxiliary), 0.0),
            )
            write_gradient(
                dx_ptr, rows, in_batch, x, (), (y, valid, slopes, without), None, c_ptr, num_classes, d,
                False, ANTI, PAPER, "ieee", False, BLOCK_D, CHUNKS,
            )  # fmt: skip
        if PUSH:
            push = tl.where(valid, PUSH_WEIGHT(anti, auxiliary), 0.0)
            tl.store(push_ptr + rows, push, mask=in_batch)
            sums_ptr = pushed_ptr + program.to(tl.int64) * d
            if x[0].dtype.is_ptr():
                for chunk in tl.range(CHUNKS, disable_licm=True):
                    add_pushed(sums_ptr, load_again(x, chunk, BLOCK_D), push, d, chunk, BLOCK_D)
            else:
                for chunk in tl.static_range(CHUNKS):
                    add_pushed(sums_ptr, x[chunk], push, d, chunk, BLOCK_D)
    tl.store(losses_ptr + program, loss_sum)
    if arrive_last(counter_ptr, tl.num_programs(0)):
        total = tl.zeros((32,), tl.float64)
        for first in range(0, tl.num_programs(0), 32):
            at = first + tl.arange(0, 32)
            total += tl.load(losses_ptr + at, mask=at < tl.num_programs(0), other=0.0, cache_modifier=".cg")
        constant = CONSTANT(spread_total, cosines, auxiliary)
        tl.store(loss_ptr, (auxiliary_weight * (tl.sum(total, 0) / divisor + constant)).to(tl.float32))


@triton.jit
def sum_rows(
    x_ptr, order_ptr, push_ptr, first, count, gap, skipped, x_stride, d, chunk,
    PUSH: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Σ x, Σ p x (BLOCK_D,) and Σ p of `count` sorted rows from `first` on; after the first `gap`, some are skipped."""
    sums = tl.zeros((ROWS_OF_CLASS, BLOCK_D), tl.float32)
    pushed = tl.zeros((ROWS_OF_CLASS, BLOCK_D), tl.float32)
    pushes = tl.zeros((ROWS_OF_CLASS,), tl.float32)
    for start in range(0, count, ROWS_OF_CLASS):
        slots = start + tl.arange(0, ROWS_OF_CLASS)
        inside = slots < count
        rows = tl.load(order_ptr + first + slots + tl.where(slots < gap, 0, skipped), mask=inside, other=0)
        x = load_chunk(x_ptr, rows, inside, x_stride, chunk, d, BLOCK_D).to(tl.float32)
        sums += x
        if PUSH:
            push = tl.load(push_ptr + rows, mask=inside, other=0.0)
            pushes += push
            pushed += push[:, None] * x
    return tl.sum(sums, 0), tl.sum(pushed, 0), tl.sum(pushes, 0)


@triton.jit(do_not_specialize=["slice_rows"])
def slice_kernel(
    x_ptr, labels_ptr, order_ptr, push_ptr, slices_ptr, slice_rows, d, x_stride,
    BLOCK_D: tl.constexpr, PUSH: tl.constexpr,
):  # fmt: skip
    """What :func:`sum_rows` finds of a slice of the sorted rows that lies within one class: (slices, 1 or 3, d)."""
    part = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    first = part * slice_rows
    if tl.load(labels_ptr + first) == tl.load(labels_ptr + first + slice_rows - 1):
        found = sum_rows(x_ptr, order_ptr, push_ptr, first, slice_rows, 0, 0, x_stride, d, chunk, PUSH, BLOCK_D)
        cols = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
        for kind in tl.static_range(1 + 2 * PUSH):
            tl.store(slices_ptr + (part * (1 + 2 * PUSH) + kind) * d + cols, found[kind], mask=cols < d)


@triton.jit
def add_slices(slices_ptr, first, count, kind, d, chunk, PUSH: tl.constexpr, BLOCK_D: tl.constexpr):
    """Σ of one kind over `count` slices from `first` on: (BLOCK_D,)."""
    stride = (1 + 2 * PUSH) * d
    total = tl.zeros((SLICES_OF_CLASS, BLOCK_D), tl.float32)
    for start in range(0, count, SLICES_OF_CLASS):
        slots = start + tl.arange(0, SLICES_OF_CLASS)
        total += load_chunk(slices_ptr + kind * d, first + slots, slots < count, stride, chunk, d, BLOCK_D)
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=["num_classes", "slice_rows"])
def class_kernel(
    x_ptr, order_ptr, starts_ptr, c_ptr, center_weights_ptr, squared_ptr, inverse_ptr, scalars_ptr, rows_ptr, push_ptr,
    pushed_ptr, push_total_ptr, slices_ptr, auxiliary, slice_rows, num_classes, d, x_stride,
    BLOCK_D: tl.constexpr, MOVE: tl.constexpr, CLASS_SCALAR: tl.constexpr, SPREADS: tl.constexpr,
    ANTI: tl.constexpr, COSINE: tl.constexpr, PUSH: tl.constexpr,
):  # fmt: skip
    """Moves the center of one class, a chunk of columns after the other; a grid of (classes, chunks)."""
    label = tl.program_id(0)
    chunk = tl.program_id(1)
    first = tl.load(starts_ptr + label)
    last = tl.load(starts_ptr + label + 1)
    first_slice = tl.cdiv(first, slice_rows)
    slices = tl.maximum(last // slice_rows - first_slice, 0)
    skipped = slices * slice_rows
    sums, own_pushed, own_push = sum_rows(
        x_ptr, order_ptr, push_ptr, first, last - first - skipped, first_slice * slice_rows - first, skipped,
        x_stride, d, chunk, PUSH, BLOCK_D,
    )  # fmt: skip
    sums += add_slices(slices_ptr, first_slice, slices, 0, d, chunk, PUSH, BLOCK_D)
    count = (last - first).to(tl.float32)
    c = load_row(c_ptr, label.to(tl.int64), d, chunk, d, BLOCK_D)[None, :]
    pull = sums[None, :] - count * c
    push = tl.zeros_like(c)
    apart = tl.zeros_like(c)
    directions = tl.zeros_like(c)
    squared, spread, inverse, along, weight = 0.0, 0.0, 0.0, 0.0, 1.0
    if center_weights_ptr is not None:
        weight = tl.load(center_weights_ptr + label).to(tl.float32)
    if SPREADS:
        squared = tl.load(squared_ptr + label)
        spread = tl.load(scalars_ptr + SPREAD)
    if PUSH:
        own_pushed += add_slices(slices_ptr, first_slice, slices, 1, d, chunk, PUSH, BLOCK_D)
        own_push += add_slices(slices_ptr, first_slice, slices, 2, d, chunk, PUSH, BLOCK_D)
        away = load_row(pushed_ptr, 0, d, chunk, d, BLOCK_D)[None, :] - own_pushed[None, :]
        push = (tl.load(push_total_ptr) - own_push) * c - away
    if ANTI:
        apart = num_classes * (c - load_row(rows_ptr, OUTLIER_ROW, d, chunk, d, BLOCK_D)[None, :])
        apart -= load_row(rows_ptr, TOTAL, d, chunk, d, BLOCK_D)[None, :]
    if COSINE:
        inverse = tl.load(inverse_ptr + label)
        along = tl.load(squared_ptr + label)
        directions = (load_row(rows_ptr, DIRECTIONS, d, chunk, d, BLOCK_D)[None, :] - c * inverse) / (num_classes - 1)
    one = tl.full((1, 1), 1.0, tl.float32)
    scalar = CLASS_SCALAR(weight * one, num_classes * squared + spread * one, spread / (num_classes - 1), auxiliary)
    moved = MOVE(
        c, pull, push, apart, directions, count * one, scalar, 2.0 * num_classes * spread,
        inverse * one, along * one, auxiliary,
    )  # fmt: skip
    rows = label + tl.zeros((1,), tl.int64)
    store_chunk(c_ptr, moved, rows, rows >= 0, d, chunk, d, BLOCK_D)


class Summary(NamedTuple):
    """What rows and classes need of the table, float32 on its device. See :func:`.table_tiles.leave_one_out`."""

    scalars: Tensor  # (5,) V, V without the outlier, Σ of all cosines, and the classes that are outlier and anchor
    rows: Tensor  # (4, d) mean without the outlier less the anchor, Σ_j (c_j - outlier), the outlier, Σ_j ĉ_j
    squared: Tensor  # (C,) ‖c_k - c̄‖², or for directions ĉ_k·Σ_{j≠k} ĉ_j / (C-1)
    inverse: Tensor  # (C,) 1/‖c_k‖, 0 for a zero center


def _summary(centers: Tensor, anti: bool, directions: bool) -> Summary:
    """Sums over the table in blocks of its rows, on the device; exact where :func:`.table_tiles.center_spread` is."""
    num_classes, d = centers.shape
    blocks = [c.float() if c.dtype.itemsize < 4 else c for c in centers.split(max(1, SUMMARY_BLOCK // d))]
    scalars, rows = centers.new_zeros(5, dtype=torch.float32), centers.new_zeros(4, d, dtype=torch.float32)
    if directions:
        inverse = torch.cat([_inverse_lengths(c) for c in blocks])
        units = [c * i[:, None] for c, i in zip(blocks, inverse.split(len(blocks[0])), strict=True)]
        rows[DIRECTIONS.value] = sum(u.sum(0) for u in units)
        along = torch.cat([(u * (rows[DIRECTIONS.value] - u)).sum(1) for u in units])
        scalars[COSINES.value] = along.sum()
        return Summary(scalars, rows, along / (num_classes - 1), inverse)
    first = centers[0].float()
    mean = sum((c - first).sum(0) for c in blocks) / num_classes
    squared = torch.cat([(c - first - mean).square().sum(1) for c in blocks])
    scalars[SPREAD.value] = squared.sum()
    if anti:
        outlier = squared.argmax()
        anchor = (outlier == 0).long()
        at_outlier, at_anchor = (centers.index_select(0, i[None])[0].float() for i in (outlier, anchor))
        own = at_outlier - at_anchor
        rest = (sum((c - at_anchor).double().sum(0) for c in blocks) - own) / (num_classes - 1)
        rest = rest.float()
        besides = torch.cat([(c - at_anchor - rest).square().sum(1) for c in blocks])
        besides.index_fill_(0, outlier[None], 0)
        scalars[REST_SPREAD.value] = besides.sum()
        scalars[OUTLIER.value], scalars[ANCHOR.value] = outlier, anchor
        rows[REST_MEAN.value], rows[OUTLIER_ROW.value] = rest, at_outlier
        rows[TOTAL.value] = sum((c - at_outlier).sum(0) for c in blocks)
    return Summary(scalars, rows, squared, squared)


def _inverse_lengths(c: Tensor) -> Tensor:
    largest = c.abs().amax(1)
    largest = largest.where(largest != 0, 1)
    lengths = (c / largest[:, None]).norm(dim=1)
    return torch.where(lengths == 0, 0, 1 / lengths) / largest


def config_of(d: int) -> dict[str, int]:
    block_d = min(128, max(16, triton.next_power_of_2(d)))
    return {"BLOCK_N": 16, "BLOCK_D": block_d, "CHUNKS": cdiv(d, block_d)}


def row_options(family: str, d: int) -> dict[str, int]:
    if d <= 256:
        return launch_options(4)
    held = config_of(d)["CHUNKS"] <= HELD_CHUNKS.value
    return launch_options(8, max_registers=HALF_REGISTERS[family] if held else None)


def _slice_rows(n: int) -> int:
    """Rows of a slice. A class of all rows then has four times as many slices: few tiles of either to a program."""
    return max(ROWS_OF_CLASS.value, triton.next_power_of_2(math.isqrt(n)) // 2)


def class_table_large(
    family: str,
    x: Tensor,
    y: Tensor,
    centers: Tensor,
    center_weights: Tensor | None,
    auxiliary: str,
    params: list[float],
    auxiliary_weight: float,
    mean: bool,
    update: bool,
    gradient: bool,
    status: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """auxiliary_weight · auxiliary(x, y; centers) of x (n, d), y (n,): loss and dx; contiguous centers move in place.

    Floor: x read once and its gradient written once; for an update x, and the centers that move, once more. Rows of
    more than 512 columns are visited several times, after the first in the L1.
    """
    rule, (n, d), num_classes = AUXILIARIES[auxiliary], x.shape, len(centers)
    x, arguments = rows_of(x), rule.arguments(*params)
    config = config_of(d)
    tables = rule.spread or rule.directions
    summary = _summary(centers, rule.anti, rule.directions) if tables else Summary(None, None, None, None)
    programs = min(cdiv(n, config["BLOCK_N"]), max_programs(x.device))
    push = update and rule.push is not no_push
    new = {"dtype": torch.float32, "device": x.device}
    loss, losses = _empty((), **new), _empty((programs,), dtype=torch.float64, device=x.device)
    dx = _empty((n, d), dtype=gradient_dtype(x), device=x.device) if gradient else None
    pushes = _empty((n,), **new) if push else None
    pushed = torch.zeros((programs, d), **new) if push else None
    row_kernel[(programs,)](
        x,
        y,
        centers,
        center_weights,
        summary.squared,
        summary.scalars,
        summary.rows,
        status,
        losses,
        loss,
        dx,
        pushes,
        pushed,
        arrival_counters(x.device),
        arguments,
        n,
        num_classes,
        d,
        x.stride(0),
        n if mean else 1,
        auxiliary_weight,
        ROW_LOSS=rule.loss,
        CLASS_SCALAR=rule.scalar,
        CONSTANT=rule.constant,
        PUSH_WEIGHT=rule.push,
        PAPER_SLOPE=rule.paper_slope,
        SPREADS=rule.spread,
        ANTI=rule.anti,
        PAPER=auxiliary == "variant" and params[5] != 0,
        PUSH=push,
        **config,
        **row_options(family, d),
    )
    if update:
        labels, order = y.sort(stable=True)
        starts = torch.searchsorted(labels, torch.arange(num_classes + 1, dtype=y.dtype, device=y.device))
        slice_rows = _slice_rows(n)
        slices = _empty((n // slice_rows, 3 if push else 1, d), **new)
        shape = {"BLOCK_D": config["BLOCK_D"], "PUSH": push, **CLASS_OPTIONS}
        if len(slices):
            grid = (len(slices), config["CHUNKS"])
            slice_kernel[grid](x, labels, order, pushes, slices, slice_rows, d, x.stride(0), **shape)
        class_kernel[(num_classes, config["CHUNKS"])](
            x, order, starts, centers, center_weights, summary.squared, summary.inverse, summary.scalars, summary.rows,
            pushes, pushed.sum(0) if push else None, pushes.sum() if push else None, slices, arguments, slice_rows,
            num_classes, d, x.stride(0), MOVE=rule.move, CLASS_SCALAR=rule.scalar, SPREADS=rule.spread, ANTI=rule.anti,
            COSINE=rule.directions, **shape,
        )  # fmt: skip
    return loss, dx if gradient else _empty((0,), dtype=gradient_dtype(x), device=x.device)
