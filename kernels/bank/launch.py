"""The ring's one operation, launched."""

from torch import Tensor

from ..host.launch import cdiv, dense_rows
from .enqueue import enqueue_rows
from .settings import BLOCKS, ENQUEUE_ROWS


def enqueue(features: Tensor, labels: Tensor, starts: Tensor, written: Tensor, z: Tensor, y: Tensor) -> None:
    """Write z (n, d), y (n,) and `written` into the ring: features (capacity, d), labels and starts (capacity,).

    `written` (1,), int64 on the device, counts the rows so far: modulo the capacity it is the slot of the next row, and
    it moves on by n. Rows are converted to the ring's dtype. Nothing depends on the host, so the call can be captured
    in a CUDA graph. Floor: z read once, its rows written once, one launch.
    """
    z, y = dense_rows(z), y.contiguous()
    n, d = z.shape
    enqueue_rows[cdiv(n, ENQUEUE_ROWS.block_m),](
        features, labels, starts, written, z, y, len(features), n, d, features.stride(0), z.stride(0),
        **BLOCKS, **ENQUEUE_ROWS.options,
    )  # fmt: skip
