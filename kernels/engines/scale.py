"""The whole backward pass of a loss: its gradients, already computed, times one scalar that only the device knows.

Up to three tensors in one launch: at batch 64 a launch is what a backward costs. Floor: nothing for a tensor that is
scaled in place by one; else a gradient is read and written once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..aot import aot_case
from ..configs import SCALE_BLOCK, SCALE_PROGRAMS, SCALE_WARPS, launch_options
from ..launch import cdiv, processors

_empty = torch.empty


@triton.jit
def _blocks(source, target, size, factor, BLOCK: tl.constexpr):
    """The blocks of a tensor that are to be written: none where it is its own target and the factor is one."""
    done = (factor == 1.0) & (source.to(tl.int64) == target.to(tl.int64))
    return tl.where(done, 0, tl.cdiv(size, BLOCK))


@triton.jit
def _scale_part(source, target, size, block, factor, BLOCK: tl.constexpr):
    at = block * BLOCK + tl.arange(0, BLOCK).to(tl.int64)
    values = tl.load(source + at, at < size).to(tl.float32)
    # In float32: a loss scale of 65 536 is more than float16 holds.
    tl.store(target + at, values * factor, at < size)


@triton.jit(do_not_specialize=["size_0", "size_1", "size_2"])
def scale_gradients(
    source_0, target_0, size_0, source_1, target_1, size_1, source_2, target_2, size_2, factor, BLOCK: tl.constexpr
):  # fmt: skip
    """target = source · factor for three flat tensors, whose blocks lie one after the other along the programs."""
    scalar = tl.load(factor).to(tl.float32)
    first = _blocks(source_0, target_0, size_0, scalar, BLOCK)
    second = first + _blocks(source_1, target_1, size_1, scalar, BLOCK)
    last = second + _blocks(source_2, target_2, size_2, scalar, BLOCK)
    for block in range(tl.program_id(0), last, tl.num_programs(0)):
        if block < first:
            _scale_part(source_0, target_0, size_0, block, scalar, BLOCK)
        elif block < second:
            _scale_part(source_1, target_1, size_1, block - first, scalar, BLOCK)
        else:
            _scale_part(source_2, target_2, size_2, block - second, scalar, BLOCK)


def scale(gradients: list[Tensor], dtypes: list[torch.dtype], factor: Tensor, in_place: bool) -> list[Tensor]:
    """At most three contiguous `gradients` times the 0-dimensional `factor`, each in the dtype of its input.

    With `in_place` a gradient that is already in that dtype is written over.
    """
    targets = [
        g if in_place and g.dtype == dtype else _empty(g.shape, dtype=dtype, device=g.device)
        for g, dtype in zip(gradients, dtypes, strict=True)
    ]
    pairs = [(g, t, g.numel()) for g, t in zip(gradients, targets, strict=True)]
    pairs += [(*pairs[0][:2], 0)] * (3 - len(pairs))
    blocks = sum(cdiv(size, SCALE_BLOCK) for _, _, size in pairs)
    if blocks:
        flat = [value for pair in pairs for value in pair]
        programs = min(blocks, SCALE_PROGRAMS * processors(factor.device))  # few, for most may find nothing to do
        scale_gradients[(programs,)](*flat, factor, BLOCK=SCALE_BLOCK, **launch_options(SCALE_WARPS))
    return targets


def aot_cases():
    """Mixed precision, as a joint loss on bfloat16 features has it, and float16 gradients that waited in float32."""
    for name, source, target in (("bf16", "*bf16", "*bf16"), ("fp16", "*fp32", "*fp16")):
        types = {"source_0": source, "target_0": target, "factor": "*fp32"}
        types |= {f"{part}_{place}": "*fp32" for part in ("source", "target") for place in (1, 2)}
        types |= {f"size_{place}": "i64" for place in range(3)}
        yield aot_case(f"scale-{name}", scale_gradients, types, {"BLOCK": SCALE_BLOCK}, launch_options(SCALE_WARPS))
