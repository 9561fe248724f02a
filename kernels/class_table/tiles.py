"""Tiles of whole rows, folded: column p W + w of row r at [r, p, w], or at [p, r, w].

Products with a small table are shared out over the warps by parts of the columns, where each warp would else hold whole
operands. And neighbouring threads take neighbouring rows: what is computed for a row is computed few times. For that
the rows must come first or second, as Triton breaks a tie between dimensions that are both far apart in memory.
"""

import triton
import triton.language as tl

from ..host.chips import TRITON

ROWS_FIRST = tl.constexpr(TRITON < (3, 8))


@triton.jit
def along_rows(values):
    """Numbers of rows (R,), to be combined with a tile."""
    return values[:, None, None] if ROWS_FIRST else values[None, :, None]


@triton.jit
def columns_of(P: tl.constexpr, W: tl.constexpr):
    """The column of each place of a row, to be combined with a tile."""
    parts = tl.arange(0, P)[None, :, None] if ROWS_FIRST else tl.arange(0, P)[:, None, None]
    return parts * W + tl.arange(0, W)[None, None, :]


@triton.jit
def load_tile(ptr, first, valid, stride, d, P: tl.constexpr, W: tl.constexpr):
    """Rows from `first` on, zero where not `valid` (R,) or past the width. Only the first row's offset is 64-bit."""
    columns = columns_of(P, W)
    at = ptr + tl.cast(first, tl.int64) * stride + (along_rows(tl.arange(0, valid.shape[0])) * stride + columns)
    return tl.load(at, mask=along_rows(valid) & (columns < d), other=0.0)


@triton.jit
def store_tile(ptr, tile, first, valid, d, P: tl.constexpr, W: tl.constexpr):
    """The store that mirrors :func:`load_tile`, rounded to the element type of `ptr`, rows d apart."""
    columns = columns_of(P, W)
    at = ptr + tl.cast(first, tl.int64) * d + (along_rows(tl.arange(0, valid.shape[0])) * d + columns)
    tl.store(at, tile.to(ptr.dtype.element_ty), mask=along_rows(valid) & (columns < d))


@triton.jit
def table_rows(ptr, rows, d, P: tl.constexpr, W: tl.constexpr):
    """Some rows (R,) of a small table (C, d), in float32."""
    columns = columns_of(P, W)
    return tl.load(ptr + (along_rows(rows) * d + columns), mask=columns < d, other=0.0).to(tl.float32)


@triton.jit
def by_parts(tile):
    """A tile as a batch of its parts, for products: (P, R, W)."""
    return tl.permute(tile, (1, 0, 2)) if ROWS_FIRST else tile


@triton.jit
def unfolded(tile):
    """A tile as a matrix: (R, P W)."""
    rows = tile if ROWS_FIRST else tl.permute(tile, (1, 0, 2))
    return tl.reshape(rows, (rows.shape[0], rows.shape[1] * rows.shape[2]))


@triton.jit
def folded(rows, P: tl.constexpr):
    """A matrix of rows as a tile."""
    tile = tl.reshape(rows, (rows.shape[0], P, rows.shape[1] // P))
    return tile if ROWS_FIRST else tl.permute(tile, (1, 0, 2))


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
