"""Kernels of the class-table engine for up to 64 classes; :mod:`.class_table` launches them."""

import triton
import triton.language as tl

from ..class_finish import COUNT, P_SUM, PUSH_SUM, Q_SUM, STATS, finish_centers, finish_rows, finish_weights
from ..classifier_tiles import (
    class_operand,
    cross_entropy,
    load_per_class,
    of_class,
    own_products,
    products,
    row_lengths,
    row_operand,
)
from ..table_tiles import (
    anti_offset,
    center_spread,
    class_lengths,
    leave_one_out,
    others_offset,
    own_offset,
)
from ..tiles import (
    FAN_IN,
    add_products,
    arrive_last,
    float32_product,
    fold_chunk,
    fold_slabs,
    inverse_or_zero,
    load_chunk,
    load_tile,
    read_labels,
    store_chunk,
    store_slab_chunk,
    zeros_tile,
)


@triton.jit
def read_centers(
    c_ptr, rows_ptr, center_weights_ptr, scales_ptr, auxiliary, num_classes, d, CLASS_SCALAR: tl.constexpr,
    K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr, ANTI: tl.constexpr,
):  # fmt: skip
    """The loss's factor per class (K,), the spread of all ordered pairs, and what :func:`leave_one_out` returns."""
    squared = center_spread(c_ptr, num_classes, d, K, BLOCK_D, CHUNKS)
    whole = tl.sum(squared, 0)
    classes = num_classes.to(tl.float32)
    weights = load_per_class(center_weights_ptr, num_classes, 1.0, K)
    scalar = CLASS_SCALAR(weights, classes * squared + whole, whole / (classes - 1), auxiliary)
    if scales_ptr is not None:
        scalar *= tl.load(scales_ptr + 1)
    without = ()
    if ANTI:
        without = leave_one_out(squared, c_ptr, rows_ptr, num_classes, d, K, BLOCK_D, CHUNKS)
    return scalar, 2 * classes * whole, without


@triton.jit
def center_distances(
    x, y, valid, c_ptr, num_classes, d, without,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr, ANTI: tl.constexpr,
):  # fmt: skip
    """‖x - c_y‖² and ‖x - c̄₋y‖² of a tile: (ROWS,) both."""
    own = tl.zeros((ROWS,), tl.float32)
    anti = tl.zeros((ROWS,), tl.float32)
    for chunk in tl.static_range(CHUNKS):
        offset = own_offset(x[chunk], y, valid, c_ptr, d, chunk, BLOCK_D)
        own += tl.sum(offset * offset, 1)
        if ANTI:
            offset = anti_offset(x[chunk], y, valid, c_ptr, num_classes, d, without, chunk, BLOCK_D)
            anti += tl.sum(offset * offset, 1)
    return own, anti


@triton.jit
def sums_so_far(
    slabs_ptr, sums, shape, chunk, USED: tl.constexpr, RESIDENT: tl.constexpr, K: tl.constexpr, BLOCK_D: tl.constexpr
):
    """A chunk of this program's sums (K, BLOCK_D): from registers, or from its slab if an `earlier` tile left any.

    The slab of a program that runs stays in the caches, and takes no registers where rows are wide.
    """
    earlier, num_classes, d = shape
    if USED and not RESIDENT:
        classes = tl.arange(0, K)
        there = earlier & (classes < num_classes)
        sums = load_chunk(slabs_ptr, tl.program_id(0) * K + classes, there, d, chunk, d, BLOCK_D)
    return sums


@triton.jit
def keep_sums(
    slabs_ptr, sums, shape, chunk, USED: tl.constexpr, RESIDENT: tl.constexpr, K: tl.constexpr, BLOCK_D: tl.constexpr
):
    """Puts back what :func:`sums_so_far` took from the slab; the first tile writes rows past the last class too."""
    earlier, num_classes, d = shape
    if USED and not RESIDENT:
        classes = tl.arange(0, K)
        written = (classes < num_classes) | ~earlier
        store_chunk(slabs_ptr, sums, tl.program_id(0) * K + classes, written, d, chunk, d, BLOCK_D)


