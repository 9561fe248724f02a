"""The memory bank's operator: a batch written where the device's own cursor stands."""

from torch import Tensor
from torch.library import custom_op

from .library import run_engine


@custom_op("fer_fast::enqueue", mutates_args=("ring", "ring_labels", "cursor"))
def enqueue(ring: Tensor, ring_labels: Tensor, cursor: Tensor, z: Tensor, y: Tensor) -> None:
    """Write z (n, d) and y (n,), n at most the capacity, over the oldest rows of the ring (Triton alone)."""
    run_engine("triton", "bank", "enqueue", ring, ring_labels, cursor, z, y)
