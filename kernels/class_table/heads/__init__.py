"""Classifiers of the engine by name. Adding one: a file beside these, and its line here."""

from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from fer_fast import reference

from ..arguments import Head
from .angular_softmax import A_SOFTMAX, L_SOFTMAX
from .arcface import ARCFACE
from .lmcl import LMCL
from .softmax import SOFTMAX

HEADS = {"softmax": SOFTMAX, "lmcl": LMCL, "arcface": ARCFACE, "a-softmax": A_SOFTMAX, "l-softmax": L_SOFTMAX}


def head_rule(name: str, params: tuple[float, ...], setting: Tensor | None = None, smoothing: float = 0.0) -> Head:
    """What kernels take of a classifier, its settings filled in: `setting` () is the one that is NaN."""
    if setting is None:
        head = _head_rule(name, params)
    else:
        head, arguments = HEADS[name]
        head = head._replace(a=arguments(*[setting if value != value else value for value in params]))
    return head._replace(smoothing=smoothing) if smoothing else head


@lru_cache(64)
def _head_rule(name: str, params: tuple[float, ...]) -> Head:
    if not name:
        return Head()
    head, arguments = HEADS[name]
    return head._replace(a=arguments(*params) or None)


def scales(a: NamedTuple) -> bool:
    """Whether the setting that is a tensor is a scale, which may learn; a blend is only told."""
    return "s" in a._fields


def usual_params(name: str) -> list[float]:
    """A classifier's hyper-parameters, their defaults."""
    return [float(value) for value in getattr(reference, name.replace("-", "_")).params()]
