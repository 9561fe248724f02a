"""The memory bank's operator: a batch written where the device's own count of rows says."""

from torch import Tensor
from torch.autograd.graph import increment_version
from torch.library import custom_op

from ..kinds import Kinds, watched
from .engines import run_engine

_KINDS = Kinds()


@custom_op("fer_fast::enqueue", mutates_args=("ring", "ring_labels", "ring_starts", "written"))
def enqueue_(ring: Tensor, ring_labels: Tensor, ring_starts: Tensor, written: Tensor, z: Tensor, y: Tensor) -> None:
    run_engine("triton", "bank", "enqueue", ring, ring_labels, ring_starts, written, z, y)


def enqueue(ring: Tensor, ring_labels: Tensor, ring_starts: Tensor, written: Tensor, z: Tensor, y: Tensor) -> None:
    """Write z (n, d) and y (n,), n at most the capacity, over the oldest rows of the ring (Triton alone)."""
    args = ring, ring_labels, ring_starts, written, z, y
    if _KINDS.of(args) is None or watched():
        enqueue_(*args)
        return
    # Past the dispatcher, as losses go.
    run_engine("triton", "bank", "enqueue", *args)
    increment_version(args[:4])
