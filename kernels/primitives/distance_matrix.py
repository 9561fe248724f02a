"""Distances of rows to all centers."""

import triton
import triton.language as tl

from ..common.pair_tiles import squared_distances, store_rows


@triton.jit(do_not_specialize=["n", "num_classes"])
def distance_matrix(
    x, centers, distances, n, num_classes, d, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CHUNK: tl.constexpr
):
    """One tile of ‖x_i - c_j‖² (n, C) from tables laid out columns first."""
    first_row = tl.program_id(0) * BLOCK_M
    rows, keys = first_row + tl.arange(0, BLOCK_M), tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    tile = squared_distances(x, rows, centers, keys, d, CHUNK)
    store_rows(distances, first_row, num_classes, keys, num_classes, n, tile)
