"""What becomes of the sums over rows: the loss, the gradients of the class weights, the moved centers.

Folds the blocks of partial sums in their order, a chunk of columns a program. Between them and this kernel other
processes may add theirs. Blocks are :func:`.rows.write_partials`'s.
"""

import triton
import triton.language as tl

from ..common.tiles import inverse_or_zero, is_finite, store_chunk, value_of
from .arguments import ALONG, INVERSE, LENGTH, SCALAR, SPREAD, VARYING
from .rows import block_head, scale_of_head
from .table_stats import table_chunk

FOLDED = tl.constexpr(4096)  # numbers of a tile of blocks


@triton.jit
def fold(ptr, count, stride, K: tl.constexpr):
    """Σ over `count` blocks of K numbers each, `stride` apart: (K,)."""
    AT_ONCE: tl.constexpr = 64
    total = tl.zeros((K,), tl.float32)
    for first in range(0, count, AT_ONCE):
        blocks = (first + tl.arange(0, AT_ONCE)).to(tl.int64)[:, None]
        part = tl.load(ptr + blocks * stride + tl.arange(0, K)[None, :], mask=blocks < count, other=0.0)
        total += tl.sum(part, 0)
    return total


@triton.jit
def fold_loss(ptr, count, stride):
    """Σ over `count` blocks of a loss: float64."""
    total = tl.zeros((64,), tl.float64)
    for first in range(0, count, 64):
        blocks = (first + tl.arange(0, 64)).to(tl.int64)
        total += tl.load(ptr + blocks * stride, mask=blocks < count, other=0.0).to(tl.float64)
    return tl.sum(total, 0)


@triton.jit
def fold_chunk(ptr, count, stride, d, chunk, K: tl.constexpr, BLOCK_D: tl.constexpr):
    """Σ over `count` blocks of one chunk of columns of their rows (K, d): (K, BLOCK_D)."""
    AT_ONCE: tl.constexpr = FOLDED // (K * BLOCK_D) if FOLDED > K * BLOCK_D else 1
    columns = (chunk * BLOCK_D + tl.arange(0, BLOCK_D))[None, None, :]
    at = ptr + tl.arange(0, K)[None, :, None] * d + columns
    total = tl.zeros((K, BLOCK_D), tl.float32)
    for first in range(0, count, AT_ONCE):
        blocks = (first + tl.arange(0, AT_ONCE)).to(tl.int64)[:, None, None]
        total += tl.sum(tl.load(at + blocks * stride, mask=(blocks < count) & (columns < d), other=0.0), 0)
    return total


@triton.jit
def of_others(values):
    """Σ_{j≠k} values_j along the first axis, for each k. In float64: one class may hold nearly all of it."""
    wide = values.to(tl.float64)
    return (tl.expand_dims(tl.sum(wide, 0), 0) - wide).to(tl.float32)


@triton.jit
def statistic(tables, row, K: tl.constexpr):
    """A row of the statistics as a column (K, 1)."""
    return tl.load(tables.statistics + row * K + tl.arange(0, K))[:, None]


