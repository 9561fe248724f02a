"""Runs a step as a program of its own, whatever becomes of it, and hears its rows as they come."""

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TextIO

from ..child import command

SHUTDOWN = 10.0  # seconds that a program may take to end after its last row


@dataclass
class Ended:
    """How a step's program ended; if not by its own word, in which case and why."""

    whole: bool
    case: str = ""
    status: str = ""
    reason: str = ""


def run(
    module: str,
    asked: dict[str, Any],
    limit: float,
    silence: float,
    environment: dict[str, str],
    heard: Callable[[dict[str, Any]], None],
) -> Ended:
    """Run a step for at most `limit` seconds, and at most `silence` of them without a row; `heard` gets the rows.

    Nothing of it runs on afterwards: it is killed with all that it started.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            command(module, json.dumps(asked)),
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        try:
            ended = _listen(process.stdout, limit, silence, heard)
            if not ended.status and not ended.whole:
                _explain(ended, process, errors)
        finally:
            _kill(process)
    return ended


def _listen(output: TextIO, limit: float, silence: float, heard: Callable[[dict[str, Any]], None]) -> Ended:
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(output, lines), daemon=True).start()
    ended, ends = Ended(whole=False), time.monotonic() + limit
    while True:
        left = ends - time.monotonic()
        try:
            line = lines.get(timeout=max(0.0, min(left, silence)))
        except queue.Empty:
            ended.status = "timed out"
            ended.reason = f"nothing came for {silence:.0f} s" if silence < left else f"its {limit:.0f} s were over"
            return ended
        if line is None:
            return ended
        row = _parsed(line)
        if "begin" in row:
            ended.case = row["begin"]
        elif "end" in row:
            ended.whole = True
            return ended
        else:
            heard(row)


def _read(output: TextIO, lines: queue.Queue) -> None:
    for line in output:
        lines.put(line)
    lines.put(None)


def _parsed(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if "begin" in row or "end" in row or {"case", "status"} <= row.keys():
            return row
    except (ValueError, TypeError, AttributeError):
        pass
    return {"case": "", "status": "failed", "reason": f"printed what is no row: {line.strip()[:100]!r}"}


def _explain(ended: Ended, process: subprocess.Popen, errors: TextIO) -> None:
    """Why a program ended without a word: the last line of its standard error, and its signal."""
    try:
        code = process.wait(SHUTDOWN)
    except subprocess.TimeoutExpired:
        code = 0
    errors.seek(0)
    last = ([line.strip() for line in errors if line.strip()] or ["no word of why"])[-1]
    how = signal.Signals(-code).name if code < 0 else f"exit {code}"
    missing = not ended.case and last.startswith("ModuleNotFoundError")
    ended.status, ended.reason = "skipped" if missing else "failed", f"{how}: {last}"[:300]


def _kill(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
