"""Second kernel of the class-table engine, for tables whose sums per class do not fit one program's registers."""

import triton
import triton.language as tl

from ..ad_corre.slabs import FAN_IN, fold_slabs, store_slab_chunk
from ..common.products import labelled_sums, weighted_sums
from ..common.tiles import arrive_last, load_chunk, read_labels
from .class_finish import finish_chunk


@triton.jit(do_not_specialize=["n", "num_classes", "classifier_divisor"])
def class_table_sums(
    x_ptr, y_ptr, w_ptr, c_ptr, dw_ptr, g_ptr, push_ptr, stats_ptr, slabs_ptr, counters_ptr,
    auxiliary, n, num_classes, d, x_stride, scales_ptr, classifier_divisor,
    K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, KINDS: tl.constexpr,
    UNIT_W: tl.constexpr, LENGTHS: tl.constexpr, MOVE: tl.constexpr,
    UPDATE: tl.constexpr, PUSH: tl.constexpr, PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr,
):  # fmt: skip
    """The sums over rows of one chunk of columns, and their finish; a grid of (programs, chunks).

    Reads x a second time; the weights of its rows, G (n, K) and p (n,), are read once for every chunk.
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
        if dw_ptr is not None:
            g = tl.load(g_ptr + rows[:, None] * K + classes[None, :], mask=in_batch[:, None], other=0.0)
            w_sums += weighted_sums(g, x, PRECISION, TENSOR_CORES)
        if UPDATE:
            c_sums += labelled_sums(hot, x, PRECISION, TENSOR_CORES)
        if PUSH:
            push_weight = tl.load(push_ptr + rows, mask=in_batch, other=0.0)
            away = valid[:, None] & ~hot & (classes < num_classes)[None, :]
            push_sums += weighted_sums(tl.where(away, push_weight[:, None], 0.0), x, "ieee", TENSOR_CORES)

    groups = tl.cdiv(programs, FAN_IN)
    group = program // FAN_IN
    members = tl.minimum(programs - group * FAN_IN, FAN_IN)
    counters_ptr += chunk * (groups + 1)
    slab_size = (programs + groups + 1).to(tl.int64) * K * d
    at = slabs_ptr
    if dw_ptr is not None:
        store_slab_chunk(at, w_sums, program, d, chunk, K, BLOCK_D)
        at += slab_size
    if UPDATE:
        store_slab_chunk(at, c_sums, program, d, chunk, K, BLOCK_D)
    if PUSH:
        store_slab_chunk(at + slab_size, push_sums, program, d, chunk, K, BLOCK_D)
    if arrive_last(counters_ptr + 1 + group, members):
        fold_slabs(slabs_ptr, slab_size, group * FAN_IN, members, programs + group, d, chunk, KINDS, K, BLOCK_D)
        if arrive_last(counters_ptr, groups):
            classifier_scale = 1.0 / classifier_divisor
            if scales_ptr is not None:
                classifier_scale *= tl.load(scales_ptr)
            finish_chunk(
                slabs_ptr, slab_size, programs, groups, stats_ptr, w_ptr, dw_ptr, c_ptr, classifier_scale, auxiliary,
                num_classes, d, chunk, UNIT_W, LENGTHS, MOVE, UPDATE, PUSH, K, BLOCK_D,
            )  # fmt: skip
