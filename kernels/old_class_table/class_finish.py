"""What the last program of a class-table launch makes of the sums over rows: loss, class gradients, moved centers."""

import triton
import triton.language as tl

from ..ad_corre.slabs import BLOCK_ROWS, FAN_IN, fold_chunk, fold_slabs, fold_sums, store_sums
from ..common.tiles import arrive_last, inverse_or_zero, load_chunk, store_chunk
from .table_tiles import center_directions


@triton.jit
def load_columns(ptr, COUNT: tl.constexpr, K: tl.constexpr):
    """Rows (K,) that lie one behind the other, as columns (K, 1)."""
    columns = ()
    for row in tl.static_range(COUNT):
        columns += (tl.load(ptr + row * K + tl.arange(0, K))[:, None],)
    return columns


@triton.jit
def finish_weights(
    sums, q_sum, w_length, w_ptr, dw_ptr, scale, num_classes, d, chunk,
    UNIT_W: tl.constexpr, LENGTHS: tl.constexpr, K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """d loss/dw_k = υ_k (Σ G x + (Σ Q) ŵ_k) of one chunk, from the finished sums."""
    classes = tl.arange(0, K)
    real = classes < num_classes
    if LENGTHS:
        inverse = inverse_or_zero(w_length)
        direction = load_chunk(w_ptr, classes, real, d, chunk, d, BLOCK_D).to(tl.float32) * inverse
        sums += q_sum * direction
        if UNIT_W:
            sums *= inverse
    store_chunk(dw_ptr, sums * scale, classes, real, d, chunk, d, BLOCK_D)


@triton.jit
def finish_centers(
    sums, push_sums, finished, c_ptr, auxiliary, num_classes, d, chunk,
    MOVE: tl.constexpr, K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The centers of one chunk, moved in place from the finished sums."""
    classes = tl.arange(0, K)
    real = classes < num_classes
    c = load_chunk(c_ptr, classes, real, d, chunk, d, BLOCK_D).to(tl.float32)
    first = tl.sum(tl.where((classes == 0)[:, None], c, 0.0), 0)[None, :]
    shifted = tl.where(real[:, None], c - first, 0.0)
    apart = num_classes * shifted - tl.sum(shifted, 0)[None, :]
    count, push_sum, _, scalar, spread_total, _, inverse_length, along = finished
    directions = c * inverse_length
    directions = (tl.sum(directions, 0)[None, :] - directions) / tl.maximum(num_classes - 1, 1)
    moved = MOVE(
        c,
        sums - count * c,
        push_sum * c - push_sums,
        apart,
        directions,
        count,
        scalar,
        spread_total,
        inverse_length,
        along,
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
    Σ_{y≠k} p x, where a loss has them. `stats_ptr` is what :func:`finish_rows` left behind."""
    finished = load_columns(stats_ptr, 8, K)
    if dw_ptr is not None:
        sums = fold_chunk(slabs_ptr, programs, groups, d, chunk, K, BLOCK_D)
        _, _, q_sum, _, _, w_length, _, _ = finished
        finish_weights(
            sums, q_sum, w_length, w_ptr, dw_ptr, classifier_scale, num_classes, d, chunk, UNIT_W, LENGTHS, K, BLOCK_D
        )
        slabs_ptr += slab_size
    if UPDATE:
        sums = fold_chunk(slabs_ptr, programs, groups, d, chunk, K, BLOCK_D)
        push_sums = sums
        if PUSH:
            push_sums = fold_chunk(slabs_ptr + slab_size, programs, groups, d, chunk, K, BLOCK_D)
        finish_centers(sums, push_sums, finished, c_ptr, auxiliary, num_classes, d, chunk, MOVE, K, BLOCK_D)


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
    stats_ptr, first, count, into, factors_ptr, losses_ptr, loss_ptr, dbias_ptr, c_ptr, auxiliary,
    num_classes, d, classifier_scale, auxiliary_scale, auxiliary_weight,
    CONSTANT: tl.constexpr, DIRECTIONS: tl.constexpr, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """Adds the programs' blocks up, writes loss and bias gradient, and leaves what :func:`finish_chunk` takes."""
    classes = tl.arange(0, K)
    p_sum, members, push_sum, q_sum = fold_sums(stats_ptr, first, count, K)
    inverse_length = tl.zeros((K,), tl.float32)
    along = inverse_length
    if DIRECTIONS:
        inverse_length, along = center_directions(c_ptr, num_classes, d, K, BLOCK_D, CHUNKS)
    others = (num_classes - 1).to(tl.float32)
    cosine_total = tl.sum(along, 0) + num_classes * others
    classifier_loss, auxiliary_loss = add_losses(losses_ptr)
    w_length = tl.load(factors_ptr + classes)
    scalar = tl.load(factors_ptr + K + classes)
    spread = tl.load(factors_ptr + 2 * K + classes)
    constant = CONSTANT(tl.load(factors_ptr + 2 * K), cosine_total, auxiliary)
    # A division in float64 would be a call, around which registers are put aside.
    loss = classifier_loss * classifier_scale + auxiliary_loss * auxiliary_scale + auxiliary_weight * constant
    tl.store(loss_ptr, loss.to(tl.float32))
    if dbias_ptr is not None:
        bias_gradient = p_sum * classifier_scale
        tl.store(dbias_ptr + classes, bias_gradient.to(dbias_ptr.dtype.element_ty), mask=classes < num_classes)
    along = along / tl.maximum(others, 1.0)
    store_sums(stats_ptr, into, (members, push_sum, q_sum, scalar, spread, w_length, inverse_length, along), K)
    tl.debug_barrier()


@triton.jit
def finish_launch(
    scratch_ptr, stats_ptr, slab_size, factors_ptr, counters_ptr, losses_ptr, loss_ptr, dbias_ptr, w_ptr, dw_ptr, c_ptr,
    auxiliary, num_classes, d, classifier_scale, auxiliary_scale, auxiliary_weight,
    CONSTANT: tl.constexpr, DIRECTIONS: tl.constexpr, UNIT_W: tl.constexpr, LENGTHS: tl.constexpr, MOVE: tl.constexpr,
    UPDATE: tl.constexpr, PUSH: tl.constexpr, KINDS: tl.constexpr, FUSED: tl.constexpr,
    K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """What a program does when its sums are stored: the last of a group folds the group's, the last of all finishes."""
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    groups = tl.cdiv(programs, FAN_IN)
    group = program // FAN_IN
    first = group * FAN_IN
    members = tl.minimum(programs - first, FAN_IN)
    if arrive_last(counters_ptr + 1 + group, members):
        fold_slabs(stats_ptr, 0, first, members, programs + group, K, 0, 1, BLOCK_ROWS, K)
        if FUSED:
            for chunk in range(CHUNKS):
                fold_slabs(scratch_ptr, slab_size, first, members, programs + group, d, chunk, KINDS, K, BLOCK_D)
        if arrive_last(counters_ptr, groups):
            finish_rows(
                stats_ptr, programs, groups, programs + groups, factors_ptr, losses_ptr, loss_ptr, dbias_ptr, c_ptr,
                auxiliary, num_classes, d, classifier_scale, auxiliary_scale, auxiliary_weight, CONSTANT, DIRECTIONS,
                K, BLOCK_D, CHUNKS,
            )  # fmt: skip
            finished = stats_ptr + (programs + groups) * BLOCK_ROWS * K
            if FUSED:
                for chunk in range(CHUNKS):
                    finish_chunk(
                        scratch_ptr, slab_size, programs, groups, finished, w_ptr, dw_ptr, c_ptr, classifier_scale,
                        auxiliary, num_classes, d, chunk, UNIT_W, LENGTHS, MOVE, UPDATE, PUSH, K, BLOCK_D,
                    )  # fmt: skip
