"""What the device runs in a step of the benchmark table, kernel by kernel: called, and replayed from a CUDA graph.

A replay may run what a call does not: a captured backward scales a copy of each gradient, for it may be replayed alone.
Answers are checked by the step `timings`. Rehearsed, the operations of the CPU stand in for kernels.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ..problems import Problem
from . import timings
from .capture import WARM_UPS, Captured, wait
from .engines import OURS
from .rates import gauge_of
from .shapes import name
from .step import Asked, Case, Result, main

STEPS = 5
MOST = 12  # kernels of a row, those that take longest


@dataclass
class Kernel:
    """Median seconds of a call, and calls a step."""

    name: str
    seconds: float
    calls: float


@dataclass
class Kernels(Result):
    """The kernels of a step, the longest first, and of all of them the seconds a step. `floor_bytes` where those, not
    operations, bound the step."""

    loss: str
    dtype: str
    shape: dict[str, int]
    called: list[Kernel]
    replayed: list[Kernel]
    called_seconds: float
    replayed_seconds: float
    floor_bytes: int | None
    copy_rate: float


def problems(rehearse: bool) -> list[Problem]:
    """The table's, with gradients, in the dtype that comes first."""
    found = [given for given in timings.problems(rehearse) if given.gradient]
    return [given for given in found if given.dtype == found[0].dtype]


def cases(asked: Asked) -> Iterator[Case]:
    for given in problems(asked.rehearse)[: 1 if asked.rehearse else None]:
        yield name(given), partial(measure, given, asked)


def measure(given: Problem, asked: Asked) -> Iterator[Kernels]:
    """The same step in both ways."""
    step, rates = OURS.bind(given, given.inputs(asked.device)), gauge_of(given.dtype, asked).read()
    called, called_seconds = seen(step, asked)
    replayed, replayed_seconds = seen(Captured(step, asked.device).replay, asked)
    by_bytes = given.floor.bytes / rates.copy_rate >= given.floor.operations / rates.matrix_rate
    yield Kernels(
        given.loss, given.dtype, asdict(given.shape), called, replayed, called_seconds, replayed_seconds,
        given.floor.bytes if by_bytes else None, rates.copy_rate,
    )  # fmt: skip


def seen(step: Callable[[], object], asked: Asked) -> tuple[list[Kernel], float]:
    """The longest kernels of a step, copies and fills among them, and the seconds of all a step."""
    steps, kind = (1, DeviceType.CPU) if asked.rehearse else (STEPS, DeviceType.CUDA)
    for _ in range(0 if asked.rehearse else WARM_UPS):
        step()
    wait(asked.device)
    with profile(activities=[ProfilerActivity.CPU if asked.rehearse else ProfilerActivity.CUDA]) as watched:
        for _ in range(steps):
            step()
        wait(asked.device)
    taken: dict[str, list[float]] = {}
    for event in watched.events():
        if event.device_type == kind:
            taken.setdefault(event.name, []).append(event.time_range.elapsed_us() / 1e6)
    longest = sorted(taken.items(), key=lambda of: -sum(of[1]))[:MOST]
    kernels = [Kernel(name, median(of), len(of) / steps) for name, of in longest]
    return kernels, sum(map(sum, taken.values())) / steps


if __name__ == "__main__":
    main(cases)
