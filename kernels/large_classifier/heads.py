"""The class-table engine's classifiers, as this engine calls them: the one place that names where they lie.

Their contract holds, and two things more. A class that is not the target has the logit and the G of `hot` false,
whatever the lengths. R (unless x is scaled to length one) and Q (unless w is) are those of the target alone.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ..class_table.heads import HEADS, head_rule, scales, usual_params

__all__ = ["HEADS", "Head", "head_of", "scales", "usual_params"]


class Head(NamedTuple):
    """A classifier's functions, its hyper-parameters as they take them, what is scaled to length one for it, and what G
    over p is below, but for a target whose terms are its own."""

    logits: Callable
    chain: Callable
    a: Any
    unit_x: bool
    unit_w: bool
    lengths: bool
    steepest: Tensor | float

    @property
    def apart(self) -> bool:
        """Whether the target adds terms of its own, R and Q, to the products: an angle between rows of any length."""
        return self.lengths and not self.unit_x


def head_of(classifier: str, params: Sequence[float], setting: Tensor | None = None) -> Head:
    """The head of this name with these hyper-parameters, of which `setting` () stands for the one that is NaN."""
    of = head_rule(classifier, tuple(params), setting)
    steepest = max([1.0, *(value for value in params if value == value)])
    steepest = of.steepest.value * (steepest if setting is None else setting.float().clamp(min=steepest))
    return Head(of.logits, of.chain, of.a, of.unit_x.value, of.unit_w.value, of.lengths.value, steepest)
