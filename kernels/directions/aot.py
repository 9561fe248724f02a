"""Both kernels' cases for ahead-of-time compilation."""

from collections.abc import Iterator
from itertools import product

from ..host.aot import TYPES, aot_case, mark
from .chain_rule import chain_rule_rows
from .launch import TakingPart, blocks_of
from .normalise import normalise_rows
from .settings import DIRECTION_ROWS


def aot_cases(family: str) -> Iterator[tuple]:
    """Both kernels at every dtype and d = 256, for the audit: of FD's standardised rows, and of marginal loss's."""
    types = dict.fromkeys(("n", "rows_of_y", "d", "x_stride", "num_classes", "parts", "programs", "blocks"), "i32")
    types |= dict.fromkeys(("loss_scale", "gradient_scale"), "fp32") | {"y": "*i64"}
    types |= dict.fromkeys(("difficulty", "weights", "gradients", "partial", "loss"), "*fp32")
    flags = {"LOSS": True, "GRADIENT": True, **blocks_of(256)}
    for of, fd in product(TYPES.values(), (True, False)):
        flags |= {"STANDARDISE": fd, "WEIGHTED": fd, "BY_PAIRS": not fd}
        part = None if fd else TakingPart("*i64", "*fp32")
        rows = types | dict.fromkeys(("x", "u", "dx"), f"*{of}") | dict.fromkeys(("part", "taking"), part)
        for name, kernel in (("normalise", normalise_rows), ("chain-rule", chain_rule_rows)):
            case = mark(f"{name}-{of}{'' if fd else '-pairs'}", of == "bf16")
            yield aot_case(case, kernel, rows, flags, DIRECTION_ROWS.options)
