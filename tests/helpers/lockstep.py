"""The processes of a group as threads of this one, for engines: they run in turns, as Triton's interpreter is one."""

from collections.abc import Callable, Sequence
from threading import Barrier, BrokenBarrierError, Lock, Thread
from typing import Any

import torch
from torch import Tensor

from fer_fast.terms import Share

SECONDS = 120  # that one waits for the others


class Meeting:
    """Where the processes bring together what they have; `calls` says what, of each."""

    def __init__(self, size: int):
        self.calls: list[list[tuple]] = [[] for _ in range(size)]
        self._brought: list[Any] = [None] * size
        self._barrier, self._turn = Barrier(size), Lock()

    def take_part(self, call: Callable[[], Any]) -> Any:
        """What a call gives, or raises."""
        try:
            with self._turn:
                return call()
        except BaseException as fault:
            self._barrier.abort()
            return fault

    def exchange(self, rank: int, name: str, tensors: Sequence[Tensor]) -> list[Sequence[Tensor]]:
        """What all of them brought, by rank."""
        self.calls[rank].append((name, *[(t.dtype, t.shape[name == "gather" :]) for t in tensors]))
        self._brought[rank] = tensors
        self._turn.release()
        try:
            self._barrier.wait(SECONDS)
            brought = list(self._brought)
            self._barrier.wait(SECONDS)
        finally:
            self._turn.acquire()
        return brought


class Neighbours:
    """As :class:`fer_fast.terms.Peers` of one of the processes."""

    sharded = False

    def __init__(self, rank: int, meeting: Meeting):
        self.rank, self.meeting = rank, meeting

    def total(self, dtype: torch.dtype, *tensors: Tensor) -> list[Tensor]:
        brought = zip(*self.meeting.exchange(self.rank, "total", tensors), strict=True)
        return [torch.stack([t.to(dtype) for t in of_all]).sum(0).to(of_all[0].dtype) for of_all in brought]

    def gather(self, share: Share, *columns: Tensor) -> list[Tensor]:
        rows = share.most if share.counts is None else share.counts[share.rank]
        assert {len(t) for t in columns} == {rows}
        return [torch.cat(of_all) for of_all in zip(*self.meeting.exchange(self.rank, "gather", columns), strict=True)]


def of_each(counts: tuple[int, ...], call: Callable[..., Any], told: bool = True) -> list[Any]:
    """`call(peers=…, share=…)` as each process of those that have so many rows makes it; not `told`, of padded ones.
    All of them bring the same together, in the same order."""
    size = len(counts)
    meeting, results = Meeting(size), [None] * size

    def process(rank: int) -> None:
        share = Share(rank, size, max(counts), counts if told else None)
        results[rank] = meeting.take_part(lambda: call(peers=Neighbours(rank, meeting), share=share))

    threads = [Thread(target=process, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    faults = [result for result in results if isinstance(result, BaseException)]
    for fault in sorted(faults, key=lambda fault: isinstance(fault, BrokenBarrierError)):
        raise fault
    assert all(calls == meeting.calls[0] for calls in meeting.calls)
    return results
