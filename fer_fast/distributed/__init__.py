"""Many processes, one batch: losses of all rows of all processes, exactly.

`over(model)` and every loss below is that of the global batch; `docs/distributed.md` says what each one sends.
"""

from .over import over
from .state import join, whole_state

__all__ = ["join", "over", "whole_state"]
