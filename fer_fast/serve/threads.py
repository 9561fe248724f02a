"""Threads for networks on CPUs beside those that decode pictures and find faces."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each_on_one_core(do: Callable[[_In], _Out], parts: Sequence[_In]) -> list[_Out]:
    """What `do` gives for each part, all at once, each by a thread for which PyTorch starts no others.

    OpenMP's threads wait for one another actively. Beside threads that find faces, or other processes, one of them is
    often not running, and the others burn their cores: a face through ResNet-18 at 48 pixels took 19 ms of two cores
    that other programs used as well, and 2.5 ms so.
    """
    before = torch.get_num_threads()
    try:
        # Set by a thread, the number holds for itself and for threads that begin later, not for the caller's.
        with ThreadPoolExecutor(min(len(parts), cores()), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(do, parts))
    finally:
        torch.set_num_threads(before)
