"""What the last program of a class-table launch makes of the sums over rows: loss, class gradients, moved centers."""

import triton
import triton.language as tl

from .table_tiles import center_directions
from .tiles import fold_chunk, inverse_or_zero, load_chunk, store_chunk

STATS = tl.constexpr(16)  # rows of a block of sums per class, (STATS, K)
P_SUM, COUNT, PUSH_SUM, Q_SUM = (tl.constexpr(i) for i in range(4))
# Rows the last program adds for the finish.
SCALAR, SPREAD_TOTAL, W_LENGTH, INVERSE_LENGTH, ALONG = (tl.constexpr(i) for i in range(4, 9))


@triton.jit
def load_stat(stats_ptr, row: tl.constexpr, K: tl.constexpr):
    """A row of the finished block as a column, (K, 1)."""
    return tl.load(stats_ptr + row * K + tl.arange(0, K))[:, None]


@triton.jit
def stat(block, row: tl.constexpr):
    """A row of a block in registers, (K,)."""
    return tl.sum(tl.where((tl.arange(0, STATS) == row)[:, None], block, 0.0), 0)


@triton.jit
def store_stat(stats_ptr, row: tl.constexpr, values, K: tl.constexpr):
    """Writes a row, (K,), of a block."""
    tl.store(stats_ptr + row * K + tl.arange(0, K), values)


