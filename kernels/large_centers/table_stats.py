"""Distances of the centers from a mean of them. One read of the table."""

import triton
import triton.language as tl

from ..common.tiles import load_chunk, load_row


@triton.jit
def load_mean(mean_ptr, d, chunk, BLOCK_D: tl.constexpr):
    """A chunk of a mean in two parts: (1, BLOCK_D) both."""
    high = load_row(mean_ptr, 0, d, chunk, d, BLOCK_D)
    low = load_row(mean_ptr, 1, d, chunk, d, BLOCK_D)
    return high[None, :], low[None, :]


@triton.jit(do_not_specialize=["num_classes"])
def table_stats(
    c_ptr, mean_ptr, squared_ptr, num_classes, d: tl.constexpr, R: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    """‖c_k - m‖² of R classes a program."""
    classes = tl.program_id(0) * R + tl.arange(0, R)
    real = classes < num_classes
    squared = tl.zeros((R,), tl.float32)
    for chunk in range(tl.cdiv(d, BLOCK_D)):
        high, low = load_mean(mean_ptr, d, chunk, BLOCK_D)
        offset = load_chunk(c_ptr, classes, real, d, chunk, d, BLOCK_D).to(tl.float32) - high - low
        squared += tl.sum(offset * offset, 1)
    tl.store(squared_ptr + classes, squared, mask=real)
