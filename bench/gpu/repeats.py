"""The same bits every time: up to a thousand repetitions of each loss at shapes of several waves."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ..contenders import Step
from ..problems import Inputs, Problem
from .capture import wait
from .engines import OURS
from .shapes import LARGE, every, name
from .step import Asked, Case, Result, main

REPETITIONS, REHEARSED_REPETITIONS, ROUND = 1000, 3, 50
SECONDS = 3.0  # that one loss may take: what is slower is repeated less often
# Those of the parity at more rows, so that little is compiled anew.
WAVES = tuple(replace(shape, n=16384, bank=16384) for shape in LARGE if shape.d in (64, 100, 256))


@dataclass
class Repeated(Result):
    """How often a step was repeated, and which of its results were not the first's to the bit."""

    loss: str
    dtype: str
    shape: dict[str, int]
    repetitions: int
    differ: list[str]


def problems(rehearse: bool) -> list[Problem]:
    """Every loss in the two dtypes that take different ways through the kernels."""
    return every(WAVES, ("bfloat16", "float32"), rehearse)


def cases(asked: Asked) -> Iterator[Case]:
    for problem in problems(asked.rehearse):
        yield name(problem), partial(check, problem, asked)


def check(problem: Problem, asked: Asked) -> Iterator[Repeated]:
    """Repeat one step and compare on the device; the host asks for the answer once, at the end."""
    most = REHEARSED_REPETITIONS if asked.rehearse else REPETITIONS
    step = from_the_start(problem, problem.inputs(asked.device))
    first = {of: t.clone() for of, t in step().items()}
    differ = {of: torch.zeros((), dtype=torch.bool, device=asked.device) for of in first}
    begun, count = time.perf_counter(), 0
    while count < most and time.perf_counter() - begun < SECONDS:
        for of, t in step().items():
            differ[of] |= (bits(t) != bits(first[of])).any()
        count += 1
        if count % ROUND == 0:
            wait(asked.device)  # else the host hands over all of them before it looks at its watch
    found = [of for of, differs in differ.items() if differs.item()]
    yield Repeated(
        loss=problem.loss,
        dtype=problem.dtype,
        shape=asdict(problem.shape),
        repetitions=count,
        differ=found,
        status="wrong" if found else "measured",
        reason=f"not the same bits every time: {', '.join(found)}" if found else "",
    )


def from_the_start(problem: Problem, inputs: Inputs) -> Step:
    """A step of ours that finds its centers where they were at first, however often they have moved."""
    step, centers = OURS.bind(problem, inputs), inputs.tensors.get("centers")
    if centers is None:
        return step
    start = centers.clone()

    def again() -> dict[str, Tensor]:
        centers.copy_(start)
        return step()

    return again


def bits(t: Tensor) -> Tensor:
    """The same memory as integers: NaN is equal to itself, and 0 is not -0."""
    return t.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[t.element_size()])


if __name__ == "__main__":
    main(cases)
