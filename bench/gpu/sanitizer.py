"""compute-sanitizer over the smallest launches of each kernel: reads and writes out of bounds, races, reads of memory
that nothing wrote."""

import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

from fer_fast.registry import LOSSES

from ..problems import Shape
from .shapes import REHEARSED
from .smallest import Watched
from .step import Asked, Case, Result, main
from .tools import find, watch

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
    ends = time.perf_counter() + asked.seconds
    for tool in TOOLS:
        for shape in SHAPES[: 1 if asked.rehearse else None]:
            yield f"{tool} C {shape.classes}", partial(check, tool, shape, asked, ends)


def check(tool: str, shape: Shape, asked: Asked, ends: float) -> Iterator[Sanitized]:
    """One tool over every loss, in a process of its own: starting it takes longer than the launches."""
    path, losses = find("compute-sanitizer"), list(REHEARSED if asked.rehearse else LOSSES)
    row = Sanitized(tool=tool, losses=losses, status="skipped", reason="not installed")
    if path:
        watched = Watched(losses, asdict(shape), "float16", asked.device.type)
        # A block of PyTorch's own cache hides what is read beyond a tensor in it.
        how = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        try:
            text = watch([path, "--tool", tool], watched, max(1.0, ends - time.perf_counter()), asked.folder, **how)
            _judge(row, text)
        except subprocess.TimeoutExpired as error:
            row.status, row.reason = "timed out", f"after {error.timeout:.0f} s"
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
