"""compute-sanitizer over the smallest launches of each kernel: reads and writes out of bounds, races, reads of memory
that nothing wrote."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

from fer_fast.registry import LOSSES

from ..problems import Problem, Shape
from .shapes import REHEARSED, every
from .smallest import Watched
from .step import Asked, Case, Result, main
from .tools import find, watch

DTYPE = "float16"
TOOLS = ("memcheck", "racecheck", "initcheck")
SHAPES = (Shape(n=37, d=33, classes=7, k=3, bank=19), Shape(n=37, d=33, classes=65, k=3, bank=19))
SUMMARY = re.compile(r"SUMMARY: (\d+) (?:error|hazard)")


@dataclass
class Sanitized(Result):
    """What one tool found: how many faults, and its words on the first of them."""

    tool: str
    losses: list[str]
    errors: int | None = None
    first: list[str] | None = None


def cases(asked: Asked) -> Iterator[Case]:
    runs = [(shape, tool) for shape in SHAPES for tool in TOOLS][: 1 if asked.rehearse else None]
    for shape, tool in runs:
        yield f"{tool} C {shape.classes}", partial(check, tool, shape, asked)


def problems(rehearse: bool) -> list[Problem]:
    """What the tools watch, to be compiled before: under a tool that takes longest."""
    return every(SHAPES[: 1 if rehearse else None], (DTYPE,), rehearse)


def check(tool: str, shape: Shape, asked: Asked) -> Iterator[Sanitized]:
    """One tool over every loss, in a process of its own: starting it takes longer than the launches. It may take all
    the time that is left: on an H100 six shares of 14 s were too short for any."""
    path, losses = find("compute-sanitizer"), list(REHEARSED[:2] if asked.rehearse else LOSSES)
    row = Sanitized(tool=tool, losses=losses, status="skipped", reason="not installed")
    if path:
        watched = Watched(losses, asdict(shape), DTYPE, asked.device.type)
        # A block of PyTorch's own cache hides what is read beyond a tensor in it.
        how = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        try:
            _judge(row, watch([path, "--tool", tool], watched, max(1.0, asked.left), asked.folder, **how))
        except subprocess.TimeoutExpired as error:
            launched = len({*losses} & {*error.output.splitlines()})
            row.status, row.reason = "timed out", f"after {error.timeout:.0f} s, {launched} of {len(losses)} losses"
    yield row


def _judge(row: Sanitized, text: str) -> None:
    """Read the tool's summary; without one, or with a loss that was not launched, it has not run."""
    summary, lines = SUMMARY.search(text), text.splitlines()
    if not summary or not set(row.losses) <= set(lines):
        row.status, row.reason = "failed", next((line for line in reversed(lines) if line.strip()), "it said nothing")
        return
    row.errors = int(summary[1])
    row.first = [line for line in lines if line.startswith("=========") and len(line) > 12][1:13]
    row.status, row.reason = ("wrong", f"{row.errors} found") if row.errors else ("measured", "")


if __name__ == "__main__":
    main(cases)
