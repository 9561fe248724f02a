"""The kernel's cases for ahead-of-time compilation."""

from collections.abc import Iterator

from ..host.aot import aot_case
from ..host.chips import launch_options
from .scale_gradients import scale_gradients
from .settings import SCALE_BLOCK, SCALE_WARPS


def aot_cases(family: str) -> Iterator[tuple]:
    """Mixed precision, as a joint loss on bfloat16 features has it, and float16 gradients that waited in float32."""
    for name, source, target in (("bf16", "*bf16", "*bf16"), ("fp16", "*fp32", "*fp16")):
        types = {"source_0": source, "target_0": target, "factor": "*fp32"}
        types |= {f"{part}_{place}": "*fp32" for part in ("source", "target") for place in (1, 2)}
        types |= {f"size_{place}": "i64" for place in range(3)}
        yield aot_case(f"scale-{name}", scale_gradients, types, {"BLOCK": SCALE_BLOCK}, launch_options(SCALE_WARPS))
