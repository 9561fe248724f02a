"""Tiles of whole rows, folded: (R, P, W), row r's column p W + w at [r, p, w].

Products with a small table are shared out over the warps by parts of the columns, where each warp would else hold whole
operands. And a thread holds numbers of one row rather than of many: what is computed for a row is computed few times.
"""

import triton
import triton.language as tl


@triton.jit
def columns_of(P: tl.constexpr, W: tl.constexpr):
    """The column of each place of a row: (1, P, W)."""
    return tl.arange(0, P)[None, :, None] * W + tl.arange(0, W)[None, None, :]


@triton.jit
def load_tile(ptr, first, valid, stride, d, P: tl.constexpr, W: tl.constexpr):
    """Rows from `first` on, zero where not `valid` (R,) or past the width. Only the first row's offset is 64-bit."""
    columns = columns_of(P, W)
    at = ptr + tl.cast(first, tl.int64) * stride + (tl.arange(0, valid.shape[0])[:, None, None] * stride + columns)
    return tl.load(at, mask=valid[:, None, None] & (columns < d), other=0.0)


@triton.jit
def store_tile(ptr, tile, first, valid, d):
    """The store that mirrors :func:`load_tile`, rounded to the element type of `ptr`, rows d apart."""
    columns = columns_of(tile.shape[1], tile.shape[2])
    at = ptr + tl.cast(first, tl.int64) * d + (tl.arange(0, tile.shape[0])[:, None, None] * d + columns)
    tl.store(at, tile.to(ptr.dtype.element_ty), mask=valid[:, None, None] & (columns < d))


@triton.jit
def table_rows(ptr, rows, d, P: tl.constexpr, W: tl.constexpr):
    """Some rows (R,) of a small table (C, d), in float32."""
    columns = columns_of(P, W)
    return tl.load(ptr + (rows[:, None, None] * d + columns), mask=columns < d, other=0.0).to(tl.float32)


@triton.jit
def unfolded(tile):
    """A tile as a matrix: (R, P W)."""
    return tl.reshape(tile, (tile.shape[0], tile.shape[1] * tile.shape[2]))


@triton.jit
def folded(rows, P: tl.constexpr):
    """A matrix of rows as a tile."""
    return tl.reshape(rows, (rows.shape[0], P, rows.shape[1] // P))


@triton.jit
def row_sums(tile):
    """Σ over the columns of a tile: (R,)."""
    return tl.sum(unfolded(tile), 1)


@triton.jit
def _add_two(a, b, c, d):
    return a + c, b + d


@triton.jit
def two_row_sums(first, second):
    """:func:`row_sums` of two tiles, on one way through the warps."""
    return tl.reduce((unfolded(first), unfolded(second)), 1, _add_two)
