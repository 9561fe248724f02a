"""What a person reads in a minute when the chip is gone."""

import math
from collections import Counter
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

from ..contenders import FER_FAST
from ..table import cells, seconds_text, shape_text, si
from . import plan
from .capture import CAPTURED
from .record import Record
from .step import FINAL

Rows = list[dict[str, Any]]
WORTH = 0.97  # of the present seconds: what a setting has to need less than to be shown
MOST_SHOWN = 12


def show(console: Console, record: Record) -> None:
    """Every step's answers for this chip and these kernels, of this run and of earlier ones."""
    wide = Console(file=console.file, width=200, highlight=False, markup=False)
    where = record.environment
    wide.print(
        f"\n{where['chip']}, kernels {where['kernels']}, torch {where['versions']['torch']}, "
        f"triton {where['versions']['triton']}" + (", rehearsed: no measurements" if where["rehearsal"] else "")
    )
    for step, summary in SUMMARIES.items():
        if found := latest(record.ours(step)):
            for part in summary(found):
                wide.print(part)
    for line in failures(record):
        wide.print(line)


def wrong(record: Record) -> bool:
    """Whether some answer of this library was not right."""
    latest_rows = (row for step in plan.NAMES for row in latest(record.ours(step)))
    return any(row["status"] == "wrong" and row.get("contender", FER_FAST.name) == FER_FAST.name for row in latest_rows)


def latest(found: Rows) -> Rows:
    """The last rows of each case: all of those that its last measurement gave."""
    newest: dict[tuple, dict] = {}
    for row in found:
        newest[row["case"], row.get("contender")] = row
    return list(newest.values())


def _rates(found: Rows) -> Iterable[RenderableType]:
    final = [row for row in found if row["status"] in FINAL]
    if final:
        products = ", ".join(f"{row['precision']} {si(row['matrix_rate'], 'FLOP/s')}" for row in final)
        yield f"copy {si(max(row['copy_rate'] for row in final), 'B/s')}; product {products}"


def _compile(found: Rows) -> Iterable[RenderableType]:
    yield compiled([row for row in found if row["status"] in FINAL])


def compiled(parts: Rows) -> str:
    """How much was compiled, and what was refused."""
    parts = [row for row in parts if row["status"] in FINAL]
    words = "; ".join(f"{row['part']} {row['compiled']} for {row['jobs']} steps" for row in parts)
    found, refused = sum(row["found"] for row in parts), [line for row in parts for line in row["refused"]]
    return "\n".join([f"kernels compiled: {words or 'none'}; found in the cache: {found}", *_shortened(refused)])


def _parity(found: Rows) -> Iterable[RenderableType]:
    found = [row for row in found if row["status"] in ("measured", "wrong")]
    kernels = [row for row in found if row["backend"] == "triton"]
    right = [row for row in found if row["status"] == "measured"]
    yield f"parity: {len(right)} of {len(found)} right, {len(kernels)} of them asked of kernels"
    if right:
        worst = max(right, key=lambda row: row["budget_used"])
        yield f"  most of its error budget: {worst['case']}, {worst['budget_used']:.0%}"
    yield from _wrong(found)


def _options(found: Rows) -> Iterable[RenderableType]:
    first, *rest = _parity(found)
    yield f"options, {first}"
    yield from rest


def _timings(found: Rows) -> Iterable[RenderableType]:
    table = Table("loss", "dtype", "what", "shape", box=None, pad_edge=False, header_style="bold")
    for title in ("captured", "floor", "ours", "±", "eager", "compiled", "peer", "floor", "memory", "eager's"):
        table.add_column(title, justify="right")
    problems: dict[tuple, dict[str, Any]] = {}
    for row in (row for row in found if "contender" in row):
        what = row["case"].split()[0]
        by = problems.setdefault((row["loss"], row["dtype"], what, shape_text(row["shape"])), {})
        by.setdefault(row["contender"], SimpleNamespace(**row))
    for problem, by in problems.items():
        captured = by.pop(CAPTURED.name, None)
        time, *_, floor, _, _ = cells({FER_FAST.name: captured}, False)
        table.add_row(*problem, time, floor, *cells(by, True))
    yield table
    yield "  captured: ours replayed from a CUDA graph, without the host; floor: the least time over it, and over ours"
    yield "  eager, compiled, peer: their time over ours"
    ours = [row for row in found if row["status"] == "timed" and row["contender"] == FER_FAST.name]
    blocked = {f"{row['loss']} {row['dtype']}" for row in ours if row["backend"] != "triton"}
    if blocked:
        yield f"  not of kernels: {', '.join(sorted(blocked))}"
    yield from _wrong(found)


