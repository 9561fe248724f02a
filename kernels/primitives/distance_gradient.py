"""The gradient of distances to all centers."""

import triton
import triton.language as tl

from ..common.pair_tiles import compensated, load_rows, store_rows


@triton.jit(do_not_specialize=["n", "num_classes"])
def distance_gradient(
    grad, x, centers, dx, n, num_classes, d, grad_stride, x_stride, center_stride,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """dx_i = 2 Σ_j g_ij (x_i - c_j)."""
    first_row = tl.program_id(0) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    own = load_rows(x, first_row, rows < n, x_stride, columns, d).to(tl.float32)
    total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    error = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    grad += rows.to(tl.int64) * grad_stride
    centers += columns
    for start in range(0, num_classes, CHUNK):
        part = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        for place in tl.static_range(CHUNK):
            left = num_classes - start - place
            g = tl.load(grad + start + place, mask=(rows < n) & (left > tl.zeros_like(rows)), other=0.0)
            center = tl.load(centers, mask=(columns < d) & (left > tl.zeros_like(columns)), other=0.0).to(tl.float32)
            part += g[:, None] * (own - center[None, :])
            centers += center_stride
        total, error = compensated(total, error, part)
    store_rows(dx, first_row, d, columns, d, n, 2 * total)
