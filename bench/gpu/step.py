"""What every step shares: what it is asked, and how it tells its rows, one JSON object a line, the moment they exist.

A step is a module of this package, run as a program of its own. Its `cases(asked)` yields names and, for each, a
function whose rows are measured one after the other. A case that raises fails alone; where it takes the device with
it, the program ends and is started again for the cases that are left.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, TextIO

import torch

from ..check import first_line

FINAL = ("measured", "timed", "wrong", "refused")  # a case with such a row is not measured again
Case = tuple[str, Callable[[], Iterable[Any]]]


@dataclass(frozen=True)
class Asked:
    """What a step is asked to do, and when it should have ended."""

    ends: float  # seconds since the epoch: parent and program share that clock
    rehearse: bool = False  # tiny shapes on the CPU, of which nothing is a measurement
    done: tuple[str, ...] = ()  # cases that have been measured
    chip: str = "sm90"  # to compile for
    fer2013: str = ""  # folder of the dataset
    folder: str = ""  # for what a step writes beside its rows
    parts: tuple[str, ...] = ()  # the steps that are asked for

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.ends - time.time()

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.rehearse else "cuda")


@dataclass(kw_only=True)
class Result:
    """What all rows have. `status` is one of :data:`FINAL`, or running, skipped, failed, timed out."""

    status: str = "measured"
    reason: str = ""


def main(cases: Callable[[Asked], Iterable[Case]]) -> None:
    """The program of a step: measure its cases until they, or its time, are over."""
    asked = Asked(**{name: _plain(value) for name, value in json.loads(sys.argv[1]).items()})
    lines = _own_output()

    def tell(**line: Any) -> None:
        print(json.dumps(line, ensure_ascii=False, allow_nan=False), file=lines, flush=True)

    for name, measure in cases(asked):
        if name in asked.done:
            continue
        if asked.left < 0:
            tell(case="", status="skipped", reason=f"from {name} on: its time was over")
            break
        tell(begin=name)
        try:
            for row in measure():
                tell(case=name, **asdict(row))
        except torch.OutOfMemoryError:
            tell(case=name, status="skipped", reason="does not fit in memory")
        except Exception as error:  # whatever one case raises is that case's result
            tell(case=name, status="failed", reason=f"{type(error).__name__}: {first_line(error)}")
        _leave_clean()
    tell(end=True)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _own_output() -> TextIO:
    """Standard output for rows alone: what libraries print goes to standard error."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return lines


def _leave_clean() -> None:
    """Gives memory back; ends the program where a case took the device with it."""
    if torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError as error:
            sys.exit(f"the device is lost: {first_line(error)}")
