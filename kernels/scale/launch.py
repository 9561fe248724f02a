"""Gradients times a device scalar, launched."""

from functools import cache

import torch
from torch import Tensor

from ..host.chips import launch_options
from ..host.launch import Launch, cdiv, processors, start
from .scale_gradients import scale_gradients
from .settings import SCALE_BLOCK, SCALE_PROGRAMS, SCALE_WARPS

_empty = torch.empty
CONSTANTS = {"BLOCK": SCALE_BLOCK, **launch_options(SCALE_WARPS)}


def scale(gradients: list[Tensor], dtypes: list[torch.dtype], factor: Tensor, in_place: bool) -> list[Tensor]:
    """Contiguous `gradients`, at most three of which hold anything, times the 0-dimensional `factor`, each in the dtype
    of its input.

    With `in_place` a gradient that is already in that dtype is written over.
    """
    targets = [
        g if in_place and g.dtype == dtype else _empty(g.shape, dtype=dtype, device=g.device)
        for g, dtype in zip(gradients, dtypes, strict=True)
    ]
    pairs = [(g, t, size) for g, t in zip(gradients, targets, strict=True) if (size := g.numel())]
    pairs += [(*pairs[0][:2], 0)] * (3 - len(pairs)) if pairs else []
    blocks = sum(cdiv(size, SCALE_BLOCK) for _, _, size in pairs)
    if blocks:
        flat = [value for pair in pairs for value in pair]
        programs = min(blocks, SCALE_PROGRAMS * processors(factor.device))  # few, for most may find nothing to do
        kind = kind_of(*[tensor for pair in pairs for tensor in pair[:2]], factor)
        compiled = _compiled(kind, max(size for *_, size in pairs) < 2**31) if kind else None
        start(Launch(scale_gradients, (programs, 1, 1), (*flat, factor), CONSTANTS, compiled))
    return targets


def kind_of(*tensors: Tensor | None) -> tuple | None:
    """What a launch is of, by its tensors: dtypes and device; nothing where one is not aligned as allocations are."""
    places = 0
    for tensor in tensors:
        if tensor is not None:
            places |= tensor.data_ptr()
    if places % 16:
        return None
    return tensors[0].device, *[None if tensor is None else tensor.dtype for tensor in tensors]


@cache
def _compiled(kind: tuple, near: bool) -> dict:
    """Of launches of tensors of a kind, whose sizes are of 32 bits where `near`."""
    return {}
