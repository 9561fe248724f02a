"""Classifiers of the engine by name. Adding one: a file beside these, and its line here."""

from ..arguments import Head
from .angular_softmax import A_SOFTMAX, L_SOFTMAX, angular_softmax
from .lmcl import LMCL
from .softmax import SOFTMAX

HEADS: dict[str, Head] = {"softmax": SOFTMAX, "lmcl": LMCL, "a-softmax": A_SOFTMAX, "l-softmax": L_SOFTMAX}
