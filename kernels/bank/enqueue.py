"""A batch over the oldest rows of the ring."""

import triton
import triton.language as tl

from ..common.pair_tiles import load_rows

POSITION_BITS = tl.constexpr(40)  # of the count of rows while a batch is being written; the rest counts programs


@triton.jit(do_not_specialize=["capacity", "n"])
def enqueue_rows(
    features, labels, starts, written, z, y, capacity, n, d, feature_stride, z_stride,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # One atomic both reads the count of rows and counts the readers: it adds above the bits of the count. Whoever
    # reads last moves it on, which all others have then read.
    seen = tl.atomic_add(written, tl.full((), 1, tl.int64) << POSITION_BITS)
    position = seen & ((tl.full((), 1, tl.int64) << POSITION_BITS) - 1)
    if (seen >> POSITION_BITS) == tl.num_programs(0) - 1:
        tl.store(written, position + n)
    first = tl.program_id(0) * BLOCK_M
    rows = first + tl.arange(0, BLOCK_M)
    kept = (rows < n) & (rows >= n - capacity)  # a batch larger than the ring leaves its newest rows
    slots = (position + rows) % capacity
    tl.store(labels + slots, tl.load(y + rows, mask=kept, other=0), mask=kept)
    tl.store(starts + slots, position + tl.maximum(n - capacity, 0) + tl.zeros_like(slots), mask=kept)
    for start in range(0, d, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        tile = load_rows(z, first, kept, z_stride, columns, d).to(features.dtype.element_ty)
        inside = kept[:, None] & (columns < d)[None, :]
        tl.store(features + slots[:, None] * feature_stride + columns[None, :], tile, mask=inside)
