"""Blocks of rows side by side, each on a thread of its own.

PyTorch gives every operation all threads, and an operation ends when the last of them has. Where another program keeps
a core busy, each of the hundreds of operations of a sweep over tiles so waits for that program's turn to end: ENSC took
ten times as long as here. A thread with a block to itself waits for nobody.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier, Lock

import torch

_making = Lock()


def each_block(work: Callable[[slice], None], blocks: Iterable[slice], device: torch.device) -> None:
    """`work(block)` for all blocks, in any order and, on the CPU, as many at once as PyTorch has threads.

    Each has to write to rows of its own.
    """
    blocks, threads = list(blocks), torch.get_num_threads() if device.type == "cpu" else 1
    if threads == 1 or len(blocks) == 1:
        for block in blocks:
            work(block)
        return
    inference = torch.is_inference_mode_enabled()

    def alone(block: slice) -> None:
        with torch.inference_mode(inference), torch.no_grad():
            work(block)

    try:
        with _making:
            pool = _pool(threads)
        done = pool.map(alone, blocks)
    except RuntimeError:  # no threads: of an interpreter that is about to end, or past the system's limit
        done = map(alone, blocks)
    for _ in done:
        pass


def rows_each(n: int, most: int, device: torch.device) -> int:
    """Rows of a block, at most so many, of n rows that every thread shall have some of."""
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    return min(most, -(-n // threads))


@lru_cache(4)  # of callers with as many thread counts, in turn, each finds its own again
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads whose operations use no others. PyTorch asks at the first operation of a thread how many it may use."""
    pool, met = ThreadPoolExecutor(threads, "fer_fast"), Barrier(threads)

    def first_operation(_: int) -> None:
        met.wait()
        torch.zeros(2**17).add_(1)

    torch.set_num_threads(1)
    try:
        list(pool.map(first_operation, range(threads)))
    except RuntimeError:  # no more threads are to be had: those that wait for them would wait for ever
        met.abort()
        raise
    finally:
        torch.set_num_threads(threads)
    return pool


def _after_fork() -> None:
    """Which takes no threads along, and may have come while a lock was held."""
    global _making
    _making = Lock()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
