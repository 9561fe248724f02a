"""Device helpers shared by the engines over pairs of rows: tile loads and tiles of similarities or distances."""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
TABLE_ROWS = tl.constexpr(32)  # of a block of a table for :func:`squared_distances`


@triton.jit
def row_pointers(base, first, stride, columns, BLOCK: tl.constexpr):
    """Pointers (BLOCK, D) to the rows from `first` on of a matrix whose rows lie `stride` apart.

    The first row's offset is 64-bit, as a bank of 8.4 M rows of 256 passes 2³¹ elements; within the tile 32 bits do,
    and take half the registers.
    """
    return base + tl.cast(first, tl.int64) * stride + (tl.arange(0, BLOCK)[:, None] * stride + columns[None, :])


@triton.jit
def load_rows(base, first, valid, stride, columns, width):
    """Rows (R, D) from `first` on; zero where not `valid` (R,) or past the width."""
    mask = valid[:, None] & (columns < width)[None, :]
    return tl.load(row_pointers(base, first, stride, columns, valid.shape[0]), mask=mask, other=0.0)


@triton.jit
def store_rows(base, first, stride, columns, width, count, tile):
    """Store rows (R, D) from `first` on, of `count` rows, in the dtype of the matrix.

    In 64 bits throughout: written like the loads, offsets and masks would be taken for the same values as theirs and
    held in registers across the loop between the two.
    """
    rows = tl.cast(first, tl.int64) + tl.arange(0, tile.shape[0])
    places = columns.to(tl.int64)
    inside = (rows < count)[:, None] & (places < width)[None, :]
    tl.store(base + rows[:, None] * stride + places[None, :], tile.to(base.dtype.element_ty), mask=inside)


@triton.jit
def share(count, part, parts, BLOCK: tl.constexpr):
    """The range [first, last) of `count` rows that falls to one of `parts` programs, in whole tiles."""
    tiles = tl.cdiv(count, BLOCK).to(tl.int64)
    first = tiles * part // parts * BLOCK
    last = tiles * (part + 1) // parts * BLOCK
    return first.to(tl.int32), last.to(tl.int32)


@triton.jit
def chunked_similarities(
    a, first_row, row_valid, a_stride, k, first_key, key_valid, k_stride, width,
    BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of A Kᵀ (R, N) in float32, in the dtype of A, over chunks of BLOCK_K columns."""
    s = tl.zeros((row_valid.shape[0], key_valid.shape[0]), tl.float32)
    for start in range(0, width, BLOCK_K):
        columns = start + tl.arange(0, BLOCK_K)
        row_tile = load_rows(a, first_row, row_valid, a_stride, columns, width)
        key_tile = load_rows(k, first_key, key_valid, k_stride, columns, width).to(row_tile.dtype)
        s = tl.dot(row_tile, tl.trans(key_tile), s, input_precision=PRECISION)
    return s


@triton.jit
def similarities(
    anchors,
    anchor_base,
    first_row,
    row_valid,
    anchor_stride,
    key_base,
    first_key,
    key_valid,
    key_stride,
    columns,
    width,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A tile of A Kᵀ (R, N) in float32, and the keys' columns (N, D) that the gradient's product takes.

    Rows that fit one chunk (width <= BLOCK_K = D) stay on chip as anchors, and are loaded once as keys for both
    products; wider rows are multiplied chunk by chunk, and the keys' columns come a second time, from cache.
    """
    if (columns.shape[0] == BLOCK_K) and (width <= BLOCK_K):
        key_tile = load_rows(key_base, first_key, key_valid, key_stride, columns, width).to(anchors.dtype)
        s = tl.dot(anchors, tl.trans(key_tile), input_precision=PRECISION)
    else:
        s = chunked_similarities(
            anchor_base, first_row, row_valid, anchor_stride, key_base, first_key, key_valid, key_stride, width,
            BLOCK_K, PRECISION,
        )  # fmt: skip
        key_tile = load_rows(key_base, first_key, key_valid, key_stride, columns, width).to(anchors.dtype)
    return s, key_tile


@triton.jit
def compensated(total, error, term):
    """Kahan's sum: total + term, and the rounding error to take off the next term."""
    term -= error
    new_total = total + term
    return new_total, (new_total - total) - term


@triton.jit
def squared_distances(a, rows, b, keys, width, CHUNK: tl.constexpr):
    """Σ_c (a_ci - b_cj)² (R, N) of tables laid out by :func:`columns_first`: no load needs a mask.

    Differences, so that duplicates are at exactly 0; summed in chunks, so that the error does not grow with the width.
    """
    block = tl.cdiv(width, CHUNK).to(tl.int64) * (CHUNK * TABLE_ROWS)
    a += rows // TABLE_ROWS * block + rows % TABLE_ROWS
    b += keys // TABLE_ROWS * block + keys % TABLE_ROWS
    total = tl.zeros((rows.shape[0], keys.shape[0]), tl.float32)
    error = tl.zeros((rows.shape[0], keys.shape[0]), tl.float32)
    for _start in range(0, width, CHUNK):
        part = tl.zeros((rows.shape[0], keys.shape[0]), tl.float32)
        for column in tl.static_range(CHUNK):
            difference = tl.load(a + column * TABLE_ROWS)[:, None] - tl.load(b + column * TABLE_ROWS)[None, :]
            part += difference * difference
        a += CHUNK * TABLE_ROWS
        b += CHUNK * TABLE_ROWS
        total, error = compensated(total, error, part)
    return total