@triton.jit
def class_table_rows(
    x_ptr, y_ptr, w_ptr, bias_ptr, class_weights_ptr, c_ptr, center_weights_ptr, scales_ptr, status_ptr,
    losses_ptr, loss_ptr, dx_ptr, dw_ptr, dbias_ptr, stats_ptr, slabs_ptr, counters_ptr, rows_ptr, g_ptr, factors_ptr,
    classifier, auxiliary, n, num_classes, x_stride, classifier_divisor, divisor, auxiliary_weight,
    d: tl.constexpr, K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
    PARTS: tl.constexpr, CLASSIFIER: tl.constexpr, LOGITS: tl.constexpr, CHAIN: tl.constexpr,
    UNIT_X: tl.constexpr, UNIT_W: tl.constexpr, LENGTHS: tl.constexpr, EXACT_OWN: tl.constexpr,
    AUXILIARY: tl.constexpr, ROW_LOSS: tl.constexpr, CLASS_SCALAR: tl.constexpr, CONSTANT: tl.constexpr,
    PUSH_WEIGHT: tl.constexpr, PAPER_SLOPE: tl.constexpr, MOVE: tl.constexpr,
    SPREAD: tl.constexpr, ANTI: tl.constexpr, DIRECTIONS: tl.constexpr, PAPER: tl.constexpr, UPDATE: tl.constexpr,
    PUSH: tl.constexpr, FUSED: tl.constexpr, RESIDENT: tl.constexpr,
    PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr,
):  # fmt: skip
    """Loss and gradients of a strided set of row tiles; the last program finishes what is summed over rows.

    Every program is done with the old centers before it arrives, so the last one may overwrite them. With RESIDENT a
    program's sums stay in registers, else in its slab; unless FUSED, they are left to :func:`class_table_sums`, which
    finds G, 1/‖x‖ and the push weights stored.
    """
    program = tl.program_id(0)
    WEIGHTS: tl.constexpr = dw_ptr is not None
    classes = tl.arange(0, K)
    others = (num_classes - 1).to(tl.float32)
    w_length = tl.zeros((K,), tl.float32)
    scalar = tl.zeros((K,), tl.float32)
    without = ()
    spread_total = 0.0
    classifier_scale = 1.0 / classifier_divisor
    if CLASSIFIER:
        bias = load_per_class(bias_ptr, num_classes, 0.0, K)
        weights = load_per_class(class_weights_ptr, num_classes, 1.0, K)
        if LENGTHS:
            w_length = class_lengths(w_ptr, num_classes, d, K, BLOCK_D, CHUNKS)
        if scales_ptr is not None:
            classifier_scale *= tl.load(scales_ptr)
    if SPREAD:
        scalar, spread_total, without = read_centers(
            c_ptr,
            rows_ptr,
            center_weights_ptr,
            scales_ptr,
            auxiliary,
            num_classes,
            d,
            CLASS_SCALAR,
            K,
            BLOCK_D,
            CHUNKS,
            ANTI,
        )
    gradient_scale = auxiliary_weight / divisor

    p_sum = tl.zeros((K,), tl.float32)
    count = tl.zeros((K,), tl.float32)
    push_sum = tl.zeros((K,), tl.float32)
    q_sum = tl.zeros((K,), tl.float32)
    classifier_loss = tl.zeros((), tl.float64)
    auxiliary_loss = tl.zeros((), tl.float64)
    w_sums = zeros_tile(K, BLOCK_D, CHUNKS)
    c_sums = zeros_tile(K, BLOCK_D, CHUNKS)
    push_sums = zeros_tile(K, BLOCK_D, CHUNKS)
    programs = tl.num_programs(0)
    groups = tl.cdiv(programs, FAN_IN)
    slab_size = (programs + groups + 1).to(tl.int64) * K * d
    c_slabs_ptr = slabs_ptr
    if FUSED and WEIGHTS:
        c_slabs_ptr += slab_size
    push_slabs_ptr = c_slabs_ptr
    if FUSED:
        push_slabs_ptr += slab_size
    for tile in tl.range(program, tl.cdiv(n, BLOCK_N), tl.num_programs(0), disable_licm=True):
        rows = tile * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        in_batch = rows < n
        y, valid = read_labels(y_ptr, rows, in_batch, num_classes, status_ptr)
        hot = (y[:, None] == classes[None, :]) & valid[:, None]
        unlabelled = tl.where(in_batch & ~valid, float("nan"), 0.0)
        x = load_tile(x_ptr, rows, in_batch, x_stride, d, BLOCK_D, CHUNKS)
        factor = tl.full((BLOCK_N,), 1.0, tl.float32)
        g = tl.zeros((BLOCK_N, K), tl.float32)
        push = g

        if CLASSIFIER:
            x_length, factor = row_lengths(x, UNIT_X, LENGTHS, BLOCK_N, CHUNKS)
            dot = products(
                x, factor, w_ptr, w_length, num_classes, d, UNIT_W, PRECISION, TENSOR_CORES,
                BLOCK_N, K, BLOCK_D, CHUNKS, PARTS,
            )  # fmt: skip
            if EXACT_OWN:
                dot = tl.where(hot, own_products(x, y, valid, w_ptr, d, BLOCK_N, BLOCK_D, CHUNKS)[:, None], dot)
                if UNIT_W:
                    dot = tl.where(hot, dot * inverse_or_zero(w_length)[None, :], dot)
            losses, p = cross_entropy(
                dot, hot, valid, x_length, w_length, bias, weights, num_classes, LOGITS, classifier
            )
            g, r, q = CHAIN(p, dot, hot, x_length, w_length, classifier)
            classifier_loss += tl.sum((losses + unlabelled).to(tl.float64), 0)
            p_sum += tl.sum(p, 0)
            q_sum += tl.sum(q, 0)
        if AUXILIARY:
            own, anti = center_distances(x, y, valid, c_ptr, num_classes, d, without, BLOCK_N, BLOCK_D, CHUNKS, ANTI)
            if ANTI:
                anti = others * anti + of_class(hot, without[0])
            losses, d_own, d_anti = ROW_LOSS(own, anti, of_class(hot, scalar), auxiliary)
            auxiliary_loss += tl.sum((tl.where(valid, losses, 0.0) + unlabelled).to(tl.float64), 0)
            count += tl.sum(tl.where(hot, tl.where(own - own == 0, 1.0, float("nan"))[:, None], 0.0), 0)
            if PUSH:
                away = valid[:, None] & ~hot & (classes < num_classes)[None, :]
                push = tl.where(away, PUSH_WEIGHT(anti, auxiliary)[:, None], 0.0)
                push_sum += tl.sum(push, 0)

        earlier = tl.zeros_like(classes) + (tile - program) > 0
        new_w, new_c, new_push = (), (), ()
        for chunk in tl.static_range(CHUNKS):
            if dx_ptr is not None:
                dx = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
                if CLASSIFIER:
                    w = class_operand(w_ptr, w_length, num_classes, d, UNIT_W, x[0].dtype, chunk, K, BLOCK_D)
                    dx = float32_product(g.to(w.dtype), w, PRECISION, TENSOR_CORES)
                    if LENGTHS:
                        dx += (r * inverse_or_zero(x_length))[:, None] * x[chunk].to(tl.float32)
                    dx *= (factor * classifier_scale)[:, None]
                if AUXILIARY:
                    slope = tl.where(valid, 2 * gradient_scale * d_own, 0.0)[:, None]
                    dx += slope * own_offset(x[chunk], y, valid, c_ptr, d, chunk, BLOCK_D)
                if ANTI:
                    slope = tl.where(valid, 2 * gradient_scale * others * d_anti, 0.0)[:, None]
                    dx += slope * anti_offset(x[chunk], y, valid, c_ptr, num_classes, d, without, chunk, BLOCK_D)
                if PAPER:
                    slope = tl.where(valid, gradient_scale * PAPER_SLOPE(spread_total, auxiliary), 0.0)[:, None]
                    dx += slope * others_offset(y, valid, c_ptr, num_classes, d, without, chunk, BLOCK_D)
                store_chunk(dx_ptr, dx, rows, in_batch, d, chunk, d, BLOCK_D)
            if FUSED:
                shape = (earlier, num_classes, d)
                w_sum = sums_so_far(slabs_ptr, w_sums[chunk], shape, chunk, WEIGHTS, RESIDENT, K, BLOCK_D)
                c_sum = sums_so_far(c_slabs_ptr, c_sums[chunk], shape, chunk, UPDATE, RESIDENT, K, BLOCK_D)
                away_sum = sums_so_far(push_slabs_ptr, push_sums[chunk], shape, chunk, PUSH, RESIDENT, K, BLOCK_D)
                w_sum, c_sum, away_sum = add_products(
                    x[chunk], row_operand(x[chunk], factor, UNIT_X), g, hot, push, w_sum, c_sum, away_sum,
                    WEIGHTS, UPDATE, PUSH, PRECISION, TENSOR_CORES,
                )  # fmt: skip
                keep_sums(slabs_ptr, w_sum, shape, chunk, WEIGHTS, RESIDENT, K, BLOCK_D)
                keep_sums(c_slabs_ptr, c_sum, shape, chunk, UPDATE, RESIDENT, K, BLOCK_D)
                keep_sums(push_slabs_ptr, away_sum, shape, chunk, PUSH, RESIDENT, K, BLOCK_D)
                if RESIDENT:
                    new_w += (w_sum,)
                    new_c += (c_sum,)
                    new_push += (away_sum,)
        if RESIDENT:
            w_sums, c_sums, push_sums = new_w, new_c, new_push
        elif FUSED:
            tl.debug_barrier()  # another thread may read what this one put into the slab
        else:
            if dw_ptr is not None:
                tl.store(g_ptr + rows[:, None] * K + classes[None, :], g, mask=in_batch[:, None])
                tl.store(factors_ptr + rows, factor, mask=in_batch)
            if PUSH:
                tl.store(factors_ptr + n + rows, tl.where(valid, PUSH_WEIGHT(anti, auxiliary), 0.0), mask=in_batch)

    slot = tl.arange(0, STATS)[:, None]
    block = tl.where(slot == P_SUM, p_sum[None, :], tl.where(slot == COUNT, count[None, :], 0.0))
    block = tl.where(slot == PUSH_SUM, push_sum[None, :], tl.where(slot == Q_SUM, q_sum[None, :], block))
    store_slab_chunk(stats_ptr, block, program, K, 0, STATS, K)
    tl.store(losses_ptr + 2 * program, classifier_loss)
    tl.store(losses_ptr + 2 * program + 1, auxiliary_loss)
    for chunk in tl.static_range(CHUNKS):
        if RESIDENT and WEIGHTS:
            store_slab_chunk(slabs_ptr, w_sums[chunk], program, d, chunk, K, BLOCK_D)
        if RESIDENT and UPDATE:
            store_slab_chunk(c_slabs_ptr, c_sums[chunk], program, d, chunk, K, BLOCK_D)
        if RESIDENT and PUSH:
            store_slab_chunk(push_slabs_ptr, push_sums[chunk], program, d, chunk, K, BLOCK_D)

    group = program // FAN_IN
    members = tl.minimum(programs - group * FAN_IN, FAN_IN)
    if arrive_last(counters_ptr + 1 + group, members):
        fold_slabs(stats_ptr, group * FAN_IN, members, programs + group, K, STATS, K, 1)
        if FUSED and WEIGHTS:
            fold_slabs(slabs_ptr, group * FAN_IN, members, programs + group, d, K, BLOCK_D, CHUNKS)
        if FUSED and UPDATE:
            fold_slabs(c_slabs_ptr, group * FAN_IN, members, programs + group, d, K, BLOCK_D, CHUNKS)
        if FUSED and PUSH:
            fold_slabs(push_slabs_ptr, group * FAN_IN, members, programs + group, d, K, BLOCK_D, CHUNKS)
        if arrive_last(counters_ptr, groups):
            finish_rows(
                stats_ptr, programs, groups, programs + groups, losses_ptr, loss_ptr, dbias_ptr, w_length, scalar,
                spread_total, c_ptr, auxiliary, num_classes, d, classifier_scale, divisor, auxiliary_weight,
                CONSTANT, DIRECTIONS, K, BLOCK_D, CHUNKS,
            )  # fmt: skip
            finished = stats_ptr + (programs + groups) * STATS * K
            for chunk in tl.static_range(CHUNKS):
                if FUSED and WEIGHTS:
                    total = fold_chunk(slabs_ptr, programs, groups, d, chunk, K, BLOCK_D)
                    finish_weights(
                        total, finished, w_ptr, dw_ptr, classifier_scale, num_classes, d, chunk,
                        UNIT_W, LENGTHS, K, BLOCK_D,
                    )  # fmt: skip
                if FUSED and UPDATE:
                    total = fold_chunk(c_slabs_ptr, programs, groups, d, chunk, K, BLOCK_D)
                    away = total
                    if PUSH:
                        away = fold_chunk(push_slabs_ptr, programs, groups, d, chunk, K, BLOCK_D)
                    finish_centers(total, away, finished, c_ptr, auxiliary, num_classes, d, chunk, MOVE, K, BLOCK_D)
