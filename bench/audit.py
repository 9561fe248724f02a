"""`python -m bench audit`: what kernels move, multiply, launch and take of a chip, found without a GPU.

Traffic is counted in Triton's interpreter and held against the floor of each loss; resources are read from code
compiled ahead of time. Exit status 1 if anything is over its limit: a change that adds a pass over the data, spills a
register in a loop or lengthens a hot one fails here.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec

import torch
from rich.console import Console
from rich.table import Table

from fer_fast import functional
from fer_fast.cli.parser import Parser
from fer_fast.errors import InputError
from fer_fast.registry import LOSSES
from fer_fast.suggest import one_of

from . import audit_resources
from .audit_resources import CHECKED, CHIPS, ResourceRow, Selection
from .child import lines
from .problems import DTYPES, Problem, Shape

MOST_BYTES = 1.05  # of the compulsory bytes a row
# Small, for the interpreter is slow; the widths and dtypes of the linear engines take different tiles. bfloat16 has
# float16's, and the interpreter cannot compute with it. 64 rows give each of its four programs a tile of 16, which
# Triton before 3.8 needs: a program more in the larger batch would count its sums as streamed.
SHAPES = {
    "class_table": {
        "float32": (Shape(n=64, d=64), Shape(n=64, d=512)),  # wider ones go through products that are not ours
        "float16": (Shape(n=64, d=512), Shape(n=64, d=1024)),
    },
    "ad_corre": {
        "float32": (Shape(n=64, d=64, k=3), Shape(n=32, d=512, k=3), Shape(n=32, d=1024, k=2)),
        "float16": (Shape(n=64, d=512, k=3),),
    },
    "pairwise": {"float32": (Shape(n=64, d=32),)},
    "range_loss": {"float32": (Shape(n=32, d=32),)},
    "contrastive": {"float32": (Shape(n=32, d=32, bank=64),)},
}
LINEAR = ("class_table", "ad_corre")  # engines whose cost is their bytes; the others' is their operations


@dataclass
class TrafficRow:
    """A loss in a dtype at a width, with its backward: streamed bytes an added row, operations in dots, launches, and
    what is allowed. `bytes` are of a backward from one, `scaled_bytes` of one from another factor."""

    loss: str
    dtype: str
    width: int
    bytes: float
    bytes_allowed: float | None
    scaled_bytes: float
    scaled_bytes_allowed: float | None
    operations: int
    operations_allowed: int | None
    launches: dict[str, int]

    @property
    def over(self) -> bool:
        limits = (
            (self.bytes, self.bytes_allowed),
            (self.scaled_bytes, self.scaled_bytes_allowed),
            (self.operations, self.operations_allowed),
        )
        return any(allowed is not None and found > allowed for found, allowed in limits)


def traffic(loss: str, shape: Shape, dtype: str) -> TrafficRow:
    """Count one loss and its backward at two batch sizes: what does not grow with the batch drops out.

    Allowed are 1.05 of the compulsory bytes where bytes are the cost: x read and dx written (MVA reads x again, and its
    groups; Ad-Corre and its parts read e twice). A backward from one adds nothing, from another factor a pass over dx
    in place. A float16 gradient waits in float32 for the loss scale, so that it is written, read and written again.
    Where products are the cost: 4n²d for pairs, 4n(n+M)d + 4n²d for the contrastive losses. Tiles padded beyond the
    batch do not occur at these sizes.
    """
    from .audit_traffic import count  # Triton is there on Linux only, and is told here to interpret

    spec = LOSSES[loss]
    if loss in ("selfcon", "supcon"):
        shape = replace(shape, bank=0)
    problems = [Problem(loss, each, dtype) for each in (shape, replace(shape, n=2 * shape.n))]
    small, large = (count(lambda p=p: _loss_and_gradient(p)) for p in problems)
    moved, scaled = small.streamed(large, shape.n), count(lambda: _loss_and_gradient(problems[0], factor=0.5))
    added = sum(scaled.moved(name) - small.moved(name) for name in moved) / shape.n
    n, keys, d = 2 * shape.n, 2 * shape.n + shape.bank, shape.d
    compulsory = (problems[1].floor.bytes - problems[0].floor.bytes) / shape.n
    size, rows = DTYPES[dtype].itemsize, max(1, shape.k)
    if loss == "md":
        compulsory += rows * d * size  # its gradient is the same for a class, but the chain rule reads each row again
    scaling = 2 * rows * d * size
    if dtype == "float16":
        compulsory, scaling = compulsory + 2 * rows * d * 4, 0
    operations = {"pairwise": 4 * n * n * d, "contrastive": 4 * n * keys * d + 4 * n * n * d}
    return TrafficRow(
        loss,
        dtype,
        d,
        sum(moved.values()),
        MOST_BYTES * compulsory if spec.engine in LINEAR else None,
        sum(moved.values()) + added,
        MOST_BYTES * (compulsory + scaling) if spec.engine in LINEAR else None,
        large.operations,
        operations.get(spec.engine),
        dict(large.launches),
    )


def every_traffic(losses: Iterable[str]) -> Iterator[TrafficRow]:
    """Each loss at each of its shapes, counted here: Triton must interpret."""
    for name in losses:
        for dtype, shapes in SHAPES[LOSSES[name].engine].items():
            yield from (traffic(name, shape, dtype) for shape in shapes)


def _loss_and_gradient(problem: Problem, factor: float = 1.0) -> None:
    inputs = problem.inputs(torch.device("cpu"))
    function = getattr(functional, problem.spec.function)
    loss = function(**inputs.arguments, backend="triton")
    torch.autograd.grad(loss, list(inputs.leaves.values()), torch.full_like(loss, factor))


def run(argv: list[str]) -> int:
    """Print the tables; 1 if anything is over its limit."""
    given = _parser().parse_args(argv)
    if find_spec("triton") is None:
        raise InputError("the audit needs Triton, which is not installed here (it is for Linux only)")
    if given.jobs < 1:
        raise InputError(f"--jobs: {given.jobs} is not a number above zero")
    selection = Selection(given.engine, given.chip or list(CHECKED), given.name, given.all, given.jobs)
    for engine in selection.engines:
        one_of(engine, audit_resources.engines(), "--engine")
    console, status, over, count = Console(highlight=False), Console(stderr=True), [], 0
    for name, make in TABLES.items():
        if given.only in (None, name):
            with status.status(f"{name}: this can take minutes"):
                table, found = make(selection)
            if table.rows:
                console.print(table)
            over, count = over + found, count + len(table.rows)
    if not count:
        raise InputError(f"no loss or kernel has {given.name!r} in its name there")
    for line in over:
        console.print(line, style="red", soft_wrap=True)
    return 1 if over else 0


def _parser() -> Parser:
    parser = Parser(prog="fer-fast bench audit", description=__doc__)
    parser.add_argument("--only", metavar="TABLE", choices=TABLES, help=f"one of {', '.join(TABLES)} (default: all)")
    parser.add_argument("--engine", metavar="NAME", action="append", default=[], help="one engine (may be repeated)")
    parser.add_argument("--name", default="", help="only losses and kernels whose name contains this")
    chips = f"resources on {', '.join(CHIPS)} (may be repeated; default: {', '.join(CHECKED)})"
    parser.add_argument("--chip", metavar="NAME", action="append", choices=CHIPS, help=chips)
    parser.add_argument("--all", action="store_true", help="resources of every dtype and width, not the usual ones")
    parser.add_argument("--jobs", metavar="N", type=int, default=2, help="compile N kernels at a time (default: 2)")
    return parser


def traffic_rows(losses: Iterable[str] = LOSSES) -> list[TrafficRow]:
    """Each loss at each of its shapes, counted in a process whose Triton interprets."""
    return [TrafficRow(**row) for row in lines(__name__, *losses, TRITON_INTERPRET="1")]


def resource_rows(selection: Selection) -> list[ResourceRow]:
    """Each selected kernel on each selected chip, compiled in a process whose Triton does not interpret."""
    asked = json.dumps(asdict(selection))
    return [ResourceRow(**row) for row in lines(audit_resources.__name__, asked, TRITON_INTERPRET="0")]


def _traffic(selection: Selection) -> tuple[Table, list[str]]:
    engines = selection.engines or SHAPES
    rows = traffic_rows(loss for loss in LOSSES if selection.name in loss and LOSSES[loss].engine in engines)
    names = [
        f"{row.loss} in {row.dtype} at d = {row.width} moves or multiplies more than it may" for row in rows if row.over
    ]
    return traffic_table(rows), names


def traffic_table(rows: list[TrafficRow]) -> Table:
    header = ("loss", "dtype", "d", "bytes\na row", "allowed", "scaled", "allowed", "operations", "allowed", "launches")
    table = _table("Traffic, counted", header)
    for row in rows:
        limits = (row.bytes_allowed, row.scaled_bytes_allowed, row.operations_allowed)
        allowed = ["" if limit is None else f"{limit:,.0f}" for limit in limits]
        found = (f"{row.bytes:,.0f}", f"{row.scaled_bytes:,.0f}", f"{row.operations:,}")
        counts = [text for pair in zip(found, allowed, strict=True) for text in pair]
        cells = (row.loss, row.dtype.replace("float", "fp"), str(row.width), *counts, str(sum(row.launches.values())))
        table.add_row(*cells, style="red" if row.over else None)
    return table


def _resources(selection: Selection) -> tuple[Table, list[str]]:
    rows = resource_rows(selection)
    names = [f"{row.engine} {row.case} on {row.chip}: {fault}" for row in rows for fault in row.faults]
    return resource_table(rows), names


def resource_table(rows: list[ResourceRow]) -> Table:
    header = ("kernel", "chip", "regs", "spilled\nbytes", "shared\nKiB", "warps ×\nheld", "matrix\nunit")
    header += ("instr.\na tile", "instr.\na row", "matrix\nclocks", "bound")
    table, engine, last = _table("Resources, compiled, and the cost of the hot loop, predicted", header), "", ""
    table.pad_edge = False
    table.caption = (
        "held: programs a multiprocessor runs at a time. instr.: of a warp for an iteration of the hot loop, of all "
        "warps for a row; +: and some not counted. clocks: of an iteration. bound: share of the floor's speed, at "
        "most. yellow: a fault that this Triton cannot help."
    )
    for row in rows:
        if row.engine != engine:
            table.add_section()
            table.add_row(row.engine, style="bold")
        shown = "" if (row.engine, row.case) == (engine, last) else row.case
        engine, last = row.engine, row.case
        cells = ("error",) if row.error else _resource_cells(row)
        style = "red" if row.over else "yellow" if row.found else None
        table.add_row(shown, row.chip, *cells, style=style)
    return table


def _resource_cells(row: ResourceRow) -> Iterable[str]:
    more = "" if row.whole else "+"
    yield str(row.registers)
    yield f"{row.spilled or ''}" + (" loop" if row.spills_in_loops else "")
    yield f"{row.shared / 1024:.1f}"
    yield f"{row.warps} × {row.programs}"
    yield " ".join(unit.split(".")[0] for unit in row.matrix)
    for count in (row.instructions, row.a_row):
        yield f"{count:.0f}{more}" if count else ""
    yield f"{row.matrix_clocks:.0f}" if row.matrix_clocks else ""
    yield f"{row.bound:.0%}" if row.bound else ""


def _table(title: str, header: tuple[str, ...]) -> Table:
    """A table whose numbers stand one above the other."""
    table = Table(title=title)
    for name in header:
        text = name in ("loss", "dtype", "kernel", "chip", "matrix\nunit")
        table.add_column(name, justify="left" if text else "right", overflow="fold")
    return table


TABLES: dict[str, Callable[[Selection], tuple[Table, list[str]]]] = {"traffic": _traffic, "resources": _resources}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for row in every_traffic(sys.argv[1:]):
        print(json.dumps(asdict(row)), flush=True)
