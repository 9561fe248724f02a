"""What a training run does to the kernels beside calling them: two streams at once, a CUDA graph replayed beside other
work, a label outside of its table, a second device."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from fer_fast import functional
from fer_fast.registry import LOSSES

from ..problems import Problem
from .capture import Captured, streams, wait
from .engines import OURS
from .repeats import bits, from_the_start
from .shapes import LARGE, REHEARSED, SMALL, problem
from .step import Asked, Case, Result, main

ROUNDS, REPLAYS = 20, 100
LABELLED = ("class_table", "ad_corre")  # engines whose kernels look for labels outside of a table


@dataclass
class Checked(Result):
    """One question asked of one loss. `wrong` names the results that were not what they have to be."""

    what: str
    loss: str
    dtype: str
    wrong: list[str]


def problems(rehearse: bool) -> list[Problem]:
    """Every loss in one dtype."""
    if rehearse:
        return [problem(loss, SMALL, "float32") for loss in REHEARSED[:2]]
    return [problem(loss, LARGE[0], "bfloat16") for loss in LOSSES]


def cases(asked: Asked) -> Iterator[Case]:
    for what, ask in QUESTIONS.items():
        for given in problems(asked.rehearse):
            yield f"{what}, {given.loss}", partial(_row, what, ask, given, asked)


def _row(what: str, ask: Callable, given: Problem, asked: Asked) -> Iterator[Checked]:
    wrong = ask(given, asked)
    row = Checked(what, given.loss, given.dtype, [])
    if isinstance(wrong, str):
        yield replace(row, status="skipped", reason=wrong)
    else:
        reason = f"differs: {', '.join(wrong)}" if wrong else ""
        yield replace(row, status="wrong" if wrong else "measured", reason=reason, wrong=wrong)


def two_streams(given: Problem, asked: Asked) -> list[str]:
    """Two batches at once on two streams, against the same batches one after the other."""
    steps = [from_the_start(given, given.inputs(asked.device, seed)) for seed in range(2)]
    right = [_kept(step()) for step in steps]
    sides, got = streams(asked.device, 2), [{}, {}]
    for _ in range(1 if asked.rehearse else ROUNDS):
        for place, (step, side) in enumerate(zip(steps, sides, strict=True)):
            with side:
                got[place] = _kept(step())
    wait(asked.device)
    return [f"{name} of stream {place}" for place in range(2) for name in _unlike(got[place], right[place])]


def graph(given: Problem, asked: Asked) -> list[str]:
    """Replays of a captured step beside eager steps of another batch on another stream."""
    mine, others = (from_the_start(given, given.inputs(asked.device, seed)) for seed in range(2))
    right, right_beside = _kept(mine()), _kept(others())
    captured, (side,), beside = Captured(mine, asked.device), streams(asked.device, 1), {}
    for _ in range(1 if asked.rehearse else REPLAYS):
        captured.replay()
        with side:
            beside = _kept(others())
    wait(asked.device)
    wrong = _unlike(captured.outputs, right)
    return wrong + [f"{name} beside the graph" for name in _unlike(beside, right_beside)]


def bad_label(given: Problem, asked: Asked) -> list[str] | str:
    """A label outside of the table makes the loss NaN and the next call raise; after that all is well again."""
    if given.spec.engine not in LABELLED or given.loss == "ed":
        return "looks at no table"
    inputs = given.inputs(asked.device)
    right, bad = _kept(from_the_start(given, inputs)()), inputs.to()
    bad.tensors["y"][len(bad.tensors["y"]) // 2] = given.shape.classes
    wrong = []
    try:  # on a CPU, where looking is free, at once
        loss = getattr(functional, given.spec.function)(**bad.arguments, backend="triton")
        wrong += [] if loss.isnan().item() else ["a loss of a bad label that is a number"]
        wait(asked.device)
        OURS.bind(given, given.inputs(asked.device))()
        wrong.append("no error after a bad label")
    except ValueError as error:
        wrong += [] if "labels" in str(error) else [str(error)]
    return wrong + _unlike(from_the_start(given, given.inputs(asked.device))(), right)


def second_device(given: Problem, asked: Asked) -> list[str] | str:
    """Inputs on a device that is not the current one."""
    if torch.cuda.device_count() < 2:
        return "one device"
    right = {name: t.cpu() for name, t in from_the_start(given, given.inputs(asked.device))().items()}
    there, there_inputs = torch.device("cuda", 1), given.inputs(asked.device)
    tensors = {name: _moved(t, there) for name, t in there_inputs.tensors.items()}
    options = dict(there_inputs.options)
    if "groups" in options:
        options["groups"] = [(x.to(there), y.to(there)) for x, y in options["groups"]]
    got = from_the_start(given, replace(there_inputs, tensors=tensors, options=options))()
    return _unlike({name: t.cpu() for name, t in got.items()}, right)


def _moved(t: Tensor, device: torch.device) -> Tensor:
    return t.detach().to(device).requires_grad_(t.requires_grad)


def _kept(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in outputs.items()}


def _unlike(got: dict[str, Tensor], right: dict[str, Tensor]) -> list[str]:
    """Results that are not the same to the bit."""
    return [name for name, t in right.items() if not torch.equal(bits(got[name]), bits(t))]


QUESTIONS = {
    "two streams": two_streams,
    "graph": graph,
    "bad label": bad_label,
    "second device": second_device,
}

if __name__ == "__main__":
    main(cases)
