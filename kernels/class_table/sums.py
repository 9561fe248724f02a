"""Class sums of tables too large to sit in registers beside whole rows: weightsᵀ x, a chunk of columns at a time.

Reads x a second time, and the weights of its rows, which :mod:`.rows` left behind, once for every chunk.
"""

import triton
import triton.language as tl

from ..common.products import class_product
from ..common.tiles import load_chunk, store_chunk


@triton.jit(do_not_specialize=["n"])
def sums(
    batch, out, n, x_stride, d: tl.constexpr, K: tl.constexpr, KINDS: tl.constexpr, HEAD: tl.constexpr,
    UPDATE: tl.constexpr, R: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr, TENSOR_CORES: tl.constexpr,
):  # fmt: skip
    """A grid of (splits, chunks): each split of the rows has a block (KINDS K, d) of its own."""
    EXACT: tl.constexpr = UPDATE and batch.sample_weights is None  # ones and zeros of members
    WHOLE: tl.constexpr = UPDATE and batch.sample_weights is not None
    split = tl.program_id(0)
    classes = tl.arange(0, K)
    block = out.sums + split.to(tl.int64) * (KINDS * K * d)
    for chunk in range(tl.program_id(1), CHUNKS, tl.num_programs(1)):
        for kind in tl.static_range(KINDS):
            total = tl.zeros((K, BLOCK_D), tl.float32)
            for tile in range(split, tl.cdiv(n, R), tl.num_programs(0)):
                at = tile * R + tl.arange(0, R).to(tl.int64)
                there = at < n
                if batch.sample_weights is not None:  # a row that weighs nothing may hold anything
                    there = there & (tl.load(batch.sample_weights + at, mask=there, other=0.0) != 0)
                x = load_chunk(batch.x, at, there, x_stride, chunk, d, BLOCK_D)
                of = out.row_weights + at[None, :] * (KINDS * K) + kind * K + classes[:, None]
                weights = tl.load(of, mask=there[None, :], other=0.0)
                spoilt = tl.sum(weights * 0.0, 0) != 0  # by its own class's weight, which is enough
                x = tl.where(spoilt[:, None], tl.zeros_like(x), x)
                total += class_product(weights, x, EXACT and kind == HEAD, WHOLE, TENSOR_CORES)
            store_chunk(block + kind * K * d, total, classes, classes >= 0, d, chunk, d, BLOCK_D)
