"""The correlation matrix."""

import triton
import triton.language as tl

from ..common.pair_tiles import chunked_similarities, store_rows


@triton.jit(do_not_specialize=["n"])
def similarity_matrix(
    u, matrix, n, d, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr
):
    """One tile of U Uᵀ (n, n)."""
    first_row, first_key = tl.program_id(0) * BLOCK_M, tl.program_id(1) * BLOCK_N
    rows, keys = first_row + tl.arange(0, BLOCK_M), first_key + tl.arange(0, BLOCK_N)
    s = chunked_similarities(
        u, first_row, rows < n, d, u, first_key, keys < n, d, d, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION
    )  # fmt: skip
    store_rows(matrix, first_row, n, keys, n, n, s)
