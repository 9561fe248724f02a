"""The whole backward pass of a loss: its gradients, already computed, times one scalar that only the device knows.

Up to three tensors in one launch: at batch 64 a launch is what a backward costs. Floor: each gradient read and
written once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..aot import aot_case
from ..configs import SCALE_BLOCK, SCALE_WARPS, launch_options
from ..launch import cdiv

_empty = torch.empty


@triton.jit
def _scale_part(source, target, size, block, factor, BLOCK: tl.constexpr):
    at = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(source + at, at < size).to(tl.float32)
    # In float32: a loss scale of 65 536 is more than float16 holds.
    tl.store(target + at, values * factor, at < size)


@triton.jit(do_not_specialize=["size_0", "size_1", "size_2"])
def scale_gradients(
    source_0, target_0, size_0, source_1, target_1, size_1, source_2, target_2, size_2, factor, BLOCK: tl.constexpr
):  # fmt: skip
    """target = source · factor for three flat tensors, one after the other along the grid."""
    scalar = tl.load(factor).to(tl.float32)
    block, blocks_0, blocks_1 = tl.program_id(0), tl.cdiv(size_0, BLOCK), tl.cdiv(size_1, BLOCK)
    if block < blocks_0:
        _scale_part(source_0, target_0, size_0, block, scalar, BLOCK)
    elif block < blocks_0 + blocks_1:
        _scale_part(source_1, target_1, size_1, block - blocks_0, scalar, BLOCK)
    else:
        _scale_part(source_2, target_2, size_2, block - blocks_0 - blocks_1, scalar, BLOCK)


def scale(gradients: list[Tensor], dtypes: list[torch.dtype], factor: Tensor) -> list[Tensor]:
    """At most three contiguous `gradients` times the 0-dimensional `factor`, each in the dtype of its input."""
    targets = [_empty(g.shape, dtype=dtype, device=g.device) for g, dtype in zip(gradients, dtypes, strict=True)]
    pairs = [(g, t, g.numel()) for g, t in zip(gradients, targets, strict=True)]
    pairs += [(*pairs[0][:2], 0)] * (3 - len(pairs))
    blocks = sum(cdiv(size, SCALE_BLOCK) for _, _, size in pairs)
    if blocks:
        flat = [value for pair in pairs for value in pair]
        scale_gradients[(blocks,)](*flat, factor, BLOCK=SCALE_BLOCK, **launch_options(SCALE_WARPS))
    return targets


def aot_cases():
    """Mixed precision, as a joint loss on bfloat16 features has it, and float16 gradients that waited in float32."""
    for name, source, target in (("bf16", "*bf16", "*bf16"), ("fp16", "*fp32", "*fp16")):
        types = {"source_0": source, "target_0": target, "factor": "*fp32"}
        types |= {f"{part}_{place}": "*fp32" for part in ("source", "target") for place in (1, 2)}
        types |= {f"size_{place}": "i64" for place in range(3)}
        yield aot_case(f"scale-{name}", scale_gradients, types, {"BLOCK": SCALE_BLOCK}, launch_options(SCALE_WARPS))
