"""Device helpers shared by the engines over pairs of rows: tile loads and tiles of similarities or distances."""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
TABLE_ROWS = tl.constexpr(32)  # of a block of a table for :func:`squared_distances`


@triton.jit
def number(x):
    """A setting given as a number, or as a pointer to one that the host has not seen."""
    if (x + tl.full((), 0, tl.int32)).type.is_ptr():  # a number has a type once computed with, also in the interpreter
        return tl.load(x).to(tl.float32)
    else:
        return x


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
def share(count, part, parts):
    """The range [first, last) of `count` tiles that falls to one of `parts` programs."""
    tiles = tl.cast(count, tl.int64)
    return (tiles * part // parts).to(tl.int32), (tiles * (part + 1) // parts).to(tl.int32)


@triton.jit
def tile_range(
    count, first_row, part, parts, plain,
    OWN: tl.constexpr, INTERIOR: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The range [first, last) that falls to a program of the tiles of `count` keys; :func:`tile_start` says where each
    begins.

    INTERIOR tiles need no mask: they are whole, and off the diagonal where the keys are the rows themselves (OWN).
    There are none unless the problem is `plain`. The others, visited with care, are then the tiles on the diagonal and
    the last one, if it is ragged and not among them, which fall to the last program; and else all.
    """
    tiles, interior = tl.cdiv(count, BLOCK_N), count // BLOCK_N
    if OWN:
        interior -= tl.minimum(tl.maximum(interior - first_row // BLOCK_N, 0), tl.cdiv(BLOCK_M, BLOCK_N))
    if INTERIOR:
        first, last = share(tl.where(plain, interior, 0), part, parts)
    else:
        first, last = share(tiles, part, parts)
        first = tl.where(plain, 0, first)
        last = tl.where(plain, tl.where(part == parts - 1, tiles - interior, 0), last)
    return first, last


@triton.jit
def tile_start(
    tile, count, first_row, plain,
    OWN: tl.constexpr, INTERIOR: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The first key of a tile of :func:`tile_range`: interior ones step over the diagonal."""
    at = tile
    if INTERIOR:
        if OWN:
            at += tl.where(tile >= first_row // BLOCK_N, tl.cdiv(BLOCK_M, BLOCK_N), 0)
    else:
        edge = count // BLOCK_N
        if OWN:
            edge = tl.where(tile < tl.cdiv(BLOCK_M, BLOCK_N), first_row // BLOCK_N + tile, edge)
        at = tl.where(plain, edge, tile)
    return at * BLOCK_N


@triton.jit
def load_keys(base, first, valid, stride, columns, width, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows (BLOCK, BLOCK_D) from `first` on, zero where not `valid`; None says that all are, and columns are masked
    only where the constant `width` does not fill its chunks."""
    at = row_pointers(base, first, stride, columns, BLOCK)
    inside = (columns < width)[None, :]
    if valid is not None:
        tile = tl.load(at, mask=valid[:, None] & inside, other=0.0)
    elif width % BLOCK_D != 0:
        tile = tl.load(at, mask=inside, other=0.0)
    else:
        tile = tl.load(at)
    return tile


@triton.jit
def chunked_similarities(
    a, first_row, row_valid, a_stride, k, first_key, key_valid, k_stride, width,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of A Kᵀ (BLOCK_M, BLOCK_N) in float32, in the dtype of A, over chunks of BLOCK_K columns."""
    s = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, width, BLOCK_K):
        columns = start + tl.arange(0, BLOCK_K)
        row_tile = load_keys(a, first_row, row_valid, a_stride, columns, width, BLOCK_M, BLOCK_K)
        key_tile = load_keys(k, first_key, key_valid, k_stride, columns, width, BLOCK_N, BLOCK_K)
        s = tl.dot(row_tile, tl.trans(key_tile.to(row_tile.dtype)), s, input_precision=PRECISION)
    return s


@triton.jit
def similarities(
    anchors, a, first_row, rows, a_stride, k, first_key, key_valid, k_stride, columns, width,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of A Kᵀ (BLOCK_M, BLOCK_N) in float32, and the keys' columns (BLOCK_N, BLOCK_D) that the gradient's
    product takes. A has `rows` rows; of the keys all count, or those that are `key_valid`.

    Rows that fit one chunk (width <= BLOCK_K = BLOCK_D) stay on chip as anchors, and are loaded once as keys for both
    products; wider rows are multiplied chunk by chunk, and the keys' columns come a second time, from cache.
    """
    if (BLOCK_D == BLOCK_K) and (width <= BLOCK_K):
        key_tile = load_keys(k, first_key, key_valid, k_stride, columns, width, BLOCK_N, BLOCK_D).to(anchors.dtype)
        s = tl.dot(anchors, tl.trans(key_tile), input_precision=PRECISION)
    else:
        row_valid = first_row + tl.arange(0, BLOCK_M) < rows
        s = chunked_similarities(
            a, first_row, row_valid, a_stride, k, first_key, key_valid, k_stride, width, BLOCK_M, BLOCK_N, BLOCK_K,
            PRECISION,
        )  # fmt: skip
        key_tile = load_keys(k, first_key, key_valid, k_stride, columns, width, BLOCK_N, BLOCK_D).to(anchors.dtype)
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
    block = tl.cast(tl.cdiv(width, CHUNK), tl.int64) * (CHUNK * TABLE_ROWS)
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
