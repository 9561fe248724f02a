"""The recorded rows as a Markdown table, and its place in the README."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fer_fast.errors import InputError
from fer_fast.registry import LOSSES

from .contenders import COMPILED, FER_FAST
from .problems import Shape, quick_shape
from .rows import Row
from .table import cells, si

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def markdown(rows: Sequence[Row]) -> str:
    """Every loss at its quick shape, written the way `--shape` takes it; rows are of one chip and dtype."""
    found, yard = at_quick_shapes(rows), rows[-1]
    compiled = any(COMPILED.name in by_name for by_name in found.values())
    titles = [
        "loss",
        "shape",
        "ours",
        "±",
        "eager",
        *(["compiled"] if compiled else []),
        "peer",
        "floor",
        "memory",
        "eager's",
    ]
    lines = [
        f"{source(rows)}; copy {si(yard.copy_rate, 'B/s')}, matrix product {si(yard.matrix_rate, 'FLOP/s')}.",
        "",
        f"| {' | '.join(titles)} |",
        f"|---|---|{'--:|' * (len(titles) - 2)}",
    ]
    for loss, by_name in found.items():
        if FER_FAST.name in by_name:
            shape = Shape(**by_name[FER_FAST.name].shape)
            lines.append(f"| {' | '.join([loss, f'`{shape}`', *cells(by_name, compiled)])} |")
    lines += [
        "",
        "A line again: `fer-fast bench --loss LOSS --shape SHAPE`. Each row in `bench/results/` has its exact command.",
    ]
    return "\n".join(lines)


def at_quick_shapes(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """The rows at each loss's quick shape, by loss, in the registry's order, and contender."""
    found: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row.shape == asdict(quick_shape(row.loss, row.device)):
            found[row.loss][row.contender] = row
    return {loss: found[loss] for loss in LOSSES if loss in found}


def source(rows: Sequence[Row]) -> str:
    """Chip, versions and commits of the rows, for the foot of a picture."""
    commits = " ".join(dict.fromkeys(row.commit for row in rows))
    row = rows[-1]
    threads = "" if row.device == "cuda" else f", {row.threads} threads"
    return f"{row.chip}{threads}, {row.dtype}, torch {row.versions['torch']}, commit {commits}, {row.date[:10]}"


def between_markers(path: Path, text: str) -> None:
    """Replace what stands between the two markers of a file."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{path}: the lines {BEGIN} and {END} are not there")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
