"""Sums of programs, a slab each, and their fold by whoever comes last, in fixed order."""

import triton
import triton.language as tl

from ..common.tiles import store_chunk

# Few constants, and by position where names would do: at every launch Triton compares each with what it was.
FAN_IN = tl.constexpr(16)  # slabs one program folds; two levels cover every grid
BLOCK_ROWS = tl.constexpr(4)  # of a block of sums per class


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
