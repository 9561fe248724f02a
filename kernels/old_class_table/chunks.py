"""Rows in chunks, held or loaded again, and sums of them.

A tile of rows is visited in column chunks, each (BLOCK_N, BLOCK_D), so that no temporary is wider than a chunk. Either
all its chunks are loaded once and stay in registers, a tuple of them; or the tuple says where the rows lie, and each
visit loads them, after the first from the L1. A visit of the first kind is unrolled, of the second it is a loop.
"""

import triton
import triton.language as tl

from ..ad_corre.tiles import in_turn
from ..common.tiles import load_chunk, scales_of, store_chunk


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
def held_chunk(x, chunk, num_classes, CHUNKS: tl.constexpr):
    """A chunk of held rows for what stands under :func:`in_turn`: the layout passes of Triton see a choice and convert
    the chunk behind it, not all chunks where they are loaded; LLVM then sees that there is none."""
    return x[chunk] if CHUNKS <= 2 else tl.where(chunk - CHUNKS <= num_classes, x[chunk], tl.zeros_like(x[chunk]))


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
def add_rows(
    sums, slab_ptr, weights, x, earlier, num_classes, d, PRODUCT: tl.constexpr, RESIDENT: tl.constexpr,
    PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr,
    K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """The sums of one kind, (K, BLOCK_D) a chunk, with the rows of a tile added.

    They stay in registers if `RESIDENT`, else in the program's slab (K, d), which stays in the caches while the program
    runs and takes no registers beside wide rows. It holds something once an `earlier` tile was added; the first writes
    rows past the last class too. One kind after the other: side by side, their chunks would not fit the registers.
    """
    classes = tl.arange(0, K)
    there = earlier & (classes < num_classes)
    written = (classes < num_classes) | ~earlier
    added = () if RESIDENT else sums
    for chunk in tl.static_range(CHUNKS):
        if RESIDENT:
            total = sums[chunk]
            if in_turn(chunk, num_classes, CHUNKS):
                total += PRODUCT(weights, held_chunk(x, chunk, num_classes, CHUNKS), PRECISION, TENSOR_CORES)
            added += (total,)
        else:
            if in_turn(chunk, num_classes, CHUNKS):
                total = PRODUCT(weights, held_chunk(x, chunk, num_classes, CHUNKS), PRECISION, TENSOR_CORES)
                total += load_chunk(slab_ptr, classes, there, d, chunk, d, BLOCK_D)
                store_chunk(slab_ptr, total, classes, written, d, chunk, d, BLOCK_D)
    return added
