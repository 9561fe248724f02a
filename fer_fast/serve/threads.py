"""Threads for networks on CPUs beside those that decode pictures and find faces."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

_In = TypeVar("_In")
_Out = TypeVar("_Out")

_one = threading.Lock()
_inside, _before = 0, 0  # calls of `each_on_one_core` that are under way, and what they have to leave


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each_on_one_core(do: Callable[[_In], _Out], parts: Sequence[_In]) -> list[_Out]:
    """What `do` gives for each part, all at once, each by a thread for which PyTorch starts no others.

    OpenMP's threads wait for one another actively. Beside threads that find faces, or other processes, one of them is
    often not running, and the others burn their cores: a face through ResNet-18 at 48 pixels took 19 ms of two cores
    that other programs used as well, and 2.5 ms so.
    """
    with (
        _kept(),
        ThreadPoolExecutor(min(len(parts), cores()), initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        return list(pool.map(do, parts))


@contextmanager
def _kept() -> Iterator[None]:
    """Leaves PyTorch's number of threads as it was, however many threads are in here at once.

    Set by a thread, the number holds for itself and for threads that begin later, not for those that are there. What a
    caller has is therefore no measure: it may have begun while another was in here. A new thread has what later ones
    will have.
    """
    global _inside, _before
    with _one:
        if not _inside:
            _before = _in_a_new_thread(torch.get_num_threads)
        _inside += 1
    try:
        yield
    finally:
        with _one:
            _inside -= 1
            if not _inside:
                _in_a_new_thread(torch.set_num_threads, _before)


def _in_a_new_thread(do: Callable[..., _Out], *given: int) -> _Out:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(do, *given).result()
