"""The class-table engine's classifiers, as this engine calls them: the one place that names where they lie.

Their contract holds, and two things more. A class that is not the target has the logit and the G of `hot` false,
whatever the lengths. R (unless x is scaled to length one) and Q (unless w is) are those of the target alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..class_table.heads import head_rule


class Head(NamedTuple):
    """A classifier's functions, its hyper-parameters as they take them, and what is scaled to length one for it."""

    logits: Callable
    chain: Callable
    a: Any
    unit_x: bool
    unit_w: bool
    lengths: bool

    @property
    def apart(self) -> bool:
        """Whether the target adds terms of its own, R and Q, to the products: an angle between rows of any length."""
        return self.lengths and not self.unit_x


def head_of(classifier: str, params: list[float]) -> Head:
    """The head of this name with these hyper-parameters."""
    of = head_rule(classifier, tuple(params))
    return Head(of.logits, of.chain, of.a, of.unit_x.value, of.unit_w.value, of.lengths.value)
