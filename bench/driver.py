"""Runs problems: build inputs, check every contender against the reference, then time the right ones in turns."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from .check import Truth, Verdict, truth
from .contenders import COMPILED, EAGER, FER_FAST, Contender
from .measure import Gauge, Times, Yardsticks, in_turns, input_sets, peak_bytes
from .peers import PEERS
from .problems import Inputs, Problem
from .rows import Row, finite

CONTENDERS = {contender.name: contender for contender in (FER_FAST, EAGER, COMPILED, *PEERS)}


@dataclass(frozen=True)
class Setting:
    """What is the same for all problems of a run."""

    contenders: tuple[Contender, ...]
    device: torch.device
    gauge: Gauge
    seconds: float  # of timing, each problem
    environment: dict
    command: Callable[[Problem], str]  # that measures one problem again
    draws: int = 0  # of inputs beyond those that are checked, for plain PyTorch's error


@dataclass
class Entry:
    """A contender on its way through one problem: what became of it so far."""

    contender: Contender
    reason: str = ""
    status: str = "timed"
    verdict: Verdict | None = None
    peak: int | None = None
    compile_seconds: float | None = None
    times: Times | None = None


def run_problem(problem: Problem, setting: Setting) -> list[Row]:
    """One row for each contender that has this loss. Who gives a wrong answer is reported so and never timed."""
    inputs = problem.inputs(setting.device)
    right = truth(problem, inputs, setting.draws)
    entries = [Entry(c) for c in setting.contenders if c.offers(problem)]
    for entry in entries:
        _admit(entry, problem, inputs, right, setting.device)
    running = [entry for entry in entries if entry.status == "timed"]
    if running:
        _time(running, problem, inputs, setting)
    yardsticks = setting.gauge.read()
    return [_row(entry, problem, right, yardsticks, setting) for entry in entries]


def _admit(entry: Entry, problem: Problem, inputs: Inputs, right: Truth, device: torch.device) -> None:
    """Ask whether the contender can run here, check its answer, measure its memory."""
    entry.reason = entry.contender.refuses(problem, device)
    if entry.reason:
        entry.status = "skipped"
        return
    fresh, start = inputs.to(), time.perf_counter()
    if entry.contender is COMPILED:
        torch.compiler.reset()
    try:
        entry.verdict = right.judge(entry.contender, problem, fresh)
    except torch.OutOfMemoryError:
        entry.status, entry.reason = "skipped", "does not fit in memory"
        return
    if entry.contender is COMPILED:
        entry.compile_seconds = time.perf_counter() - start  # its first step is in it
    if not entry.verdict.right:
        entry.status, entry.reason = "wrong", entry.verdict.reason
        return
    entry.peak = peak_bytes(entry.contender.bind(problem, fresh), device)


def _time(running: list[Entry], problem: Problem, inputs: Inputs, setting: Setting) -> None:
    """All contenders see the same sets of inputs; centers, which a step moves, are each contender's own."""
    count = input_sets(inputs.bytes, setting.device)
    sets = [inputs, *(problem.inputs(setting.device, seed) for seed in range(1, count))]
    steps = [[entry.contender.bind(problem, _own_centers(each)) for each in sets] for entry in running]
    for entry, times in zip(running, in_turns(steps, setting.device, setting.seconds), strict=True):
        entry.times = times


def _own_centers(inputs: Inputs) -> Inputs:
    if "centers" not in inputs.tensors:
        return inputs
    return Inputs(inputs.tensors | {"centers": inputs.tensors["centers"].clone()}, inputs.options)


def _row(entry: Entry, problem: Problem, right: Truth, yardsticks: Yardsticks, setting: Setting) -> Row:
    contender, verdict, times, floor = entry.contender, entry.verdict, entry.times, problem.floor
    return Row(
        operator=problem.spec.engine,
        loss=problem.loss,
        family=problem.spec.family,
        shape=asdict(problem.shape),
        dtype=problem.dtype,
        contender=contender.name,
        contender_version=contender.version,
        backend=contender.backend(setting.device),
        status=entry.status,
        reason=entry.reason,
        q10=times and times.q10,
        q50=times and times.q50,
        q90=times and times.q90,
        rounds=times and times.rounds,
        compile_seconds=entry.compile_seconds,
        peak_bytes=entry.peak,
        floor_bytes=floor.bytes,
        floor_operations=floor.operations,
        copy_rate=yardsticks.copy_rate,
        matrix_rate=yardsticks.matrix_rate,
        fraction=times and floor.seconds(yardsticks.copy_rate, yardsticks.matrix_rate) / times.q50,
        checked_against=right.source if verdict else "",
        error=finite(verdict.error) if verdict else None,
        budget_used=finite(verdict.budget_used) if verdict else None,
        command=setting.command(problem),
        **setting.environment,
    )
