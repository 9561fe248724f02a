"""A batch over the oldest rows of the ring."""

import triton
import triton.language as tl

from ..common.pair_tiles import load_rows

POSITION_BITS = tl.constexpr(40)  # of the cursor while a batch is being written; the rest counts programs


@triton.jit(do_not_specialize=["capacity", "n"])
def enqueue_rows(
    features, labels, cursor, z, y, capacity, n, d, feature_stride, z_stride,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # One atomic both reads the position and counts the readers: it adds above the bits of the position. Whoever
    # reads last moves the cursor, which all others have then read.
    seen = tl.atomic_add(cursor, tl.full((), 1, tl.int64) << POSITION_BITS)
    position = seen & ((tl.full((), 1, tl.int64) << POSITION_BITS) - 1)
    if (seen >> POSITION_BITS) == tl.num_programs(0) - 1:
        tl.store(cursor, (position + n) % capacity)
    first = tl.program_id(0) * BLOCK_M
    rows = first + tl.arange(0, BLOCK_M)
    kept = (rows < n) & (rows >= n - capacity)  # a batch larger than the ring leaves its newest rows
    slots = (position + rows) % capacity
    tl.store(labels + slots, tl.load(y + rows, mask=kept, other=0), mask=kept)
    for start in range(0, d, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        tile = load_rows(z, first, kept, z_stride, columns, d).to(features.dtype.element_ty)
        inside = kept[:, None] & (columns < d)[None, :]
        tl.store(features + slots[:, None] * feature_stride + columns[None, :], tile, mask=inside)
