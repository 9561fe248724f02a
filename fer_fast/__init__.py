"""Fused training losses for facial-expression recognition and deep metric learning.

`fer_fast.losses` holds the modules, `fer_fast.functional` the same as functions, `fer_fast.backend` picks what runs.
"""

from importlib.metadata import version

from . import functional, losses
from .dispatch import backend
from .errors import InputError

__version__ = version("fer-fast")

__all__ = ["InputError", "__version__", "backend", "functional", "losses"]
