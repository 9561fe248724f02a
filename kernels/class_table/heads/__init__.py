"""Classifiers of the engine by name. Adding one: a file beside these, and its line here."""

from functools import lru_cache

from fer_fast import reference

from ..arguments import Head
from .angular_softmax import A_SOFTMAX, L_SOFTMAX
from .arcface import ARCFACE
from .lmcl import LMCL
from .softmax import SOFTMAX

HEADS = {"softmax": SOFTMAX, "lmcl": LMCL, "arcface": ARCFACE, "a-softmax": A_SOFTMAX, "l-softmax": L_SOFTMAX}


@lru_cache(64)
def head_rule(name: str, params: tuple[float, ...]) -> Head:
    """What kernels take of a classifier, its settings filled in."""
    if not name:
        return Head()
    head, arguments = HEADS[name]
    return head._replace(a=arguments(*params) or None)


def usual_params(name: str) -> list[float]:
    """A classifier's hyper-parameters, their defaults."""
    return [float(value) for value in getattr(reference, name.replace("-", "_")).params()]