@triton.jit
def finish_weights(
    sums, stats_ptr, w_ptr, dw_ptr, scale, num_classes, d, chunk,
    UNIT_W: tl.constexpr, LENGTHS: tl.constexpr, K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """d loss/dw_k = υ_k (Σ G x + (Σ Q) ŵ_k) of one chunk, from the finished sums."""
    classes = tl.arange(0, K)
    real = classes < num_classes
    if LENGTHS:
        inverse = inverse_or_zero(load_stat(stats_ptr, W_LENGTH, K))
        direction = load_chunk(w_ptr, classes, real, d, chunk, d, BLOCK_D).to(tl.float32) * inverse
        sums += load_stat(stats_ptr, Q_SUM, K) * direction
        if UNIT_W:
            sums *= inverse
    store_chunk(dw_ptr, sums * scale, classes, real, d, chunk, d, BLOCK_D)


@triton.jit
def finish_centers(
    sums, push_sums, stats_ptr, c_ptr, auxiliary, num_classes, d, chunk,
    MOVE: tl.constexpr, K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The centers of one chunk, moved in place from the finished sums."""
    classes = tl.arange(0, K)
    real = classes < num_classes
    c = load_chunk(c_ptr, classes, real, d, chunk, d, BLOCK_D).to(tl.float32)
    first = tl.sum(tl.where((classes == 0)[:, None], c, 0.0), 0)[None, :]
    shifted = tl.where(real[:, None], c - first, 0.0)
    apart = num_classes * shifted - tl.sum(shifted, 0)[None, :]
    count = load_stat(stats_ptr, COUNT, K)
    inverse_length = load_stat(stats_ptr, INVERSE_LENGTH, K)
    directions = c * inverse_length
    directions = (tl.sum(directions, 0)[None, :] - directions) / tl.maximum(num_classes - 1, 1)
    moved = MOVE(
        c,
        sums - count * c,
        load_stat(stats_ptr, PUSH_SUM, K) * c - push_sums,
        apart,
        directions,
        count,
        load_stat(stats_ptr, SCALAR, K),
        tl.load(stats_ptr + SPREAD_TOTAL * K),
        inverse_length,
        load_stat(stats_ptr, ALONG, K),
        auxiliary,
    )
    store_chunk(c_ptr, moved, classes, real, d, chunk, d, BLOCK_D)


@triton.jit
def finish_chunk(
    slabs_ptr, slab_size, programs, groups, stats_ptr, w_ptr, dw_ptr, c_ptr, classifier_scale, auxiliary,
    num_classes, d, chunk, UNIT_W: tl.constexpr, LENGTHS: tl.constexpr, MOVE: tl.constexpr, UPDATE: tl.constexpr,
    PUSH: tl.constexpr, K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One chunk of what is made of the sums over rows, which lie one kind behind the other: Σ G x, Σ_{y=k} x and
    Σ_{y≠k} p x, where a loss has them."""
    if dw_ptr is not None:
        sums = fold_chunk(slabs_ptr, programs, groups, d, chunk, K, BLOCK_D)
        finish_weights(
            sums, stats_ptr, w_ptr, dw_ptr, classifier_scale, num_classes, d, chunk, UNIT_W, LENGTHS, K, BLOCK_D
        )
        slabs_ptr += slab_size
    if UPDATE:
        sums = fold_chunk(slabs_ptr, programs, groups, d, chunk, K, BLOCK_D)
        push_sums = sums
        if PUSH:
            push_sums = fold_chunk(slabs_ptr + slab_size, programs, groups, d, chunk, K, BLOCK_D)
        finish_centers(sums, push_sums, stats_ptr, c_ptr, auxiliary, num_classes, d, chunk, MOVE, K, BLOCK_D)


@triton.jit
def add_losses(losses_ptr):
    """The programs' sums of row losses, (programs, 2) in float64: classifier and auxiliary."""
    programs = tl.num_programs(0)
    classifier_loss = tl.zeros((32,), tl.float64)
    auxiliary_loss = tl.zeros((32,), tl.float64)
    for first in range(0, programs, 32):
        at = first + tl.arange(0, 32)
        classifier_loss += tl.load(losses_ptr + 2 * at, mask=at < programs, other=0.0, cache_modifier=".cg")
        auxiliary_loss += tl.load(losses_ptr + 2 * at + 1, mask=at < programs, other=0.0, cache_modifier=".cg")
    return tl.sum(classifier_loss, 0), tl.sum(auxiliary_loss, 0)


@triton.jit
def finish_rows(
    stats_ptr, first, count, into, losses_ptr, loss_ptr, dbias_ptr, w_length, scalar, spread_total, c_ptr,
    auxiliary, num_classes, d, classifier_scale, auxiliary_scale, auxiliary_weight,
    CONSTANT: tl.constexpr, DIRECTIONS: tl.constexpr, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """Adds the programs' blocks up, writes the loss and the bias gradient, and leaves a finished block behind."""
    classes = tl.arange(0, K)
    block = fold_chunk(stats_ptr, first, count, K, 0, STATS, K)
    inverse_length = tl.zeros((K,), tl.float32)
    along = inverse_length
    if DIRECTIONS:
        inverse_length, along = center_directions(c_ptr, num_classes, d, K, BLOCK_D, CHUNKS)
    others = (num_classes - 1).to(tl.float32)
    cosine_total = tl.sum(along, 0) + num_classes * others
    classifier_loss, auxiliary_loss = add_losses(losses_ptr)
    constant = CONSTANT(spread_total, cosine_total, auxiliary)
    # A division in float64 would be a call, around which registers are put aside.
    loss = classifier_loss * classifier_scale + auxiliary_loss * auxiliary_scale + auxiliary_weight * constant
    tl.store(loss_ptr, loss.to(tl.float32))
    if dbias_ptr is not None:
        bias_gradient = stat(block, P_SUM) * classifier_scale
        tl.store(dbias_ptr + classes, bias_gradient.to(dbias_ptr.dtype.element_ty), mask=classes < num_classes)
    finished = stats_ptr + into * STATS * K
    store_stat(finished, COUNT, stat(block, COUNT), K)
    store_stat(finished, PUSH_SUM, stat(block, PUSH_SUM), K)
    store_stat(finished, Q_SUM, stat(block, Q_SUM), K)
    store_stat(finished, SCALAR, scalar, K)
    store_stat(finished, SPREAD_TOTAL, tl.zeros((K,), tl.float32) + spread_total, K)
    store_stat(finished, W_LENGTH, w_length, K)
    store_stat(finished, INVERSE_LENGTH, inverse_length, K)
    store_stat(finished, ALONG, along / tl.maximum(others, 1.0), K)
    tl.debug_barrier()
