"""Fused training losses for facial-expression recognition and deep metric learning.

`fer_fast.losses` holds the modules, `fer_fast.functional` the same as functions, `fer_fast.backend` picks what runs.
`fer_fast.load` opens a trained model for use.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from . import functional, losses
    from .dispatch import backend
    from .serve.model import load

__version__ = version("fer-fast")

__all__ = ["InputError", "__version__", "backend", "functional", "load", "losses"]


def __getattr__(name: str) -> Any:
    # On first use: importing torch takes seconds, and `fer-fast --help` needs none of it.
    if name in ("functional", "losses"):
        return import_module(f".{name}", __name__)
    if name == "backend":
        return import_module(".dispatch", __name__).backend
    if name == "load":
        return import_module(".serve.model", __name__).load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
