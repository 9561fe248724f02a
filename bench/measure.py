"""Stopwatches: yardsticks of the machine, contenders timed in turns over rotating inputs, peak memory."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from .contenders import Step
from .problems import DTYPES

MIN_ROUNDS, MAX_ROUNDS = 5, 400
MAX_SETS = 64
DEFAULT_CACHE = 64 * 2**20


@dataclass(frozen=True)
class Yardsticks:
    """The best this machine did in this run: bytes a second of a large copy (read + written), operations a second of
    a large matrix product in the dtype."""

    copy_rate: float
    matrix_rate: float


@dataclass(frozen=True)
class Times:
    """Seconds of a step at the 10th, 50th and 90th percentile, and how many were timed."""

    q10: float
    q50: float
    q90: float
    rounds: int


class Gauge:
    """Measures the yardsticks again beside each problem and keeps the best: the floor is the lowest a run showed.

    `size` bytes are copied and matrices of `side` rows multiplied; by default, more than fits in the caches.
    """

    def __init__(self, dtype: str, device: torch.device, size: int = 0, side: int = 0):
        gpu = device.type == "cuda"
        self.device = device
        size = size or (2**30 if gpu else max(2**27, 2 * cache_bytes(device)))
        self.source = torch.ones(size // 4, device=device)
        self.target = torch.empty_like(self.source)
        side = side or (8192 if gpu else 2048)
        self.a, self.b = (torch.randn(side, side, device=device).to(DTYPES[dtype]) for _ in range(2))
        self.copy = self.product = float("inf")

    def read(self) -> Yardsticks:
        """The best rates up to now, after three more trials of each."""
        for _ in range(3):
            self.copy = min(self.copy, stopwatch(lambda: self.target.copy_(self.source), self.device))
            self.product = min(self.product, stopwatch(lambda: self.a @ self.b, self.device))
        return Yardsticks(2 * self.source.nbytes / self.copy, 2 * len(self.a) ** 3 / self.product)


def stopwatch(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call that starts on an idle device: what the host needs to launch it counts."""
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    torch.cuda.synchronize(device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def in_turns(steps: Sequence[Sequence[Step]], device: torch.device, seconds: float) -> list[Times]:
    """Time contenders in turns, so that what disturbs the machine disturbs all of them.

    `steps[c][s]` is contender c on input set s. Each round takes every contender to its next set, far from the others':
    one that another has just read would be found in the cache. Stops when `seconds` are used up, after at least five
    rounds. Two steps warm up: a compiled one may compile again when it first sees that sizes inside it change with the
    labels.
    """
    taken: list[list[float]] = [[] for _ in steps]
    for of_contender in steps:
        for step in (of_contender * 2)[:2]:
            step()
    start, rounds = time.perf_counter(), 0
    while rounds < MIN_ROUNDS or (rounds < MAX_ROUNDS and time.perf_counter() - start < seconds):
        for turn, of_contender in enumerate(steps):
            place = rounds + turn * len(of_contender) // len(steps)
            taken[turn].append(stopwatch(of_contender[place % len(of_contender)], device))
        rounds += 1
    points = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    return [Times(*torch.tensor(t, dtype=torch.float64).quantile(points).tolist(), rounds) for t in taken]


def input_sets(bytes_of_one: int, device: torch.device) -> int:
    """How many sets of inputs outgrow the last cache twice over: 1 for large problems, at most 64."""
    return min(MAX_SETS, 1 + 2 * cache_bytes(device) // max(bytes_of_one, 1))


def cache_bytes(device: torch.device) -> int:
    """Size of the last-level cache."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    sizes = [p.read_text().strip() for p in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    kib = [int(size[:-1]) * (1024 if size.endswith("M") else 1) for size in sizes if size[:-1].isdigit()]
    return max(kib) * 1024 if kib else DEFAULT_CACHE


def peak_bytes(call: Step, device: torch.device) -> int:
    """The most memory that one step holds at a time beyond its inputs, its gradients included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    return _peak_of_allocator(call)


def _peak_of_allocator(call: Step) -> int:
    """On a CPU: the highest running sum over every allocation and release that the profiler saw in PyTorch's
    allocator, whoever asked for it. Scratch memory of matrix libraries is outside of it."""
    with (
        _quiet(),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen,
    ):
        call()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@contextmanager
def _quiet():
    """Standard error closed at the file descriptor: the profiler's library writes there, past Python."""
    kept = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
