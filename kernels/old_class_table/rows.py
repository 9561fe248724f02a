"""Kernel of the class-table engine for up to 64 classes; :mod:`.launch` launches it."""

import triton
import triton.language as tl

from ..ad_corre.slabs import BLOCK_ROWS, FAN_IN, store_slab_chunk, store_sums
from ..common.products import labelled_sums, weighted_sums
from ..common.tiles import load_per_class, read_labels, zeros_tile
from .chunks import add_rows, rows_in_chunks
from .class_finish import finish_launch
from .classifier_tiles import classify
from .gradient_tiles import write_gradient
from .table_tiles import center_distances, class_lengths, read_centers, unit_rows


@triton.jit
def attract(
    x, y, valid, hot, unlabelled, c_ptr, num_classes, d, factors_ptr, without, scale, a,
    ROW_LOSS: tl.constexpr, PUSH_WEIGHT: tl.constexpr, PAPER_SLOPE: tl.constexpr, ANTI: tl.constexpr,
    BLOCK_N: tl.constexpr, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """The center loss of a tile: its sum in float64, rows per class, slopes of its distances, and p (rows,).

    `factors_ptr` has the lengths of the class weights, then what :func:`read_centers` returns for each class.
    """
    others = (num_classes - 1).to(tl.float32)
    own, anti = center_distances(x, y, valid, c_ptr, num_classes, d, without, ANTI, BLOCK_N, BLOCK_D, CHUNKS)
    scalar = tl.load(factors_ptr + K + y, mask=valid, other=0.0)
    if ANTI:
        anti = others * anti + tl.load(factors_ptr + 3 * K + y, mask=valid, other=0.0)
    losses, d_own, d_anti = ROW_LOSS(own, anti, scalar, a)
    loss = tl.sum((tl.where(valid, losses, 0.0) + unlabelled).to(tl.float64), 0)
    count = tl.sum(tl.where(hot, tl.where(own - own == 0, 1.0, float("nan"))[:, None], 0.0), 0)
    slopes = (
        tl.where(valid, 2 * scale * d_own, 0.0),
        tl.where(valid, 2 * scale * others * d_anti, 0.0),
        tl.where(valid, scale * PAPER_SLOPE(tl.load(factors_ptr + 2 * K), a), 0.0),
    )
    return loss, count, slopes, tl.where(valid, PUSH_WEIGHT(anti, a), 0.0)


@triton.jit
def scratch_of(scratch_ptr, slabs, d, K: tl.constexpr):
    """Where a launch keeps its sums: `slabs` kinds of slabs (K, d), then blocks of sums per class, of every program, of
    every group, and finished (of twice the rows); then what is found of the tables before any row is read: a block of
    properties of the classes, and tables (C, d). That every program finds and puts there for itself, the same bits to
    the same place, so none waits for another and there is one copy.

    Returns the size of one kind, and where blocks and properties begin: found again where they are used, for pointers
    would take registers in between.
    """
    blocks = tl.num_programs(0) + tl.cdiv(tl.num_programs(0), FAN_IN) + 1
    slab_size = blocks.to(tl.int64) * K * d
    stats_ptr = scratch_ptr + slabs * slab_size
    return slab_size, stats_ptr, stats_ptr + (blocks + 1) * BLOCK_ROWS * K


@triton.jit(do_not_specialize=["n", "num_classes", "classifier_divisor", "divisor"])
def class_table_rows(
    x_ptr, y_ptr, w_ptr, bias_ptr, class_weights_ptr, c_ptr, center_weights_ptr, scales_ptr, status_ptr,
    losses_ptr, loss_ptr, dx_ptr, dw_ptr, dbias_ptr, scratch_ptr, counters_ptr, g_ptr, push_ptr,
    classifier, auxiliary, n, num_classes, x_stride, classifier_divisor, divisor, auxiliary_weight,
    d: tl.constexpr, K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
    PARTS: tl.constexpr, CLASSIFIER: tl.constexpr, LOGITS: tl.constexpr, CHAIN: tl.constexpr,
    UNIT_X: tl.constexpr, UNIT_W: tl.constexpr, LENGTHS: tl.constexpr, EXACT_OWN: tl.constexpr,
    AUXILIARY: tl.constexpr, ROW_LOSS: tl.constexpr, CLASS_SCALAR: tl.constexpr, CONSTANT: tl.constexpr,
    PUSH_WEIGHT: tl.constexpr, PAPER_SLOPE: tl.constexpr, MOVE: tl.constexpr,
    SPREAD: tl.constexpr, ANTI: tl.constexpr, DIRECTIONS: tl.constexpr, PAPER: tl.constexpr, UPDATE: tl.constexpr,
    PUSH: tl.constexpr, KINDS: tl.constexpr, FUSED: tl.constexpr, RESIDENT: tl.constexpr,
    PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr,
):  # fmt: skip
    """Loss and gradients of a strided set of row tiles; the last program finishes what is summed over rows.

    Every program is done with the old centers before it arrives, so the last one may overwrite them. With RESIDENT a
    program's sums stay in registers, else in its slab; unless FUSED, they are left to :func:`class_table_sums`, which
    finds the weights of the rows, G and p, stored.
    """
    program = tl.program_id(0)
    WEIGHTS: tl.constexpr = dw_ptr is not None
    SLABS: tl.constexpr = KINDS if FUSED else 0
    programs = tl.num_programs(0)
    classes = tl.arange(0, K)
    w_length = tl.zeros((K,), tl.float32)
    factors = (w_length, w_length, w_length)
    without = ()
    # The tables by wider chunks than the rows: fewer trips, and nothing of theirs is kept in registers for the rows.
    TABLE_D: tl.constexpr = BLOCK_D * 2 if CHUNKS > 1 else BLOCK_D
    TABLE_CHUNKS: tl.constexpr = (CHUNKS + 1) // 2
    classifier_scale = 1.0 / classifier_divisor
    _, _, factors_ptr = scratch_of(scratch_ptr, SLABS, d, K)
    tables_ptr = factors_ptr + BLOCK_ROWS * K
    operand_ptr = w_ptr
    if CLASSIFIER:
        bias = load_per_class(bias_ptr, num_classes, 0.0, K)
        weights = load_per_class(class_weights_ptr, num_classes, 1.0, K)
        if LENGTHS:
            w_length = class_lengths(w_ptr, num_classes, d, K, TABLE_D, TABLE_CHUNKS)
        if UNIT_W:
            unit_rows(w_ptr, w_length, tables_ptr, num_classes, d, K, TABLE_D, TABLE_CHUNKS)
            operand_ptr = tables_ptr
        if scales_ptr is not None:
            classifier_scale *= tl.load(scales_ptr)
    if SPREAD:
        factors, without = read_centers(
            c_ptr, tables_ptr + UNIT_W * num_classes * d, center_weights_ptr, scales_ptr, auxiliary, num_classes, d,
            CLASS_SCALAR, K, TABLE_D, TABLE_CHUNKS, ANTI,
        )  # fmt: skip
    # All this is read again at every tile, and at the finish: it takes no registers in between.
    store_sums(factors_ptr, 0, (w_length, factors[0], factors[1], factors[2]), K)
    tl.debug_barrier()
    auxiliary_scale = auxiliary_weight / divisor

    p_sum = tl.zeros((K,), tl.float32)
    count = tl.zeros((K,), tl.float32)
    push_sum = tl.zeros((K,), tl.float32)
    q_sum = tl.zeros((K,), tl.float32)
    classifier_loss = tl.zeros((), tl.float64)
    auxiliary_loss = tl.zeros((), tl.float64)
    w_sums = zeros_tile(K, BLOCK_D, CHUNKS)
    c_sums = zeros_tile(K, BLOCK_D, CHUNKS)
    push_sums = zeros_tile(K, BLOCK_D, CHUNKS)
    w_slab_ptr, c_slab_ptr, push_slab_ptr = None, None, None
    if FUSED and not RESIDENT:
        slab_size, _, _ = scratch_of(scratch_ptr, SLABS, d, K)
        w_slab_ptr = scratch_ptr + program.to(tl.int64) * K * d
        c_slab_ptr = w_slab_ptr + WEIGHTS * slab_size
        push_slab_ptr = c_slab_ptr + slab_size
    for tile in tl.range(program, tl.cdiv(n, BLOCK_N), programs, disable_licm=True):
        rows = tile * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        in_batch = rows < n
        y, valid = read_labels(y_ptr, rows, in_batch, num_classes, status_ptr)
        hot = (y[:, None] == classes[None, :]) & valid[:, None]
        unlabelled = tl.where(in_batch & ~valid, float("nan"), 0.0)
        x = rows_in_chunks(x_ptr, rows, in_batch, x_stride, d, FUSED, BLOCK_D, CHUNKS)
        head, pull = (), ()
        if CLASSIFIER:
            losses, p, chained, x_length, factor = classify(
                x, y, valid, hot, operand_ptr, w_length, bias, weights, num_classes, d, classifier,
                LOGITS, CHAIN, UNIT_X, LENGTHS, EXACT_OWN, PRECISION, TENSOR_CORES,
                BLOCK_N, K, BLOCK_D, CHUNKS, PARTS,
            )  # fmt: skip
            g, r, q = chained
            classifier_loss += tl.sum((losses + unlabelled).to(tl.float64), 0)
            p_sum += tl.sum(p, 0)
            q_sum += tl.sum(q, 0)
            head = (g, r, x_length, factor * classifier_scale)
        if AUXILIARY:
            loss, members, slopes, push = attract(
                x, y, valid, hot, unlabelled, c_ptr, num_classes, d, factors_ptr, without, auxiliary_scale, auxiliary,
                ROW_LOSS, PUSH_WEIGHT, PAPER_SLOPE, ANTI, BLOCK_N, K, BLOCK_D, CHUNKS,
            )  # fmt: skip
            auxiliary_loss += loss
            count += members
            pull = (y, valid, slopes, without)
            if PUSH:
                away = valid[:, None] & ~hot & (classes < num_classes)[None, :]
                pushes = tl.where(away, push[:, None], 0.0)
                push_sum += tl.sum(pushes, 0)

        if dx_ptr is not None:
            write_gradient(
                dx_ptr, rows, in_batch, x, head, pull, operand_ptr, c_ptr, num_classes, d,
                LENGTHS, ANTI, PAPER, PRECISION, TENSOR_CORES, BLOCK_D, CHUNKS,
            )  # fmt: skip
        if WEIGHTS:
            weights_of_rows = g * factor[:, None] if UNIT_X else g
        if FUSED:
            earlier = tl.zeros_like(classes) + (tile - program) > 0
            if WEIGHTS:
                w_sums = add_rows(
                    w_sums, w_slab_ptr, weights_of_rows, x, earlier, num_classes, d, weighted_sums, RESIDENT,
                    PRECISION, TENSOR_CORES, K, BLOCK_D, CHUNKS,
                )  # fmt: skip
            if UPDATE:
                c_sums = add_rows(
                    c_sums, c_slab_ptr, hot, x, earlier, num_classes, d, labelled_sums, RESIDENT,
                    PRECISION, TENSOR_CORES, K, BLOCK_D, CHUNKS,
                )  # fmt: skip
            if PUSH:
                push_sums = add_rows(
                    push_sums, push_slab_ptr, pushes, x, earlier, num_classes, d, weighted_sums, RESIDENT,
                    "ieee", TENSOR_CORES, K, BLOCK_D, CHUNKS,
                )  # fmt: skip
            if not RESIDENT:
                tl.debug_barrier()  # another thread may read what this one put into the slab
        else:
            if WEIGHTS:
                tl.store(g_ptr + rows[:, None] * K + classes[None, :], weights_of_rows, mask=in_batch[:, None])
            if PUSH:
                tl.store(push_ptr + rows, push, mask=in_batch)

    slab_size, stats_ptr, factors_ptr = scratch_of(scratch_ptr, SLABS, d, K)
    store_sums(stats_ptr, program, (p_sum, count, push_sum, q_sum), K)
    tl.store(losses_ptr + 2 * program, classifier_loss)
    tl.store(losses_ptr + 2 * program + 1, auxiliary_loss)
    for chunk in tl.static_range(CHUNKS):
        if RESIDENT and WEIGHTS:
            store_slab_chunk(scratch_ptr, w_sums[chunk], program, d, chunk, K, BLOCK_D)
        if RESIDENT and UPDATE:
            store_slab_chunk(scratch_ptr + WEIGHTS * slab_size, c_sums[chunk], program, d, chunk, K, BLOCK_D)
        if RESIDENT and PUSH:
            store_slab_chunk(scratch_ptr + (WEIGHTS + 1) * slab_size, push_sums[chunk], program, d, chunk, K, BLOCK_D)
    finish_launch(
        scratch_ptr, stats_ptr, slab_size, factors_ptr, counters_ptr, losses_ptr, loss_ptr, dbias_ptr, w_ptr, dw_ptr,
        c_ptr, auxiliary, num_classes, d, classifier_scale, auxiliary_scale, auxiliary_weight,
        CONSTANT, DIRECTIONS, UNIT_W, LENGTHS, MOVE, UPDATE, PUSH, KINDS, FUSED, K, BLOCK_D, CHUNKS,
    )  # fmt: skip
