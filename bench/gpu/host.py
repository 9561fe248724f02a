"""The host's part of a step at batch 64: ours, called and replayed from a CUDA graph, and plain PyTorch's, called.

Rehearsed, our launches go to a chip that is not there, as `fer-fast bench launches` has it.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from fer_fast.registry import LOSSES

from .. import launches
from ..contenders import EAGER
from ..problems import Problem
from .capture import Captured, wait
from .engines import OURS
from .shapes import REHEARSED, name, problem
from .step import Asked, Case, Result, main

STEPS, ROUNDS = 50, 5


@dataclass
class HostRow(Result):
    """Seconds of a step as the host sees it, the best of a few rounds: it hands over many and then waits."""

    loss: str
    dtype: str
    shape: str
    seconds: float
    captured_seconds: float | None  # None where the chip is not there
    eager_seconds: float


def problems(rehearse: bool) -> list[Problem]:
    """Every loss at the batch of `fer-fast bench launches`."""
    return [problem(loss, launches.BATCH) for loss in (REHEARSED[:1] if rehearse else LOSSES)]


def cases(asked: Asked) -> Iterator[Case]:
    for given in problems(asked.rehearse):
        yield name(given), partial(_rehearse if asked.rehearse else measure, given, asked)


def measure(given: Problem, asked: Asked) -> Iterator[HostRow]:
    """Ours called and replayed, plain PyTorch's called."""
    ours, eager = (contender.bind(given, given.inputs(asked.device)) for contender in (OURS, EAGER))
    called, plain = _seconds(ours, asked), _seconds(eager, asked)
    yield HostRow(
        given.loss, given.dtype, str(given.shape), called, _seconds(Captured(ours, asked.device).replay, asked), plain
    )


def _seconds(call: Callable[[], object], asked: Asked) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        wait(asked.device)
        start = time.perf_counter()
        for _ in range(STEPS):
            call()
        wait(asked.device)
        best = min(best, (time.perf_counter() - start) / STEPS)
    return best


def _rehearse(given: Problem, asked: Asked) -> Iterator[HostRow]:
    chip = launches.AbsentChip(asked.chip)
    with launches.launching_on(chip):
        row = launches.measure(chip, given.loss, given.shape, labels="int64", timed=True)
    eager = _seconds(Captured(EAGER.bind(given, given.inputs(asked.device)), asked.device).replay, asked)
    yield HostRow(given.loss, given.dtype, row.shape, row.seconds, None, eager)


if __name__ == "__main__":
    main(cases)
