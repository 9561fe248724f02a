"""Every loss at large ragged shapes in every dtype, outputs poisoned: errors against float64 and plain PyTorch's."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

from ..check import truth
from ..problems import Problem
from ..rows import finite
from .engines import OURS, backends_run, poisoned
from .shapes import DRAWS, HALF_FIRST, LARGE, every, name
from .step import Asked, Case, Result, main


@dataclass
class Parity(Result):
    """The output that uses most of the error it is allowed: twice plain PyTorch's, and one rounding. `backend` is the
    one that computed."""

    loss: str
    dtype: str
    shape: dict[str, int]
    backend: str
    checked_against: str
    error: float | None
    budget_used: float | None


def problems(rehearse: bool) -> list[Problem]:
    """All that is checked, the first shape of every loss first."""
    return every(LARGE, HALF_FIRST, rehearse)


def cases(asked: Asked) -> Iterator[Case]:
    for problem in problems(asked.rehearse):
        yield name(problem), partial(check, problem, asked)


def check(problem: Problem, asked: Asked) -> Iterator[Parity]:
    """One answer of the kernels, loss, gradients and moved centers, held against the truth."""
    inputs = problem.inputs(asked.device)
    exact = truth(problem, inputs, DRAWS)
    with poisoned(), backends_run() as ran:
        verdict = exact.judge(OURS, problem, inputs.to())
    yield Parity(
        loss=problem.loss,
        dtype=problem.dtype,
        shape=asdict(problem.shape),
        backend=ran[-1] if ran else "",
        checked_against=exact.source,
        error=finite(verdict.error),
        budget_used=finite(verdict.budget_used),
        status="measured" if verdict.right else "wrong",
        reason=verdict.reason,
    )


if __name__ == "__main__":
    main(cases)
