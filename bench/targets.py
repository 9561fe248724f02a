"""`python -m bench targets`: the ratios this library promises on a CPU, each with its promise beside it.

A ratio is of two medians taken in turns in one process, after both answers were checked; the matrix products a loss
cannot avoid are its yardstick, on the same operands. Nothing fails here: a timing is evidence, not a test.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from fer_fast.cli.parser import Parser
from fer_fast.errors import InputError

from . import rows
from .check import truth
from .contenders import COMPILED, EAGER, FER_FAST, Contender, Step
from .measure import in_turns
from .problems import Inputs, Problem, Shape
from .table import seconds_text

SECONDS = 6.0  # of timing, each ratio
ENSC = Problem("ensc", Shape(n=512, d=128, bank=65536))
MARGINAL = Problem("marginal", Shape(n=4096, d=256))
LMCL = Problem("lmcl", Shape(n=1024, d=128, classes=100_000))
AD_CORRE = Problem("ad-corre", Shape(n=2048, d=256, k=7))
LONGEST = 262144


@dataclass(frozen=True)
class TargetRow:
    """Median seconds of this library and of what it is held against. `ratio` is ours over the other where the promise
    is "at most", and the other over ours where it is "at least"."""

    table: str
    what: str
    shape: str
    seconds: float
    other: float
    ratio: float
    promise: str
    kept: bool
    environment: dict[str, Any]


def run(argv: list[str]) -> int:
    """Measure all promises and print them."""
    parser = Parser(prog="fer-fast bench targets", description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: 2)")
    parser.add_argument(
        "--longest", type=int, default=LONGEST, help=f"batch of Ad-Corre to end at (default: {LONGEST})"
    )
    parser.add_argument("--record", metavar="FILE", help="append the rows to a file, one JSON object a line")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    found = []
    for row in measure(given.longest):
        found.append(row)
        if given.record:
            rows.append(Path(given.record), [row])
    Console(highlight=False).print(table(found))
    return 0


def measure(longest: int) -> Iterator[TargetRow]:
    """Every promise in turn."""
    for problem, limit in ((ENSC, 1.25), (MARGINAL, 1.6)):
        yield _held(problem, "its two products", _products, limit, slower=True)
    yield _held(LMCL, "its three products", _classifier_products, 1.3, slower=True)
    for problem, other, factor in ((ENSC, EAGER, 3.5), (ENSC, COMPILED, 1.0), (AD_CORRE, COMPILED, 10.0)):
        yield _held(problem, f"{other.name} PyTorch", _checked(other), factor, slower=False)
    n = AD_CORRE.shape.n
    while 2 * n <= longest:
        half, whole = (Problem(AD_CORRE.loss, replace(AD_CORRE.shape, n=size)) for size in (n, 2 * n))
        before, seconds = _medians([_checked(FER_FAST)(problem, _inputs(problem)) for problem in (half, whole)])
        ratio = seconds / before
        yield _row(whole, "itself at half the batch", seconds, before, ratio, "at most 2.2", ratio <= 2.2)
        n *= 2


def _held(problem: Problem, name: str, bind: Callable[[Problem, Inputs], Step], limit: float, *, slower: bool):
    """This library against something else on the same inputs: at most `limit` times slower, or that much faster."""
    inputs = _inputs(problem)
    ours, other = _medians([_checked(FER_FAST)(problem, inputs), bind(problem, inputs)])
    ratio = ours / other if slower else other / ours
    promise = f"at most {limit:g}" if slower else f"at least {limit:g}"
    return _row(problem, name, ours, other, ratio, promise, ratio <= limit if slower else ratio >= limit)


def _inputs(problem: Problem) -> Inputs:
    return problem.inputs(torch.device("cpu"))


def _checked(contender: Contender) -> Callable[[Problem, Inputs], Step]:
    """The contender's step, after its answer was held against the float64 reference."""

    def bind(problem: Problem, inputs: Inputs) -> Step:
        verdict = truth(problem, inputs).judge(contender, problem, inputs.to())
        if not verdict.right:
            raise InputError(f"{contender.name} is wrong on {problem.loss}, {problem.shape}: {verdict.reason}")
        return contender.bind(problem, inputs)

    return bind


def _products(problem: Problem, inputs: Inputs) -> Step:
    """S = X Kᵀ and S K, all keys at once into memory that is there already: what loss and gradient cannot avoid."""
    rows_ = (inputs.tensors["x"] if "x" in inputs.tensors else inputs.tensors["z"]).detach()
    keys = torch.cat([rows_, inputs.tensors["bank_z"]]) if "bank_z" in inputs.tensors else rows_
    scores, sums = torch.empty(len(rows_), len(keys)), torch.empty_like(rows_)

    def step() -> dict[str, torch.Tensor]:
        torch.mm(rows_, keys.T, out=scores)
        torch.mm(scores, keys, out=sums)
        return {"sums": sums}

    return step


def _classifier_products(problem: Problem, inputs: Inputs) -> Step:
    """F = X Wᵀ, F W and Fᵀ X, all logits at once into memory that is there already."""
    rows_, weight = inputs.tensors["x"].detach(), inputs.tensors["weight"].detach()
    logits, dx, dweight = torch.empty(len(rows_), len(weight)), torch.empty_like(rows_), torch.empty_like(weight)

    def step() -> dict[str, torch.Tensor]:
        torch.mm(rows_, weight.T, out=logits)
        torch.mm(logits, weight, out=dx)
        torch.mm(logits.T, rows_, out=dweight)
        return {"dx": dx, "dweight": dweight}

    return step


def _medians(steps: list[Step]) -> list[float]:
    return [times.q50 for times in in_turns([[step] for step in steps], torch.device("cpu"), SECONDS)]


def _row(problem: Problem, other: str, ours: float, theirs: float, ratio: float, promise: str, kept: bool) -> TargetRow:
    what = f"{problem.loss} against {other}"
    environment = rows.environment(torch.device("cpu"))
    return TargetRow("targets", what, str(problem.shape), ours, theirs, ratio, promise, kept, environment)


def table(found: list[TargetRow]) -> Table:
    """One line a promise."""
    result = Table("what", "shape", "ours", "other", "ratio", "promised", title="promises on a CPU")
    for row in found:
        times = (seconds_text(row.seconds), seconds_text(row.other))
        result.add_row(
            row.what, row.shape, *times, f"{row.ratio:.2f}", row.promise, style=None if row.kept else "yellow"
        )
    return result
