"""`python -m bench audit`: what kernels move, multiply, launch and take of a chip, found without a GPU.

Traffic is counted in Triton's interpreter and held against the floor of each loss; resources are read from code
compiled ahead of time. Exit status 1 if anything is over its limit: a change that adds a pass over the data or spills
a register fails here.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from rich.console import Console
from rich.table import Table

from fer_fast import functional
from fer_fast.cli.parser import Parser
from fer_fast.registry import LOSSES

from .problems import Problem, Shape

MOST_BYTES = 1.05  # of the compulsory bytes a row
SHAPES = {
    "class_table": Shape(n=64, d=64),
    "ad_corre": Shape(n=64, d=64, k=3),
    "pairwise": Shape(n=64, d=32),
    "range_loss": Shape(n=32, d=32),
    "contrastive": Shape(n=32, d=32, bank=64),
}
LINEAR = ("class_table", "ad_corre")  # engines whose cost is their bytes; the others' is their operations


@dataclass
class TrafficRow:
    """One loss: streamed bytes an added row, operations in dots, launches of kernels, each beside what is allowed."""

    loss: str
    bytes: float
    bytes_allowed: float | None
    operations: int
    operations_allowed: int | None
    launches: dict[str, int]

    @property
    def over(self) -> bool:
        bytes_over = self.bytes_allowed is not None and self.bytes > self.bytes_allowed
        return bytes_over or (self.operations_allowed is not None and self.operations > self.operations_allowed)


def traffic(loss: str) -> TrafficRow:
    """Count one loss with its gradient at two batch sizes: what does not grow with the batch drops out.

    Allowed are 1.05 of the compulsory bytes where bytes are the cost: x read and dx written (MVA reads x again, and its
    groups; Ad-Corre and its parts read e twice). Where products are the cost: 4n²d for pairs, 4n(n+M)d + 4n²d for
    the contrastive losses. Tiles padded beyond the batch do not occur at these sizes.
    """
    from .audit_traffic import count  # Triton is there on Linux only, and is told here to interpret

    spec = LOSSES[loss]
    shape = SHAPES[spec.engine]
    if loss in ("selfcon", "supcon"):
        shape = replace(shape, bank=0)
    problems = [Problem(loss, each) for each in (shape, replace(shape, n=2 * shape.n))]
    small, large = (count(lambda p=p: _loss_and_gradient(p)) for p in problems)
    n, keys, d = 2 * shape.n, 2 * shape.n + shape.bank, shape.d
    compulsory = (problems[1].floor.bytes - problems[0].floor.bytes) / shape.n
    if loss == "md":
        compulsory += shape.k * d * 4  # its gradient is the same for a class, but the chain rule reads each row again
    operations = {"pairwise": 4 * n * n * d, "contrastive": 4 * n * keys * d + 4 * n * n * d}
    return TrafficRow(
        loss,
        sum(small.streamed(large, shape.n).values()),
        MOST_BYTES * compulsory if spec.engine in LINEAR else None,
        large.operations,
        operations.get(spec.engine),
        dict(large.launches),
    )


def _loss_and_gradient(problem: Problem) -> None:
    inputs = problem.inputs(torch.device("cpu"))
    function = getattr(functional, problem.spec.function)
    loss = function(**inputs.tensors, **inputs.options, backend="triton")
    torch.autograd.grad(loss, list(inputs.leaves.values()))


def run(argv: list[str]) -> int:
    """Print the tables; 1 if anything is over its limit."""
    parser = Parser(prog="fer-fast bench audit", description=__doc__)
    parser.add_argument("--only", metavar="TABLE", choices=TABLES, help=f"one of {', '.join(TABLES)} (default: all)")
    given = parser.parse_args(argv)
    console, over = Console(highlight=False), []
    for name, make in TABLES.items():
        if given.only in (None, name):
            table, found = make()
            console.print(table)
            over += found
    for line in over:
        console.print(line, style="red")
    return 1 if over else 0


def traffic_rows() -> list[TrafficRow]:
    """Every loss, counted in a process whose Triton interprets."""
    lines = _lines([sys.executable, "-W", "ignore", "-m", __name__], TRITON_INTERPRET="1")
    return [TrafficRow(**row) for row in lines]


def _lines(command: list[str], **environment: str) -> list[dict]:
    result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {result.stderr.strip().splitlines()[-1]}")
    return [json.loads(line) for line in result.stdout.splitlines()]


def _traffic() -> tuple[Table, list[str]]:
    rows = traffic_rows()
    return traffic_table(rows), [f"{row.loss} moves or multiplies more than it may" for row in rows if row.over]


def traffic_table(rows: list[TrafficRow]) -> Table:
    table = Table("loss", "bytes a row", "allowed", "operations", "allowed", "launches", title="Traffic, counted")
    for row in rows:
        bytes_allowed = "" if row.bytes_allowed is None else f"{row.bytes_allowed:.0f}"
        operations_allowed = "" if row.operations_allowed is None else f"{row.operations_allowed:,}"
        launches = str(sum(row.launches.values()))
        cells = (row.loss, f"{row.bytes:.0f}", bytes_allowed, f"{row.operations:,}", operations_allowed, launches)
        table.add_row(*cells, style="red" if row.over else None)
    return table


TABLES: dict[str, Callable[[], tuple[Table, list[str]]]] = {"traffic": _traffic}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in LOSSES:
        print(json.dumps(asdict(traffic(name))), flush=True)
