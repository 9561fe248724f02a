"""The benchmark table: this library's largest promises, called and replayed from a CUDA graph, beside plain PyTorch,
its compiler and other packages.

Each answer is checked before it is timed. `torch.compile`, whose compiling takes longest, comes last.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial

from fer_fast import dispatch

from .. import rows
from ..contenders import COMPILED, EAGER, FER_FAST, Contender
from ..driver import Setting, run_problem
from ..peers import PEERS
from ..problems import Problem, Shape
from .capture import CAPTURED
from .engines import backends_run
from .rates import gauge_of
from .shapes import DRAWS, REHEARSED, SMALL, name, problem
from .step import Asked, Case, main

SECONDS = 1.0  # of timing, each problem
TABLE = (
    ("ensc", Shape(n=8192, d=256, bank=2**20)),
    ("center", Shape(n=262144, d=512)),
    ("ad-corre", Shape(n=65536, d=256, k=7)),
    ("supcon", Shape(n=32768, d=128)),
    ("variant", Shape(n=262144, d=512)),
    ("marginal", Shape(n=16384, d=256)),
    ("softmax", Shape(n=64, d=512)),
    ("lmcl", Shape(n=8192, d=512, classes=100_000)),
)
WHAT = {"both": True, "forward": False}  # whether gradients are asked for


def problems(rehearse: bool) -> list[Problem]:
    """The table in bfloat16, loss with gradients and loss alone, then in float32."""
    shapes = [(loss, SMALL) for loss in REHEARSED[:2]] if rehearse else TABLE
    dtypes = ("float32",) if rehearse else ("bfloat16", "float32")
    return [
        replace(problem(loss, shape, dtype), gradient=gradient)
        for dtype in dtypes
        for loss, shape in shapes
        for gradient in WHAT.values()
    ]


def cases(asked: Asked) -> Iterator[Case]:
    found = problems(asked.rehearse)
    for given in found:
        contenders = (FER_FAST, CAPTURED, EAGER, *(PEERS if given.gradient else ()))
        yield _name(given), partial(measure, given, contenders, asked)
    for given in found:
        # Its compiler for the CPU takes half a minute a graph, and is measured by the bench of the CPU.
        if not asked.rehearse:
            yield f"{_name(given)}, {COMPILED.name}", partial(measure, given, (FER_FAST, COMPILED), asked)


def _name(given: Problem) -> str:
    return f"{'both' if given.gradient else 'forward'} {name(given)}"


def measure(given: Problem, contenders: tuple[Contender, ...], asked: Asked) -> Iterator[rows.Row]:
    """Rows of one problem, one for each contender."""
    setting = Setting(
        contenders=tuple(contender for contender in contenders if not contender.unavailable(asked.device)),
        device=asked.device,
        gauge=_gauge(given.dtype, asked),
        seconds=0.0 if asked.rehearse else SECONDS,
        environment=rows.environment(asked.device),
        draws=DRAWS,
        command=lambda problem: "fer-fast bench gpu --only timings",
    )
    with dispatch.backend("triton"), backends_run() as ran:
        for row in run_problem(given, setting):
            yield replace(row, backend=ran[-1]) if row.contender == FER_FAST.name and ran else row


@cache
def _gauge(dtype: str, asked: Asked):
    return gauge_of(dtype, asked)


if __name__ == "__main__":
    main(cases)
