"""The steps in order of worth, and one run through them."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from fer_fast.errors import InputError

from .. import rows
from .compile import family_of
from .driver import Ended, run
from .record import Record
from .step import Asked

LEAST, MARGIN = 8.0, 2.0  # seconds: fewer are not worth a start; that a step ends before it is ended
TOOL = 40.0  # the least for a tool of the toolkit: on an H100 14 s were too few for compute-sanitizer, 7 for ncu
PROBE_SECONDS = 60.0
PATIENCE = 5  # times the limits of a chip's steps, on a CPU that may be busy


class Step(NamedTuple):
    """A module of this package, the seconds it may take, those it may take without a row, and how many are worth a
    start. `compiles`: rehearsed, its launches go to a chip that is not there; those of the others to the
    interpreter."""

    name: str
    seconds: float
    silence: float
    compiles: bool = False
    least: float = LEAST


STEPS = (
    Step("rates", 25, 20),
    Step("compile", 110, 110, compiles=True),
    Step("parity", 90, 45),
    Step("options", 60, 45),
    Step("timings", 120, 60),
    Step("kernels", 25, 20),
    Step("tiles", 75, 40),
    Step("graphs", 40, 30),
    Step("host", 25, 20, compiles=True),
    Step("repeats", 45, 30),
    Step("sanitizer", 90, 90, least=TOOL),
    Step("profile", 60, 60, least=TOOL),
    Step("steps", 300, 150),
    Step("feed", 75, 60),
    Step("training", 3600, 120),
)
NAMES = tuple(step.name for step in STEPS)


@dataclass
class Run:
    """What was asked for. `seconds` are all there are."""

    seconds: float
    only: tuple[str, ...]
    out: Path
    rehearse: bool
    again: bool  # measure what has been measured
    cache: str
    asked: Asked
    say: Callable[[str], None] = print

    def __post_init__(self):
        self.ends = time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        return self.ends - time.monotonic()


def go(asked: Run) -> Record:
    """Every step that was asked for, as far as the time goes."""
    machine = probe(asked)
    environment = machine["environment"]
    file = "rehearsal.jsonl" if asked.rehearse else rows.file_name(environment["chip"])
    record = Record(asked.out / file, environment, asked.rehearse)
    record.add("probe", {name: value for name, value in machine.items() if name != "environment"})
    chip = asked.asked.chip if asked.rehearse else family_of(machine["capability"])
    asked.asked = replace(asked.asked, chip=chip)
    for step in STEPS:
        if step.name not in asked.only:
            continue
        if asked.left < step.least:
            record.add(step.name, _note("skipped", f"not {step.least:.0f} s were left"))
        elif step.name == "compile" and not chip:
            record.add(step.name, _note("skipped", f"no target for capability {machine['capability']}"))
        else:
            _take(step, asked, record)
    return record


def probe(asked: Run) -> dict[str, Any]:
    """The machine's row. Without it there is nothing to measure."""
    heard: list[dict[str, Any]] = []
    ended = _start(Step("probe", PROBE_SECONDS, PROBE_SECONDS), asked, [], PROBE_SECONDS, heard.append)
    if not heard or heard[0]["status"] != "measured":
        raise InputError(f"no GPU can be used ({heard[0]['reason'] if heard else ended.reason}); --rehearse needs none")
    return heard[0]


def _take(step: Step, asked: Run, record: Record) -> None:
    """One step; where a case takes it down, again for the cases behind that one."""
    # What another machine compiled is not here.
    done = [] if asked.again or step.name == "compile" else record.done(step.name)
    begun = time.monotonic()
    if asked.rehearse:
        step = step._replace(seconds=PATIENCE * step.seconds, silence=PATIENCE * step.silence)
    while True:
        limit = min(step.seconds - (time.monotonic() - begun), asked.left)
        if limit < step.least:
            record.add(step.name, _note("skipped", "the rest of its cases: its time was over"))
            return
        heard: list[dict[str, Any]] = []

        def hear(row: dict[str, Any], heard: list = heard) -> None:
            heard.append(row)
            record.add(step.name, row)

        ended = _start(step, asked, done, limit, hear)
        asked.say(f"{step.name}: {len(heard)} rows, {asked.left:.0f} s left")
        if ended.whole:
            return
        record.add(step.name, _note(ended.status, ended.reason, ended.case))
        if not ended.case or ended.case in done:
            return
        done += [row["case"] for row in heard if row["case"]] + [ended.case]


def _start(step: Step, asked: Run, done: Iterable[str], limit: float, heard: Callable[[dict[str, Any]], None]) -> Ended:
    told = replace(asked.asked, ends=time.time() + limit - MARGIN, done=tuple(done))
    environment = {"TRITON_INTERPRET": "1" if asked.rehearse and not step.compiles else "0"}
    environment |= {"TRITON_CACHE_DIR": asked.cache} if asked.cache else {}
    module = f"{__package__}.{step.name}"
    return run(module, vars(told), min(limit + step.silence, max(asked.left, LEAST)), step.silence, environment, heard)


def _note(status: str, reason: str, case: str = "") -> dict[str, Any]:
    return {"case": case, "status": status, "reason": reason}
