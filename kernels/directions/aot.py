"""Both kernels' cases for ahead-of-time compilation."""

from ..host.aot import TYPES, aot_case, mark
from .chain_rule import chain_rule_rows
from .launch import blocks_of
from .normalise import normalise_rows
from .settings import DIRECTION_ROWS


def aot_cases(family: str) -> list[tuple]:
    """Both kernels at every dtype and d = 256, for the audit."""
    types = dict.fromkeys(("n", "rows_of_y", "d", "x_stride", "num_classes", "parts", "programs"), "i32")
    types |= dict.fromkeys(("loss_scale", "gradient_scale"), "fp32") | {"y": "*i64"}
    types |= dict.fromkeys(("difficulty", "weights", "gradients", "partial", "loss"), "*fp32")
    types |= {"part": None, "taking": None}
    flags = {"BY_PAIRS": False, "STANDARDISE": True, "WEIGHTED": True, "LOSS": True, "GRADIENT": True, **blocks_of(256)}
    return [
        aot_case(
            mark(f"{name}-{of}", of == "bf16"),
            kernel,
            types | dict.fromkeys(("x", "u", "dx"), f"*{of}"),
            flags,
            DIRECTION_ROWS.options,
        )
        for of in TYPES.values()
        for name, kernel in (("normalise", normalise_rows), ("chain-rule", chain_rule_rows))
    ]
