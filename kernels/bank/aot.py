"""The kernel's cases for ahead-of-time compilation."""

from collections.abc import Iterator

from ..host.aot import TYPES, aot_case, mark
from .enqueue import enqueue_rows
from .settings import BLOCKS, ENQUEUE_ROWS


def aot_cases(family: str) -> Iterator[tuple]:
    """Every bank's dtype, filled from float32 and from bfloat16, for the audit."""
    types = dict.fromkeys(("capacity", "n", "d", "feature_stride", "z_stride"), "i32")
    types |= dict.fromkeys(("labels", "starts", "written", "y"), "*i64")
    for bank in TYPES.values():
        for given in ("fp32", "bf16"):
            pointers = {"features": f"*{bank}", "z": f"*{given}"}
            name = mark(f"enqueue-{given}-to-{bank}", bank != given)
            yield aot_case(name, enqueue_rows, types | pointers, BLOCKS, ENQUEUE_ROWS.options)
