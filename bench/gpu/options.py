"""Every loss with each of its options, at ragged shapes: what :mod:`.parity` asks, of the weights of rows, smoothed and
soft labels, rows left out, losses of rows and settings that learn."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from inspect import signature

import torch

from fer_fast import functional
from fer_fast.registry import LOSSES, LossSpec

from ..problems import Inputs, Problem, Shape
from .parity import check
from .shapes import SMALL, problem
from .step import Asked, Case, main

SHAPES = (Shape(n=997, d=200, classes=7, k=3, bank=1500), Shape(n=500, d=96, classes=300, k=2, bank=700))
DTYPES = ("bfloat16", "float32", "float16")
REHEARSED = ("lmcl", "ensc")


class Option:
    """What is asked of a loss besides its formula: where there is such a thing, and the inputs changed for it."""

    def __init__(self, taken_by: Callable[[LossSpec], bool], change: Callable[[Inputs], None]):
        self.taken_by, self.change = taken_by, change


def _keyword(name: str) -> Callable[[LossSpec], bool]:
    return lambda spec: name in signature(getattr(functional, spec.function)).parameters


def _of(*families: str) -> Callable[[LossSpec], bool]:
    return lambda spec: spec.family in families


def _weigh(inputs: Inputs) -> None:
    y = inputs.tensors["y"]
    inputs.tensors["sample_weights"] = (torch.arange(len(y), device=y.device) % 5) / 3  # every fifth is absent


def _soften(inputs: Inputs) -> None:
    y, classes = inputs.tensors["y"], len(inputs.tensors["weight"])
    hot = torch.nn.functional.one_hot(y, classes).float()
    mixed = 0.7 * hot + 0.3 * hot.flip(0)
    inputs.tensors["y"] = torch.where((torch.arange(len(y), device=y.device) % 3 == 0)[:, None], hot, mixed)


def _relabel(inputs: Inputs, label: int) -> None:
    inputs.tensors["y"] = inputs.tensors["y"].clone()
    inputs.tensors["y"][::4] = label


def _learn(inputs: Inputs, name: str, value: float) -> None:
    device = inputs.tensors["y"].device
    inputs.tensors[name] = torch.tensor(value, device=device, requires_grad=bool(inputs.leaves))


def _ignore(inputs: Inputs) -> None:
    _relabel(inputs, -100)
    inputs.options["ignore_index"] = -100


OPTIONS = {
    "weights": Option(_keyword("sample_weights"), _weigh),
    "rows": Option(lambda spec: "none" in spec.reductions, lambda inputs: inputs.options.update(reduction="none")),
    "smoothed": Option(_keyword("label_smoothing"), lambda inputs: inputs.options.update(label_smoothing=0.1)),
    "soft": Option(_of("classifier"), _soften),
    "ignored": Option(_keyword("ignore_index"), _ignore),
    "negative": Option(_of("contrastive", "pairwise"), partial(_relabel, label=-1)),
    "scale": Option(lambda spec: "s" in spec.params._fields, partial(_learn, name="s", value=30.0)),
    "temperature": Option(_keyword("temperature"), partial(_learn, name="temperature", value=0.1)),
}


@dataclass(frozen=True)
class AskedProblem(Problem):
    """A problem with an option, by name."""

    option: str = ""

    def inputs(self, device: torch.device, seed: int = 0) -> Inputs:
        inputs = super().inputs(device, seed)
        OPTIONS[self.option].change(inputs)
        return inputs


def problems(rehearse: bool) -> list[AskedProblem]:
    """Every loss with each of its options, the first shape and dtype of all before the second of any."""
    shapes, dtypes = ((SMALL,), ("float32",)) if rehearse else (SHAPES, DTYPES)
    return [
        AskedProblem(**vars(problem(loss, shape, dtype)), option=name)
        for shape in shapes
        for dtype in dtypes
        for name, option in OPTIONS.items()
        for loss in (REHEARSED if rehearse else LOSSES)
        if option.taken_by(LOSSES[loss])
    ]


def cases(asked: Asked) -> Iterator[Case]:
    for given in problems(asked.rehearse):
        yield f"{given.loss} {given.option} {given.dtype} {given.shape}", partial(check, given, asked)


if __name__ == "__main__":
    main(cases)
