"""The correlation matrix's gradient in its rows."""

import triton
import triton.language as tl

from ..common.pair_tiles import load_rows, store_rows


@triton.jit(do_not_specialize=["n"])
def similarity_gradient(
    u, grad, gradients, n, d, grad_stride,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dU_i = Σ_j (g_ij + g_ji) u_j. In float32 or TF32: an incoming gradient may leave the range of float16."""
    first_row = tl.program_id(0) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for start in range(0, n, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        g = load_rows(grad, first_row, rows < n, grad_stride, keys, n)
        g += tl.trans(load_rows(grad, start, keys < n, grad_stride, rows, n))
        key_tile = load_rows(u, start, keys < n, d, columns, d).to(tl.float32)
        total = tl.dot(g, key_tile, total, input_precision=PRECISION)
    store_rows(gradients, first_row, d, columns, d, n, total)