def _kernels(found: Rows) -> Iterable[RenderableType]:
    table = Table("loss", "dtype", "shape", "kernel", box=None, pad_edge=False, header_style="bold")
    for title in ("called", "calls", "replayed", "calls", "moves", "of copy"):
        table.add_column(title, justify="right")
    for row in (row for row in found if row["status"] in FINAL):
        ways = [{kernel["name"]: kernel for kernel in row[way]} for way in ("called", "replayed")]
        problem, whole = (row["loss"], row["dtype"], shape_text(row["shape"])), row["replayed_seconds"]
        times = seconds_text(row["called_seconds"]), "", seconds_text(whole), ""
        table.add_row(*problem, "all", *times, *_bandwidth(row, whole))
        for name in dict.fromkeys([*ways[0], *ways[1]]):
            of_kernel = [of.get(name, {"seconds": 0.0, "calls": 0.0}) for of in ways]
            times = [text for of in of_kernel for text in (seconds_text(of["seconds"]), f"{of['calls']:g}")]
            longest = max(of["seconds"] * of["calls"] for of in of_kernel)
            table.add_row(*problem, name[:40], *times, *_bandwidth(row, longest))
    yield table
    yield "  moves: the floor's bytes over the time, where it is long enough to have moved them"


def _bandwidth(row: dict[str, Any], seconds: float) -> tuple[str, str]:
    rate = (row["floor_bytes"] or 0) / (seconds or math.inf)
    return (si(rate, "B/s"), f"{rate / row['copy_rate']:.0%}") if 0 < rate <= row["copy_rate"] else ("-", "-")


def _tiles(found: Rows) -> Iterable[RenderableType]:
    best: dict[tuple, dict] = {}
    tried = [row for row in found if row["status"] in FINAL]
    for row in (row for row in tried if row["seconds"]):
        entry = (row["loss"], row["dtype"], shape_text(row["shape"]), row["table"])
        if entry not in best or row["seconds"] < best[entry]["seconds"]:
            best[entry] = row
    better = {
        entry: row
        for entry, row in best.items()
        if row["present_seconds"] is None or row["seconds"] < WORTH * row["present_seconds"]
    }
    counts = ", ".join(f"{sum(row['status'] == of for row in tried)} {of}" for of in ("measured", "refused", "wrong"))
    yield f"tile settings: {counts}; better than the present one in {len(better)} of {len(best)} places"
    refusals = Counter(row["reason"].partition(":")[0] for row in tried if row["status"] == "refused")
    if refusals:
        yield f"  refused: {', '.join(f'{kind} {count}' for kind, count in refusals.items())}"
    if better:
        table = Table("loss", "dtype", "shape", "table", "key", "setting", box=None, header_style="bold")
        for title in ("time", "present", "date"):
            table.add_column(title, justify="right")
        for entry, row in better.items():
            changed = {name: value for name, value in row["setting"].items() if row["present"][name] != value}
            setting = ", ".join(f"{name}={value}" for name, value in changed.items())
            present = row["present_seconds"]
            times = (seconds_text(row["seconds"]), "wrong" if present is None else seconds_text(present))
            table.add_row(*entry, row["key"], setting, *times, row["date"][:10])
        yield table
    yield from _wrong(found)


def _graphs(found: Rows) -> Iterable[RenderableType]:
    whats = dict.fromkeys(row["what"] for row in found if "what" in row)
    for what in whats:
        asked = [row for row in found if row.get("what") == what and row["status"] in ("measured", "wrong")]
        skipped = {row["reason"] for row in found if row.get("what") == what and row["status"] == "skipped"}
        right = sum(row["status"] == "measured" for row in asked)
        yield f"{what}: {right} of {len(asked)} right" if asked else f"{what}: {', '.join(sorted(skipped))}"
    yield from _wrong(found)


def _host(found: Rows) -> Iterable[RenderableType]:
    table = Table("loss", title="host's part of a step, n = 64", box=None, header_style="bold")
    names = ("seconds", "captured_seconds", "eager_seconds")
    for title in ("ours", "captured", "eager"):
        table.add_column(title, justify="right")
    for row in (row for row in found if row["status"] in FINAL):
        table.add_row(row["loss"], *(seconds_text(row[name]) if row[name] else "-" for name in names))
    yield table


