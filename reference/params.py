"""How a loss is declared: its hyper-parameters with their ranges and defaults, tied to its formula."""

from collections.abc import Callable
from typing import Annotated, NamedTuple

# Ranges of hyper-parameters, all finite, as the types of a NamedTuple's fields.
Positive = Annotated[float, "> 0"]
NonNegative = Annotated[float, ">= 0"]
Count = Annotated[int, ">= 1"]
Angle = Annotated[float, ">= 0, <= π"]


class NoParams(NamedTuple):
    """What a loss without hyper-parameters takes."""


def formula(params: type = NoParams, update: Callable | None = None) -> Callable[[Callable], Callable]:
    """Declares a loss: a decorator that keeps `params` and `update` as attributes of the formula.

    `params` is a NamedTuple of its hyper-parameters, each with its default, in the order engines take them: signatures,
    checks and engine arguments derive from it. `update` is the rule its centers move by.
    """

    def declare(loss: Callable) -> Callable:
        loss.params, loss.update = params, update
        return loss

    return declare
