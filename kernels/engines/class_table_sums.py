"""Second kernel of the class-table engine, for tables whose sums per class do not fit one program's registers."""

import triton
import triton.language as tl

from ..class_finish import finish_centers, finish_weights
from ..tiles import (
    FAN_IN,
    add_products,
    arrive_last,
    fold_chunk,
    load_chunk,
    read_labels,
    store_slab_chunk,
)


@triton.jit
def class_table_sums(
    x_ptr, y_ptr, w_ptr, c_ptr, dw_ptr, g_ptr, factors_ptr, stats_ptr, slabs_ptr, counters_ptr,
    auxiliary, n, num_classes, d, x_stride, scales_ptr, classifier_divisor,
    K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    UNIT_X: tl.constexpr, UNIT_W: tl.constexpr, LENGTHS: tl.constexpr, MOVE: tl.constexpr,
    UPDATE: tl.constexpr, PUSH: tl.constexpr, PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr,
):  # fmt: skip
    """The sums over rows of one chunk of columns, and their finish; a grid of (programs, chunks).

    Reads x a second time; G (n, K) and the factors (2, n) are read once for every chunk.
    """
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    chunk = tl.program_id(1)
    classes = tl.arange(0, K)
    w_sums = tl.zeros((K, BLOCK_D), tl.float32)
    c_sums = tl.zeros((K, BLOCK_D), tl.float32)
    push_sums = tl.zeros((K, BLOCK_D), tl.float32)
    for tile in range(program, tl.cdiv(n, BLOCK_N), programs):
        rows = tile * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        in_batch = rows < n
        y, valid = read_labels(y_ptr, rows, in_batch, num_classes, None)
        hot = (y[:, None] == classes[None, :]) & valid[:, None]
        x = load_chunk(x_ptr, rows, in_batch, x_stride, chunk, d, BLOCK_D)
        g = tl.zeros((BLOCK_N, K), tl.float32)
        push = g
        operand = x
        if dw_ptr is not None:
            g = tl.load(g_ptr + rows[:, None] * K + classes[None, :], mask=in_batch[:, None], other=0.0)
            if UNIT_X:
                factor = tl.load(factors_ptr + rows, mask=in_batch, other=0.0)
                operand = (x.to(tl.float32) * factor[:, None]).to(x.dtype)
        if PUSH:
            push_weight = tl.load(factors_ptr + n + rows, mask=in_batch, other=0.0)
            away = valid[:, None] & ~hot & (classes < num_classes)[None, :]
            push = tl.where(away, push_weight[:, None], 0.0)
        w_sums, c_sums, push_sums = add_products(
            x, operand, g, hot, push, w_sums, c_sums, push_sums,
            dw_ptr is not None, UPDATE, PUSH, PRECISION, TENSOR_CORES,
        )  # fmt: skip

    groups = tl.cdiv(programs, FAN_IN)
    group = program // FAN_IN
    members = tl.minimum(programs - group * FAN_IN, FAN_IN)
    counters_ptr += chunk * (groups + 1)
    slab_size = (programs + groups + 1).to(tl.int64) * K * d
    c_slabs_ptr = slabs_ptr
    if dw_ptr is not None:
        c_slabs_ptr += slab_size
    push_slabs_ptr = c_slabs_ptr + slab_size
    if dw_ptr is not None:
        store_slab_chunk(slabs_ptr, w_sums, program, d, chunk, K, BLOCK_D)
    if UPDATE:
        store_slab_chunk(c_slabs_ptr, c_sums, program, d, chunk, K, BLOCK_D)
    if PUSH:
        store_slab_chunk(push_slabs_ptr, push_sums, program, d, chunk, K, BLOCK_D)
    if arrive_last(counters_ptr + 1 + group, members):
        first = group * FAN_IN
        if dw_ptr is not None:
            total = fold_chunk(slabs_ptr, first, members, d, chunk, K, BLOCK_D)
            store_slab_chunk(slabs_ptr, total, programs + group, d, chunk, K, BLOCK_D)
        if UPDATE:
            total = fold_chunk(c_slabs_ptr, first, members, d, chunk, K, BLOCK_D)
            store_slab_chunk(c_slabs_ptr, total, programs + group, d, chunk, K, BLOCK_D)
        if PUSH:
            total = fold_chunk(push_slabs_ptr, first, members, d, chunk, K, BLOCK_D)
            store_slab_chunk(push_slabs_ptr, total, programs + group, d, chunk, K, BLOCK_D)
        if arrive_last(counters_ptr, groups):
            if dw_ptr is not None:
                classifier_scale = 1.0 / classifier_divisor
                if scales_ptr is not None:
                    classifier_scale *= tl.load(scales_ptr)
                total = fold_chunk(slabs_ptr, programs, groups, d, chunk, K, BLOCK_D)
                finish_weights(
                    total, stats_ptr, w_ptr, dw_ptr, classifier_scale, num_classes, d, chunk,
                    UNIT_W, LENGTHS, K, BLOCK_D,
                )  # fmt: skip
            if UPDATE:
                total = fold_chunk(c_slabs_ptr, programs, groups, d, chunk, K, BLOCK_D)
                away = total
                if PUSH:
                    away = fold_chunk(push_slabs_ptr, programs, groups, d, chunk, K, BLOCK_D)
                finish_centers(total, away, stats_ptr, c_ptr, auxiliary, num_classes, d, chunk, MOVE, K, BLOCK_D)