def _repeats(found: Rows) -> Iterable[RenderableType]:
    asked = [row for row in found if row["status"] in ("measured", "wrong")]
    right = sum(row["status"] == "measured" for row in asked)
    counts = sorted(row["repetitions"] for row in asked) or [0]
    yield f"the same bits in {counts[0]} to {counts[-1]} repetitions: {right} of {len(asked)}"
    yield from _wrong(found)


def _sanitizer(found: Rows) -> Iterable[RenderableType]:
    final = [row for row in found if row["status"] in FINAL]
    if final:
        yield "compute-sanitizer: " + ", ".join(f"{row['case']} {row['errors']} found" for row in final)
    for row in final:
        yield from (f"  {line}" for line in row["first"] if row["errors"])


def _profile(found: Rows) -> Iterable[RenderableType]:
    final = [row for row in found if row["status"] in FINAL]
    if not final:
        return
    names = [name for name in final[0]["counters"] if name != "seconds"]
    table = Table("loss", "kernel", "share", "time", *names, title="hottest kernels", box=None, header_style="bold")
    for row in final:
        counters = row["counters"]
        values = ("-" if counters[name] is None else f"{counters[name]:.3g}" for name in names)
        table.add_row(
            row["loss"], row["kernel"][:32], f"{row['share']:.0%}", seconds_text(counters["seconds"]), *values
        )
    yield table


def _steps(found: Rows) -> Iterable[RenderableType]:
    table = Table("recipe", "loss", title="training steps, 48 pixels", box=None, header_style="bold")
    for title in ("batch", "compile", "precision", "images/s", "step", "first"):
        table.add_column(title, justify="right")
    for row in (row for row in found if row["status"] == "measured"):
        times = (f"{row['images_per_second']:,.0f}", seconds_text(row["seconds"]), seconds_text(row["first_seconds"]))
        table.add_row(row["recipe"], row["loss"], str(row["batch"]), row["way"], row["precision"], *times)
    yield table
    yield from _wrong(found)


def _feed(found: Rows) -> Iterable[RenderableType]:
    for row in (row for row in found if row["status"] in FINAL):
        yield (
            f"images a second at {row['case']}: {row['resident']:,.0f} where they lie on the device, "
            f"{row['streamed']:,.0f} streamed; batches alone {row['alone']:,.0f}"
        )


def _training(found: Rows) -> Iterable[RenderableType]:
    for row in (row for row in found if "val_accuracy" in row):
        yield (
            f"training, {row['case']}: epoch {row['epoch']} after {row['seconds']:.0f} s, validation "
            f"{row['val_accuracy']:.2%}, {row['images_per_second']:,.0f} images/s {row['reason']}"
        )


SUMMARIES = {
    "rates": _rates,
    "compile": _compile,
    "parity": _parity,
    "options": _options,
    "timings": _timings,
    "kernels": _kernels,
    "tiles": _tiles,
    "graphs": _graphs,
    "host": _host,
    "repeats": _repeats,
    "sanitizer": _sanitizer,
    "profile": _profile,
    "steps": _steps,
    "feed": _feed,
    "training": _training,
}


def _wrong(found: Rows) -> Iterable[str]:
    lines = [
        ", ".join(filter(None, (row["case"], row.get("contender")))) + f": {row['reason']}"
        for row in found
        if row["status"] == "wrong"
    ]
    yield from (f"  wrong: {line}" for line in _shortened(lines))


def failures(record: Record) -> list[str]:
    """What was not measured and why, one line for each reason of a step."""
    lines = []
    for step in plan.NAMES:
        open_rows: dict[str, list[str]] = {}
        done = record.done(step)
        for row in latest(record.ours(step)):
            if row["case"] not in done and row["status"] != "running" and row.get("what") is None:
                open_rows.setdefault(f"{row['status']}, {row['reason']}", []).append(row["case"])
        for why, found in open_rows.items():
            several = f" and {len(found) - 1} more" if len(found) > 1 else ""
            lines.append(f"{step}: {found[0] or 'all that was left'}{several}: {why}")
    return _shortened(lines, 3 * MOST_SHOWN)


def _shortened(lines: list[str], most: int = MOST_SHOWN) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"... and {len(lines) - most} more"]
