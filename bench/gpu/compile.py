"""Compiles what the other steps launch, on every core, into Triton's cache: for the chip of this machine, or for one
that is not there.

Launches go through Triton's own path to a driver that does nothing, so that what is compiled, and the key it is kept
under, is what a launch on the chip asks for. A cache may be carried to another folder: see :func:`settle`.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch

from ..audit_resources import CHIPS
from ..check import first_line
from ..launches import AbsentChip, launching_on
from ..problems import Problem
from . import graphs, host, parity, repeats, sanitizer, tiles, timings
from .engines import OURS
from .shapes import name, shrunk
from .step import Asked, Case, Result, main

PARTS = {  # by worth of what a second compiles
    "timings": timings,
    "graphs": graphs,
    "host": host,
    "parity": parity,
    "tiles": tiles,
    "repeats": repeats,
    "sanitizer": sanitizer,
}
NICENESS = 5
MANY = 10**4  # multiprocessors, more than there are tiles of rows
CPU = torch.device("cpu")


class Job(NamedTuple):
    """A step to launch, with its own tile settings or one in their place."""

    problem: Problem
    setting: tiles.Setting | None = None


@dataclass
class Compiled(Result):
    """What became of a part's launches: kernels compiled, those that were there, and settings that are refused."""

    part: str
    jobs: int
    compiled: int
    found: int
    refused: list[str]


def cases(asked: Asked) -> Iterator[Case]:
    pool = ProcessPoolExecutor(1 if asked.rehearse else os.cpu_count(), get_context("spawn"), _begin)
    try:
        for part in (part for part in PARTS if part in asked.parts):
            yield part, partial(compile_part, part, asked, pool)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def jobs(part: str, asked: Asked) -> list[Job]:
    """The launches of a part, once each."""
    if PARTS[part] is tiles:
        with launching_on(AbsentChip(asked.chip)):
            grids = [(given, tiles.settings(given, CPU)) for given in tiles.problems(asked.rehearse)]
        found = [Job(shrunk(given), setting) for given, settings in grids for setting in settings]
    else:
        found = [Job(problem) for problem in dict.fromkeys(map(shrunk, PARTS[part].problems(asked.rehearse)))]
    return found[: 1 if asked.rehearse else None]


def compile_part(part: str, asked: Asked, pool: Executor) -> Iterator[Compiled]:
    """Launch every job of a part, as many at a time as there are cores."""
    row = Compiled(part, 0, 0, 0, [])
    for compiled, found, refused in pool.map(partial(launch, asked.chip), jobs(part, asked)):
        row.jobs, row.compiled, row.found = row.jobs + 1, row.compiled + compiled, row.found + found
        row.refused += [refused] if refused else []
        if asked.left < 0:
            row.reason = "not all: its time was over"
            break
    yield row


def _begin() -> None:
    torch.set_num_threads(1)
    os.nice(NICENESS)


@cache
def _chip(name: str) -> AbsentChip:
    return AbsentChip(name)


def launch(chip: str, job: Job) -> tuple[int, int, str]:
    """Kernels that one step compiles for a chip and kernels it finds in the cache, and why it is refused, if it is.

    With few programs at a time and with many: the rows that stand for many would else not be split as those are.
    """
    from triton import knobs

    seen = {False: 0, True: 0}

    def listen(*, cache_hit: bool, **_: object) -> None:
        seen[cache_hit] += 1

    knobs.compilation.listener = listen
    refused = ""
    with tiles.in_place(job.setting) if job.setting else nullcontext():
        try:
            for processors in (1, MANY):
                with launching_on(_chip(chip), processors):
                    OURS.bind(job.problem, job.problem.inputs(CPU))()
        except Exception as error:  # a setting that is too large for the chip, say
            refused = f"{job.setting or name(job.problem)}: {type(error).__name__}: {first_line(error)}"
    return seen[False], seen[True], refused


def family_of(capability: str) -> str:
    """The chip to compile for, of those the audit knows, by a device's capability "9.0"."""
    major, _, minor = capability.partition(".")
    target = int(major) * 10 + int(minor or 0)
    return next((name for name, chip in CHIPS.items() if chip.target[:2] == ("cuda", target)), "")


def settle(folder: Path) -> None:
    """Make a cache that was carried here one that Triton finds: its lists of files hold absolute paths."""
    for path in folder.glob("*/__grp__*.json"):
        group = json.loads(path.read_text(encoding="utf-8"))
        here = {of: str(path.parent.resolve() / of) for of in group["child_paths"]}
        if here != group["child_paths"]:
            path.write_text(json.dumps({"child_paths": here}), encoding="utf-8")


if __name__ == "__main__":
    main(cases)
