"""Nsight Compute on the hottest kernel of each engine: what it waits for."""

import csv
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

from ..problems import Shape
from ..rows import finite
from .shapes import SMALL
from .smallest import Watched
from .step import Asked, Case, Result, main
from .tools import find, watch

DURATION = "gpu__time_duration.sum"
SECTIONS = ("SpeedOfLight", "ComputeWorkloadAnalysis", "LaunchStats", "Occupancy", "SchedulerStats", "WarpStateStats")
# Counters by short name: what their names begin with, which differ a little between chips.
COUNTERS = {
    "memory": "gpu__compute_memory_throughput.avg.pct",
    "dram": "gpu__dram_throughput.avg.pct",
    "sm": "sm__throughput.avg.pct",
    "tensor": ("sm__inst_executed_pipe_tensor", "sm__pipe_tensor"),
    "issue": "smsp__issue_active.avg.pct",
    "warps": "sm__warps_active.avg.pct",
    "registers": "launch__registers_per_thread",
    "shared": "launch__shared_mem_per_block",
    "stall_loads": "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active",
    "stall_barrier": "smsp__average_warps_issue_stalled_barrier_per_issue_active",
    "stall_math": "smsp__average_warps_issue_stalled_math_pipe_throttle_per_issue_active",
}
UNITS = {"nsecond": 1e-9, "ns": 1e-9, "usecond": 1e-6, "us": 1e-6, "msecond": 1e-3, "ms": 1e-3, "second": 1.0, "s": 1.0}
PROFILED = (  # the quickest to start first, of a few tiles to every program
    ("center", Shape(n=65536, d=512)),
    ("variant", Shape(n=65536, d=512)),
    ("ad-corre", Shape(n=16384, d=256, k=7)),
    ("ensc", Shape(n=8192, d=256, bank=2**16)),
    ("marginal", Shape(n=16384, d=256)),
    ("range", Shape(n=4096, d=256)),
)


@dataclass
class Profiled(Result):
    """The longest kernel of a step: its share of the step's time on the device, and its counters by short name."""

    loss: str
    shape: dict[str, int]
    kernel: str = ""
    share: float | None = None
    counters: dict[str, float | None] | None = None


def cases(asked: Asked) -> Iterator[Case]:
    for loss, shape in PROFILED[: 1 if asked.rehearse else None]:
        yield f"{loss} {shape}", partial(profile, loss, SMALL if asked.rehearse else shape, asked)


def profile(loss: str, shape: Shape, asked: Asked) -> Iterator[Profiled]:
    """Profile one step, and take its longest kernel."""
    path, row = find("ncu"), Profiled(loss, asdict(shape), status="skipped", reason="not installed")
    if path:
        words = [path, "--csv", "--page", "raw", "--profile-from-start", "off", "--clock-control", "none"]
        words += [word for section in SECTIONS for word in ("--section", section)]
        dtype = "float16" if asked.rehearse else "bfloat16"
        watched = Watched([loss], asdict(shape), dtype, asked.device.type, mark=True)
        try:
            _judge(row, watch(words, watched, max(1.0, asked.left), asked.folder))
        except subprocess.TimeoutExpired as error:
            row.status, row.reason = "timed out", f"after {error.timeout:.0f} s"
    yield row


def _judge(row: Profiled, text: str) -> None:
    kernels = read(text)
    if not kernels:
        last = next((line for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
        row.status, row.reason = "failed", last
        return
    hottest = max(kernels, key=lambda kernel: kernel["seconds"])
    row.share = hottest["seconds"] / sum(kernel["seconds"] for kernel in kernels)
    row.kernel, row.counters = hottest.pop("kernel"), hottest
    row.status, row.reason = "measured", ""


def read(text: str) -> list[dict]:
    """The kernels of Nsight Compute's raw page: a line of names, a line of units, a line for each launch."""
    lines = text.splitlines()
    start = next((place for place, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    units, *launches = [*csv.DictReader(lines[start:])] or [{}]
    found = []
    for launch in launches:
        if not (launch.get("Kernel Name") and launch.get(DURATION)):
            continue
        counters = {short: _largest(launch, begins) for short, begins in COUNTERS.items()}
        duration = _number(launch[DURATION])
        if duration is None:
            continue
        counters["seconds"] = duration * UNITS.get(units[DURATION], 1e-9)
        found.append({"kernel": launch["Kernel Name"], **counters})
    return found


def _largest(launch: dict[str, str], begins: str | tuple[str, ...]) -> float | None:
    """Of the columns whose names begin so: a chip may have several pipes of a kind."""
    values = [_number(value) for name, value in launch.items() if name and name.startswith(begins)]
    return max((value for value in values if value is not None), default=None)


def _number(text: str | None) -> float | None:
    try:
        return finite(float((text or "").replace(",", "")))
    except ValueError:
        return None


if __name__ == "__main__":
    main(cases)
