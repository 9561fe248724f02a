"""The results of a run as a table for people: one line a problem."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from .contenders import COMPILED, EAGER, FER_FAST, OTHERS_SLACK
from .rows import Row

BUILT_IN = (FER_FAST.name, EAGER.name, COMPILED.name)
SHORT = {"pytorch-metric-learning": "pml", "linear_cross_entropy": "torch", "liger-kernel": "liger"}


def show(console: Console, problems: Sequence[Sequence[Row]], remarks: Sequence[str]) -> None:
    """Print the table of the rows of each problem, what its columns mean, what was wrong or skipped, and remarks."""
    # Wider than any line: rich would otherwise cut names and numbers off to fit the terminal.
    Console(file=console.file, width=1000, highlight=False).print(_table(problems))
    last = problems[-1][0]  # its yardsticks are the best of the run
    console.print(
        f"\n{last.chip}, {last.threads} thread{'s' if last.threads > 1 else ''}, torch {last.versions['torch']}, "
        f"{last.dtype}, commit {last.commit}. "
        f"Copy {si(last.copy_rate, 'B/s')}, product {si(last.matrix_rate, 'FLOP/s')}, "
        "measured in this run.\n\n"
        "Loss and gradients (centers moved too), each checked against the float64 reference before it was timed: ours "
        f"to at most twice eager's error, others' to {2 * OTHERS_SLACK:.0f} times.\n"
        "ours: median; ±: half its 10-90 % range; eager, compiled, peer: their time over ours; floor: the least time "
        "that compulsory bytes and operations take at the rates above, over ours; memory: peak beyond the inputs.\n",
    )
    for line in [*failures(problems), *remarks]:
        console.print(line)


def _table(problems: Sequence[Sequence[Row]]) -> Table:
    names = {row.contender for rows in problems for row in rows}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("loss", "shape"):
        table.add_column(title)
    compiled = (COMPILED.name,) if COMPILED.name in names else ()
    for title in ("ours", "±", "eager", *compiled, "peer", "floor", "memory", "eager's"):
        table.add_column(title, justify="right")
    for rows in problems:
        line = cells({row.contender: row for row in rows}, COMPILED.name in names)
        table.add_row(rows[0].loss, shape_text(rows[0].shape), *line)
    return table


def cells(rows: dict[str, Row], with_compiled: bool) -> list[str]:
    """One problem's rows, by contender, as text from "ours" to "eager's" memory."""
    ours, eager, peer = rows.get(FER_FAST.name), rows.get(EAGER.name), _fastest_peer(rows)
    return [
        _time(ours),
        _spread(ours),
        _ratio(eager, ours),
        *([_ratio(rows.get(COMPILED.name), ours)] if with_compiled else []),
        f"{_ratio(peer, ours)} {SHORT.get(peer.contender, peer.contender)}" if peer else "-",
        f"{ours.fraction:.0%}" if ours and ours.fraction else "-",
        _memory(ours),
        _memory(eager),
    ]


def _fastest_peer(rows: dict[str, Row]) -> Row | None:
    peers = [row for name, row in rows.items() if name not in BUILT_IN]
    return min(peers, key=lambda row: row.q50 or float("inf"), default=None)


def failures(problems: Sequence[Sequence[Row]]) -> list[str]:
    """A line for each contender that was wrong or skipped on a problem."""
    return [
        f"{row.contender}, {row.loss} {shape_text(row.shape)}: {row.status}, {row.reason}"
        for rows in problems
        for row in rows
        if row.status != "timed"
    ]


def shape_text(shape: dict[str, int]) -> str:
    """As "512+16384×128 C7": rows (and rows of the bank) × width, embeddings in front, classes behind."""
    embeddings = f"{shape['k']}×" if shape["k"] else ""
    bank = f"+{shape['bank']}" if shape["bank"] else ""
    return f"{embeddings}{shape['n']}{bank}×{shape['d']} C{shape['classes']}"


def si(value: float, unit: str) -> str:
    """1.5e12 FLOP/s as "1.5 TFLOP/s"."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def seconds_text(seconds: float) -> str:
    for factor, unit in ((1, "s"), (1e-3, "ms")):
        if seconds >= factor:
            return f"{_digits(seconds / factor)} {unit}"
    return f"{_digits(seconds * 1e6)} µs"


def _digits(value: float) -> str:
    """Three significant digits, for a value of one to a thousand."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def bytes_text(count: float) -> str:
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count / 2**10:.3g} KiB"


def _time(row: Row | None) -> str:
    if row is None:
        return "-"
    return seconds_text(row.q50) if row.q50 else row.status


def _spread(row: Row | None) -> str:
    return f"{(row.q90 - row.q10) / 2 / row.q50:.0%}" if row and row.q50 else ""


def _ratio(row: Row | None, ours: Row | None) -> str:
    if row is None:
        return "-"
    if row.q50 is None:
        return row.status
    return f"{row.q50 / ours.q50:.2f}×" if ours and ours.q50 else seconds_text(row.q50)


def _memory(row: Row | None) -> str:
    return bytes_text(row.peak_bytes) if row and row.peak_bytes is not None else "-"
