"""How a loss is declared: its hyper-parameters with their ranges and defaults, tied to its formula."""

from collections.abc import Callable
from typing import Annotated, NamedTuple

from torch import Tensor

# Ranges of hyper-parameters, all finite, as the types of a NamedTuple's fields.
Positive = Annotated[float, "> 0"]
NonNegative = Annotated[float, ">= 0"]
Count = Annotated[int, ">= 1"]
Angle = Annotated[float, ">= 0, <= π"]
Learnable = Annotated[float | Tensor, "> 0"]  # a number, or a tensor () that gets a gradient


class NoParams(NamedTuple):
    """What a loss without hyper-parameters takes."""


def formula(
    params: type = NoParams, update: Callable | None = None, *, by_row: bool = False
) -> Callable[[Callable], Callable]:
    """Declares a loss: a decorator that keeps its arguments as attributes of the formula.

    `params` is a NamedTuple of its hyper-parameters, each with its default, in the order engines take them: signatures,
    checks and engine arguments derive from it. `update` is the rule its centers move by. `by_row` says that the loss is
    a sum over rows, so that it has a `reduction="none"`.
    """

    def declare(loss: Callable) -> Callable:
        loss.params, loss.update, loss.by_row = params, update, by_row
        return loss

    return declare
