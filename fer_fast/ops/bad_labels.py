"""How a label outside [0, C) on a GPU becomes an error without waiting for the device.

A kernel that meets one makes the loss NaN and writes the label to a flag in pinned host memory. The next call of a
loss on that device reads the flag, which is an ordinary read of host memory, and raises. On the CPU the same flag is
read right after the call.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

NONE = torch.iinfo(torch.int64).min


@cache
def _flag(device: torch.device) -> tuple[Tensor, np.ndarray]:
    """One int64 on the host that a device's kernels can write, and its memory, which is read in a tenth of the time
    that indexing a tensor takes: every call of a loss asks."""
    flag = torch.full((1,), NONE, dtype=torch.int64, pin_memory=device.type == "cuda")
    return flag, flag.numpy()


def bad_label_flag(device: torch.device) -> Tensor:
    """The flag of a device. Raises `ValueError` if a kernel that has run there met a label outside [0, C), and clears
    it."""
    flag, seen = _flag(device)
    label = seen.item()
    if label != NONE:
        flag.fill_(NONE)
        when = "" if device.type == "cpu" else " (met by an earlier call on this device, whose loss is NaN)"
        raise ValueError(f"labels: class {label} is outside [0, C){when}")
    return flag
