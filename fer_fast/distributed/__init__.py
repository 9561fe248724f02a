"""Many processes, one batch: losses of all rows of all processes, exactly.

`over(model)` and every loss below is that of the global batch; `docs/distributed.md` says what each one sends.
"""

from .over import over

__all__ = ["over"]
