"""The memory bank's ring: one launch writes a batch over the oldest rows, wherever the device's own cursor stands."""

from collections.abc import Iterator

import triton
import triton.language as tl
from torch import Tensor

from ..aot import TYPES, aot_case, mark
from ..configs import ENQUEUE_ROWS
from ..launch import cdiv, dense_rows
from ..pair_tiles import load_rows

POSITION_BITS = tl.constexpr(40)  # of the cursor while a batch is being written; the rest counts programs
_BLOCKS = {"BLOCK_M": ENQUEUE_ROWS.block_m, "BLOCK_D": ENQUEUE_ROWS.block_d}


@triton.jit(do_not_specialize=["capacity", "n"])
def _enqueue(
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


def enqueue(features: Tensor, labels: Tensor, cursor: Tensor, z: Tensor, y: Tensor) -> None:
    """Write z (n, d) and y (n,) into the ring features (capacity, d), labels (capacity,), in place.

    `cursor` (1,), int64 on the device, is the slot of the next row; it moves on by n, modulo the capacity. Rows are
    converted to the ring's dtype. Nothing depends on the host, so the call can be captured in a CUDA graph. Floor: z
    read once, its rows written once, one launch.
    """
    z, y = dense_rows(z), y.contiguous()
    n, d = z.shape
    _enqueue[cdiv(n, ENQUEUE_ROWS.block_m),](
        features, labels, cursor, z, y, len(features), n, d, features.stride(0), z.stride(0),
        **_BLOCKS, **ENQUEUE_ROWS.options,
    )  # fmt: skip


def aot_cases() -> Iterator[tuple]:
    """Every bank's dtype, filled from float32 and from bfloat16, for the audit."""
    types = dict.fromkeys(("capacity", "n", "d", "feature_stride", "z_stride"), "i32")
    types |= dict.fromkeys(("labels", "cursor", "y"), "*i64")
    for bank in TYPES.values():
        for given in ("fp32", "bf16"):
            pointers = {"features": f"*{bank}", "z": f"*{given}"}
            name = mark(f"enqueue-{given}-to-{bank}", bank != given)
            yield aot_case(name, _enqueue, types | pointers, _BLOCKS, ENQUEUE_ROWS.options)