@triton.jit
def finish_weights(
    sums, along, scale, tables, out, head, num_classes, d, chunk, K: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    """d loss/dw_k = υ_k (Σ G x + (Σ Q) ŵ_k) of a chunk of columns."""
    if head.lengths:
        inverse = inverse_or_zero(statistic(tables, LENGTH, K))
        sums += along[:, None] * (table_chunk(tables.w, num_classes, d, chunk, K, BLOCK_D) * inverse)
        if head.unit_w:
            sums *= inverse
    classes = tl.arange(0, K)
    store_chunk(out.dw, sums * scale, classes, classes < num_classes, d, chunk, d, BLOCK_D)


@triton.jit
def finish_centers(
    sums, push_sums, count, pushes, tables, rule, num_classes, d, chunk, PUSH: tl.constexpr, K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The centers of a chunk of columns, moved in place. A class whose sums hold NaN or inf keeps its center."""
    classes = tl.arange(0, K)
    real = (classes < num_classes)[:, None]
    c = table_chunk(tables.c, num_classes, d, chunk, K, BLOCK_D)
    push = tl.zeros_like(c)
    apart = push
    directions = push
    spread_total = 0.0
    scalar, inverse, along = count[:, None], count[:, None], count[:, None]
    kept = is_finite(count)
    if PUSH:
        push = of_others(pushes)[:, None] * c - of_others(push_sums)
        kept = kept & (of_others(pushes) * 0.0 == 0)
    if rule.scalar is not None:
        scalar = statistic(tables, SCALAR, K)
    if rule.spread:
        spread_total = 2 * num_classes.to(tl.float32) * tl.sum(statistic(tables, SPREAD, K))
        first = tl.sum(tl.where((classes == 0)[:, None], c, 0.0), 0)[None, :]
        shifted = tl.where(real, c - first, 0.0)
        apart = num_classes * shifted - tl.sum(shifted, 0)[None, :]
    if rule.directions:
        others = tl.maximum(num_classes - 1, 1).to(tl.float32)
        inverse = statistic(tables, INVERSE, K)
        along = statistic(tables, ALONG, K) / others
        directions = c * inverse
        directions = (tl.sum(directions, 0)[None, :] - directions) / others
    pull = sums - count[:, None] * c
    moved = rule.move(
        c, pull, push, apart, directions, count[:, None], scalar, spread_total, inverse, along, rule.a
    )  # fmt: skip
    moved = tl.where(kept[:, None] & is_finite(moved), moved, c)
    store_chunk(tables.c, moved, classes, classes < num_classes, d, chunk, d, BLOCK_D)


@triton.jit
def finish_loss(
    blocks, programs, stride, head_scale, tables, out, rule, num_classes, divisor, auxiliary_weight, K: tl.constexpr
):  # fmt: skip
    """head_scale Σ classifier + weight (Σ center loss / divisor + the term over centers alone)."""
    loss = fold_loss(blocks, programs, stride) * head_scale
    if tables.c is not None:
        center = fold_loss(blocks + 1, programs, stride) * (1.0 / value_of(divisor))
        if rule.constant is not None:
            classes = num_classes.to(tl.float32)
            spread = 0.0
            cosines = 0.0
            if rule.spread:
                spread = 2 * classes * tl.sum(statistic(tables, SPREAD, K))
            if rule.directions:
                cosines = tl.sum(statistic(tables, ALONG, K)) + classes * (classes - 1)
            center += rule.constant(spread, cosines, rule.a)
        loss += center * auxiliary_weight
    tl.store(out.loss, loss.to(tl.float32))


@triton.jit(do_not_specialize=VARYING)
def finish(
    tables, out, head, rule, num_classes, head_divisor, divisor, auxiliary_weight, programs, splits, summed,
    d: tl.constexpr, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr, KINDS: tl.constexpr,
    SLOTS: tl.constexpr, UPDATE: tl.constexpr, WEIGHTED: tl.constexpr, FUSED: tl.constexpr,
):  # fmt: skip
    """A program finishes chunks of columns; the first also the loss and the bias gradient."""
    HEAD: tl.constexpr = out.dw is not None
    PUSH: tl.constexpr = KINDS > HEAD + UPDATE
    head_scale = scale_of_head(tables, head_divisor, summed, SLOTS, WEIGHTED)
    blocks = out.partials
    stride = block_head(K, KINDS) + FUSED * KINDS * K * d
    held = blocks + block_head(K, KINDS)
    if not FUSED:
        held = out.sums
    held_stride = stride if FUSED else KINDS * K * d
    held_count = programs if FUSED else splits
    if tl.program_id(0) == 0:
        finish_loss(
            blocks, programs, stride, head_scale, tables, out, rule, num_classes, divisor, auxiliary_weight, K
        )  # fmt: skip
        if out.dbias is not None:
            p_sum = fold(blocks + 2, programs, stride, K) * head_scale
            classes = tl.arange(0, K)
            tl.store(out.dbias + classes, p_sum.to(out.dbias.dtype.element_ty), mask=classes < num_classes)
    along = tl.zeros((K,), tl.float32)
    count = along
    pushes = along
    if HEAD and head.lengths:
        along = fold(blocks + 2 + KINDS * K, programs, stride, K)
    if UPDATE:
        count = fold(blocks + 2 + HEAD * K, programs, stride, K)
        if PUSH:
            pushes = fold(blocks + 2 + (HEAD + 1) * K, programs, stride, K)
    for chunk in range(tl.program_id(0), CHUNKS, tl.num_programs(0)):
        if HEAD:
            total = fold_chunk(held, held_count, held_stride, d, chunk, K, BLOCK_D)
            finish_weights(total, along, head_scale, tables, out, head, num_classes, d, chunk, K, BLOCK_D)
        if UPDATE:
            total = fold_chunk(held + HEAD * K * d, held_count, held_stride, d, chunk, K, BLOCK_D)
            push_sums = total
            if PUSH:
                push_sums = fold_chunk(held + (HEAD + 1) * K * d, held_count, held_stride, d, chunk, K, BLOCK_D)
            finish_centers(
                total, push_sums, count, pushes, tables, rule, num_classes, d, chunk, PUSH, K, BLOCK_D
            )  # fmt: skip
