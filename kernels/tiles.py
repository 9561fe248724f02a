"""Device helpers shared by the class-table and Ad-Corre engines.

A tile of rows is visited in column chunks, each (BLOCK_N, BLOCK_D), so that no temporary is wider than a chunk. Either
all its chunks are loaded once and stay in registers, a tuple of them; or the tuple says where the rows lie, and each
visit loads them, after the first from the L1. A visit of the first kind is unrolled, of the second it is a loop.
"""

import triton
import triton.language as tl

# Few constants, and by position where names would do: at every launch Triton compares each with what it was.
FAN_IN = tl.constexpr(16)  # slabs one program folds; two levels cover every grid
BLOCK_ROWS = tl.constexpr(4)  # of a block of sums per class


@triton.jit
def load_chunk(ptr, rows, row_ok, stride, chunk, width, BLOCK_D: tl.constexpr):
    """Columns [chunk·BLOCK_D, ...) of the given rows: (rows, BLOCK_D), zero outside. Offsets are 64-bit."""
    cols = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    at = ptr + rows.to(tl.int64)[:, None] * stride + cols[None, :]
    return tl.load(at, mask=row_ok[:, None] & (cols < width)[None, :], other=0.0)


@triton.jit
def store_chunk(ptr, value, rows, row_ok, stride, chunk, width, BLOCK_D: tl.constexpr):
    """The store that mirrors :func:`load_chunk`; the value is rounded to the element type of `ptr`."""
    cols = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    at = ptr + rows.to(tl.int64)[:, None] * stride + cols[None, :]
    tl.store(at, value.to(ptr.dtype.element_ty), mask=row_ok[:, None] & (cols < width)[None, :])


@triton.jit
def load_row(ptr, row, stride, chunk, width, BLOCK_D: tl.constexpr):
    """One row's chunk in float32: (BLOCK_D,)."""
    cols = chunk * BLOCK_D + tl.arange(0, BLOCK_D).to(tl.int64)
    return tl.load(ptr + row * stride + cols, mask=cols < width, other=0.0).to(tl.float32)


@triton.jit
def load_per_class(ptr, num_classes, DEFAULT: tl.constexpr, K: tl.constexpr):
    """An optional vector of C numbers as (K,) float32; `DEFAULT` without one, 0 past the last class."""
    classes = tl.arange(0, K)
    if ptr is None:
        values = tl.where(classes < num_classes, DEFAULT, 0.0)
    else:
        values = tl.load(ptr + classes, mask=classes < num_classes, other=0.0).to(tl.float32)
    return values


@triton.jit
def load_tile(ptr, rows, row_ok, stride, width, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr):
    """Whole rows as a tuple of chunks."""
    tile = ()
    for chunk in tl.static_range(CHUNKS):
        tile += (load_chunk(ptr, rows, row_ok, stride, chunk, width, BLOCK_D),)
    return tile


@triton.jit
def rows_in_chunks(ptr, rows, row_ok, stride, width, HELD: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr):
    """Rows held as their chunks, or where they lie for :func:`load_again`."""
    return load_tile(ptr, rows, row_ok, stride, width, BLOCK_D, CHUNKS) if HELD else (ptr, rows, row_ok, stride, width)


@triton.jit
def load_again(x, chunk, BLOCK_D: tl.constexpr):
    """A chunk of rows that are not held."""
    ptr, rows, row_ok, stride, width = x
    return load_chunk(ptr, rows, row_ok, stride, chunk, width, BLOCK_D)


@triton.jit
def in_turn(chunk, num_classes, CHUNKS: tl.constexpr):
    """True, which the compiler cannot know: what stands under it is a block of its own, finished before the next chunk
    of held rows begins. In one block, operands and results of many chunks would wait in registers, and spill.

    Each chunk has a comparison of its own, that none before it decides; else their blocks would become one.
    """
    return True if CHUNKS <= 2 else chunk - CHUNKS < num_classes


@triton.jit
def held_chunk(x, chunk, num_classes, CHUNKS: tl.constexpr):
    """A chunk of held rows for what stands under :func:`in_turn`: the layout passes of Triton see a choice and convert
    the chunk behind it, not all chunks where they are loaded; LLVM then sees that there is none."""
    return x[chunk] if CHUNKS <= 2 else tl.where(chunk - CHUNKS <= num_classes, x[chunk], tl.zeros_like(x[chunk]))


@triton.jit
def zeros_tile(ROWS: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr):
    """A float32 accumulator as wide as a row tile."""
    tile = ()
    for _ in tl.static_range(CHUNKS):
        tile += (tl.zeros((ROWS, BLOCK_D), tl.float32),)
    return tile


@triton.jit
def inverse_or_zero(value):
    """1 / value, and 0 at 0: a vector of length zero has no direction."""
    return tl.where(value == 0, 0.0, 1.0 / tl.where(value == 0, 1.0, value))


@triton.jit
def finite_or_zero(x):
    """NaN and inf replaced by 0."""
    return tl.where(x - x == 0, x, tl.zeros_like(x))


