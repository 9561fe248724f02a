"""All of it in one program and one launch, for batches as small as a launch is long."""

import triton
import triton.language as tl

from .arguments import VARYING
from .finish import finish
from .rows import rows
from .sums import sums
from .table_stats import table_stats


@triton.jit(do_not_specialize=VARYING)
def small(
    batch, tables, out, head, rule, n, num_classes, head_divisor, divisor, auxiliary_weight, programs, splits, summed,
    group_sizes, x_stride, group_strides, d: tl.constexpr, K: tl.constexpr, M: tl.constexpr, R: tl.constexpr,
    P: tl.constexpr, W: tl.constexpr, KINDS: tl.constexpr, SLOTS: tl.constexpr, UPDATE: tl.constexpr,
    WEIGHTED: tl.constexpr, MEAN: tl.constexpr, FUSED: tl.constexpr, STATS: tl.constexpr, HELD: tl.constexpr,
    BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr, PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr,
):  # fmt: skip
    """The four kernels one behind the other; a barrier lets each read what the one before wrote."""
    if STATS:
        table_stats(
            batch, tables, head, rule, n, num_classes, group_sizes, x_stride, group_strides, d, K, BLOCK_D, CHUNKS, R,
            P, W, SLOTS, WEIGHTED,
        )  # fmt: skip
        tl.debug_barrier()
    rows(
        batch, tables, out, head, rule, n, num_classes, head_divisor, divisor, auxiliary_weight, programs, splits,
        summed, group_sizes, x_stride, d, K, M, R, P, W, KINDS, SLOTS, UPDATE, WEIGHTED, MEAN, FUSED, HELD, PRECISION,
        TENSOR_CORES,
    )  # fmt: skip
    tl.debug_barrier()
    if KINDS > 0 and not FUSED:
        HEAD: tl.constexpr = out.dw is not None
        sums(
            batch, out, n, x_stride, d, K, KINDS, HEAD, UPDATE, R if R > 16 else 16, BLOCK_D, CHUNKS, TENSOR_CORES
        )  # fmt: skip
        tl.debug_barrier()
    finish(
        tables, out, head, rule, num_classes, head_divisor, divisor, auxiliary_weight, programs, splits, summed, d, K,
        BLOCK_D, CHUNKS, KINDS, SLOTS, UPDATE, WEIGHTED, FUSED,
    )  # fmt: skip
