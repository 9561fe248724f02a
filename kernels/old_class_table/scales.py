"""Factors of the loss that must be known before the first gradient is written: Σ W_y of a weighted mean, α_v of MVA."""

import triton
import triton.language as tl

from ..common.tiles import arrive_last, load_chunk, load_per_class, read_labels
from .classifier_tiles import of_class
from .epilogues.mva import group_weight
from .table_tiles import center_spread, own_offset


@triton.jit
def row_values(
    x_ptr, y_ptr, c_ptr, weights, tile, n, num_classes, d, x_stride, status_ptr,
    K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr, DISTANCES: tl.constexpr,
):  # fmt: skip
    """‖x - c_y‖² and W_y of one tile of rows, 0 past the last: (BLOCK_N,) both."""
    rows = tile * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
    y, valid = read_labels(y_ptr, rows, rows < n, num_classes, status_ptr)
    own = tl.where((rows < n) & ~valid, float("nan"), 0.0)
    if DISTANCES:
        for chunk in range(CHUNKS):
            x = load_chunk(x_ptr, rows, valid, x_stride, chunk, d, BLOCK_D)
            offset = own_offset(x, y, valid, c_ptr, d, chunk, BLOCK_D)
            own += tl.sum(offset * offset, 1)
    hot = (y[:, None] == tl.arange(0, K)[None, :]) & valid[:, None]
    return own, of_class(hot, weights)


@triton.jit(do_not_specialize=["sizes", "n", "num_classes"])
def class_table_scales(
    x_ptr, y_ptr, class_weights_ptr, c_ptr, groups_x, groups_y, sizes, group_strides, status_ptr, scales_ptr,
    partials_ptr, counter_ptr, n, num_classes, d, x_stride,
    K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr, GROUPS: tl.constexpr,
    WEIGHTED: tl.constexpr, MVA: tl.constexpr, MEAN: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    """scales = (1 / Σ W_y if `WEIGHTED`, α_v if `MVA`), 1 where not asked for.

    Group 0 is the batch; the others lie where the bank has them: tuples of pointers to rows (sizes[v], d) and labels.
    One read of the labels; for MVA of the features and of the groups. Partial sums (programs, 2, GROUPS), of at most
    PROGRAMS programs, are added in a fixed order.
    """
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    slots = tl.arange(0, GROUPS)
    weights = load_per_class(class_weights_ptr, num_classes, 1.0, K)
    # α_v squares differences of these sums: their rounding would come back twice.
    distances = tl.zeros((GROUPS,), tl.float64)
    weight_sum = tl.zeros((BLOCK_N,), tl.float32)
    batch_tiles = tl.cdiv(n, BLOCK_N)
    for tile in range(program, batch_tiles, programs):
        own, weight = row_values(
            x_ptr, y_ptr, c_ptr, weights, tile, n, num_classes, d, x_stride, status_ptr,
            K, BLOCK_N, BLOCK_D, CHUNKS, MVA,
        )  # fmt: skip
        distances += tl.where(slots == 0, tl.sum(own.to(tl.float64), 0), 0.0)
        weight_sum += weight
    for v in tl.static_range(len(groups_x)):
        for tile in range(program, tl.cdiv(sizes[v], BLOCK_N), programs):
            own, _ = row_values(
                groups_x[v], groups_y[v], c_ptr, weights, tile, sizes[v], num_classes, d, group_strides[v], status_ptr,
                K, BLOCK_N, BLOCK_D, CHUNKS, MVA,
            )  # fmt: skip
            distances += tl.where(slots == v + 1, tl.sum(own.to(tl.float64), 0), 0.0)
    tl.store(partials_ptr + program * 2 * GROUPS + slots, distances)
    tl.store(partials_ptr + (program * 2 + 1) * GROUPS, tl.sum(weight_sum, 0))
    if arrive_last(counter_ptr, programs):
        parts = tl.arange(0, PROGRAMS)
        there = parts < programs
        if WEIGHTED:
            at = partials_ptr + (parts * 2 + 1) * GROUPS
            total = tl.sum(tl.load(at, mask=there, other=0.0, cache_modifier=".cg"), 0)
            tl.store(scales_ptr, 1 / tl.where(total == 0, 1.0, total))
        else:
            tl.store(scales_ptr, 1.0)
        if MVA:
            at = partials_ptr + parts[:, None] * 2 * GROUPS + slots[None, :]
            totals = tl.sum(tl.load(at, mask=there[:, None], other=0.0, cache_modifier=".cg"), 0)
            spread = center_spread(c_ptr, num_classes, d, K, BLOCK_D, CHUNKS).to(tl.float64)
            real = slots == 0
            counts = tl.where(real, n, 1)
            for v in tl.static_range(len(groups_x)):
                real = real | (slots == v + 1)
                counts = tl.where(slots == v + 1, sizes[v], counts)
            if not MEAN:
                counts = tl.full((GROUPS,), 1, tl.int32)
            losses = totals * (num_classes - 1) / (tl.sum(spread, 0) * counts)
            tl.store(scales_ptr + 1, group_weight(losses, real))
        else:
            tl.store(scales_ptr + 1, 1.0)