@triton.jit
def scales_of(largest):
    """A power of two that brings numbers of at most this size below 4, and its inverse: squares of what it scaled
    neither overflow nor vanish, and no digit is rounded. Inf becomes NaN."""
    exponent = (largest.to(tl.int32, bitcast=True) >> 23) & 255
    exponent = tl.minimum(255 - exponent, 253)
    scale = (exponent << 23).to(tl.float32, bitcast=True)
    return scale, ((254 - exponent) << 23).to(tl.float32, bitcast=True)


@triton.jit
def squares(x, scale):
    """Squares of scaled rows, entry by entry."""
    scaled = x.to(tl.float32) * scale[:, None]
    return scaled * scaled


@triton.jit
def lengths_of(x, ROWS: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr):
    """Lengths of the rows of a tile: (ROWS,). Chunks are added entry by entry, and the entries once."""
    largest = tl.zeros((ROWS, BLOCK_D), tl.float32)
    squared = tl.zeros((ROWS, BLOCK_D), tl.float32)
    if x[0].dtype.is_ptr():
        for chunk in tl.range(CHUNKS, disable_licm=True):
            largest = tl.maximum(largest, tl.abs(load_again(x, chunk, BLOCK_D).to(tl.float32)))
        scale, unscale = scales_of(tl.max(largest, 1))
        for chunk in tl.range(CHUNKS, disable_licm=True):
            squared += squares(load_again(x, chunk, BLOCK_D), scale)
    else:
        for chunk in tl.static_range(CHUNKS):
            largest = tl.maximum(largest, tl.abs(x[chunk].to(tl.float32)))
        scale, unscale = scales_of(tl.max(largest, 1))
        for chunk in tl.static_range(CHUNKS):
            squared += squares(x[chunk], scale)
    # A maximum may drop NaN; the sum of squares does not.
    return tl.sqrt(tl.sum(squared, 1)) * unscale


@triton.jit
def read_labels(y_ptr, rows, in_batch, num_classes, status_ptr):
    """Labels safe to index with, and the rows that have one; a label outside [0, C) goes to the status alone."""
    y = tl.load(y_ptr + rows, mask=in_batch, other=0)
    legal = (y >= 0) & (y < num_classes)
    if status_ptr is not None:
        tl.store(status_ptr + tl.zeros_like(rows), y, mask=in_batch & ~legal)
    return tl.where(legal, y, 0).to(tl.int32), in_batch & legal


@triton.jit
def arrive_last(counter_ptr, expected):
    """Whether this program is the last of `expected` to come here; the counter is then zero again for the next launch.

    The barrier puts every thread's stores before the release; the acquire puts the loads of the last program after
    every other program's release. Which program is last varies between runs; what it adds up, and in which order, not.
    """
    tl.debug_barrier()
    ticket = tl.atomic_add(counter_ptr, 1, sem="acq_rel")
    last = ticket == expected - 1
    if last:
        tl.store(counter_ptr, 0)
    return last


@triton.jit
def fold_chunk(slabs_ptr, first, count, width, chunk, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """Σ over `count` slabs from `first` on of one chunk, in that order: (ROWS, BLOCK_D).

    Slabs (programs, ROWS, width) are float32; `.cg` reads past the L1, which another program's stores do not reach.
    """
    rows = tl.arange(0, ROWS).to(tl.int64)
    cols = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros((ROWS, BLOCK_D), tl.float32)
    for i in range(count):
        at = slabs_ptr + ((first + i) * ROWS + rows)[:, None] * width + cols[None, :]
        total += tl.load(at, mask=(cols < width)[None, :], other=0.0, cache_modifier=".cg")
    return total


@triton.jit
def store_slab_chunk(slabs_ptr, value, slab, width, chunk, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """One chunk of a program's slab (ROWS, width)."""
    rows = slab * ROWS + tl.arange(0, ROWS)
    store_chunk(slabs_ptr, value, rows, rows >= 0, width, chunk, width, BLOCK_D)


@triton.jit
def fold_slabs(
    slabs_ptr, slab_size, first, count, into, width, chunk,
    KINDS: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Of each of `KINDS` runs of slabs, slab `into` = Σ of `count` slabs from `first` on, one chunk."""
    for kind in tl.static_range(KINDS):
        at = slabs_ptr + kind * slab_size
        total = fold_chunk(at, first, count, width, chunk, ROWS, BLOCK_D)
        store_slab_chunk(at, total, into, width, chunk, ROWS, BLOCK_D)


@triton.jit
def store_sums(blocks_ptr, block, rows, K: tl.constexpr):
    """Sums per class, rows (K,), from the start of a block on. :func:`fold_sums` adds blocks of at most BLOCK_ROWS."""
    for row in tl.static_range(len(rows)):
        tl.store(blocks_ptr + (block * BLOCK_ROWS + row) * K + tl.arange(0, K), rows[row])


@triton.jit
def fold_sums(blocks_ptr, first, count, K: tl.constexpr):
    """Σ over `count` blocks from `first` on: their rows (K,), of which those that nobody stored hold anything."""
    total = fold_chunk(blocks_ptr, first, count, K, 0, BLOCK_ROWS, K)
    rows = ()
    for row in tl.static_range(BLOCK_ROWS):
        rows += (tl.sum(tl.where((tl.arange(0, BLOCK_ROWS) == row)[:, None], total, 0.0), 0),)
    return rows
