"""Distances of the centers from a mean of them. One read of the table."""

import triton
import triton.language as tl

from ..common.tiles import load_chunk


@triton.jit
def load_row(ptr, row: tl.constexpr, valid, d: tl.constexpr, chunk, BLOCK_D: tl.constexpr):
    """A row's chunk once for every `valid` row of a tile: to load it again costs less than to move it."""
    columns = chunk * BLOCK_D + tl.zeros(valid.shape, tl.int32)[:, None] + tl.arange(0, BLOCK_D)[None, :]
    if d % BLOCK_D == 0:
        values = tl.load(ptr + row * d + columns)
    else:
        values = tl.load(ptr + row * d + columns, mask=columns < d, other=0.0)
    return values


@triton.jit
def from_mean(tile, mean_ptr, valid, d: tl.constexpr, chunk, BLOCK_D: tl.constexpr):
    """What lies between a chunk of rows and a mean in two parts."""
    return tile - load_row(mean_ptr, 0, valid, d, chunk, BLOCK_D) - load_row(mean_ptr, 1, valid, d, chunk, BLOCK_D)


@triton.jit(do_not_specialize=["num_classes"])
def table_stats(
    c_ptr, mean_ptr, squared_ptr, num_classes, d: tl.constexpr, R: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    """‖c_k - m‖² of R classes a program."""
    classes = tl.program_id(0) * R + tl.arange(0, R)
    real = classes < num_classes
    squared = tl.zeros((R,), tl.float32)
    for chunk in range(tl.cdiv(d, BLOCK_D)):
        c = load_chunk(c_ptr, classes, real, d, chunk, d, BLOCK_D).to(tl.float32)
        offset = from_mean(c, mean_ptr, real, d, chunk, BLOCK_D)
        squared += tl.sum(offset * offset, 1)
    tl.store(squared_ptr + classes, squared, mask=real)
