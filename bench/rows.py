"""Results as rows: one JSON object a line, appended and never rewritten."""

import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

from fer_fast.errors import InputError
from fer_fast.train.provenance import chip

from .contenders import installed

STATUS = ("timed", "wrong", "skipped")
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Row:
    """One contender on one problem. Times in seconds, memory in bytes beyond the inputs; None where not measured.

    `fraction` is the floor's time at the run's yardsticks over the median; `error` the worst relative error of loss,
    gradients and moved centers against `checked_against`, and `budget_used` that error over what this library
    allows itself.
    """

    operator: str
    loss: str
    family: str
    shape: dict[str, int]
    dtype: str
    contender: str
    contender_version: str
    backend: str
    status: str
    reason: str
    q10: float | None
    q50: float | None
    q90: float | None
    rounds: int | None
    compile_seconds: float | None
    peak_bytes: int | None
    floor_bytes: int
    floor_operations: int
    copy_rate: float
    matrix_rate: float
    fraction: float | None
    checked_against: str
    error: float | None
    budget_used: float | None
    device: str
    chip: str
    cores: int
    threads: int
    load: float
    versions: dict[str, str | None]
    commit: str
    date: str
    command: str

    def __post_init__(self):
        if self.status not in STATUS:
            raise ValueError(f"status: {self.status!r} is not one of {', '.join(STATUS)}")
        if (self.status == "timed") != (self.q50 is not None):
            raise ValueError(f"a row has times if it was timed: {self.status}, q50 {self.q50}")
        if self.status != "timed" and not self.reason:
            raise ValueError(f"a row that was not timed gives its reason: {self.loss}, {self.contender}")


def environment(device: torch.device) -> dict[str, Any]:
    """The fields of a row that say where and when it was measured."""
    return {
        "device": device.type,
        "chip": chip(device),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "versions": {
            "fer_fast": installed("fer-fast"),
            "torch": torch.__version__,
            "triton": installed("triton"),
            "python": platform.python_version(),
        },
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def commit() -> str:
    """`git describe --always` of the checkout this runs from, with "-dirty" where code differs from it; "unknown" when
    installed from a wheel."""
    if not (ROOT / ".git").exists():
        return "unknown"
    # Rows and words change while rows are recorded; what is measured does not.
    measured = (".", ":!bench/results", ":!bench/charts", ":!*.md")
    changes = git("status", "--porcelain", "--", *measured)
    return (git("describe", "--always") or "unknown") + ("-dirty" if changes else "")


def git(*words: str) -> str:
    """What git says of the repository this runs from; "" where it says nothing."""
    done = subprocess.run(("git", "-C", str(ROOT), *words), capture_output=True, text=True, check=False)
    return done.stdout.strip()


def file_name(chip_name: str) -> str:
    """The file of a chip's rows: its name in lower case, words joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", chip_name.lower()).strip("-") + ".jsonl"


def append(path: Path, rows: Iterable[Any]) -> None:
    """Add rows, dataclasses of one table, to the end of a file, which is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lines:
        lines.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)


def read(path: Path) -> list[Row]:
    """The rows of a file. A line that is no row is an `InputError` that names it."""
    names = {field.name for field in fields(Row)}
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            given = json.loads(line)
            if given.keys() != names:
                raise ValueError(f"fields differ: {', '.join(sorted(given.keys() ^ names))}")
            rows.append(Row(**given))
        except (ValueError, AttributeError) as error:
            raise InputError(f"{path}, line {number}: {error}") from None
    return rows


def finite(value: float) -> float | None:
    """The value, or None where it is infinite or NaN, which JSON cannot say."""
    return value if math.isfinite(value) else None


def latest(rows: Iterable[Row]) -> list[Row]:
    """The last row of each loss, shape, dtype, contender, chip and thread count, in the order of first appearance."""
    newest: dict[tuple, Row] = {}
    for row in rows:
        newest[row.loss, *row.shape.items(), row.dtype, row.contender, row.chip, row.threads] = row
    return list(newest.values())
