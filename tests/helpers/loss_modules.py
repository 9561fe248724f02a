"""Every loss of the registry as a module, and a batch for it."""

import torch
from torch import Tensor

from cases import make_inputs
from fer_fast import losses
from fer_fast.losses.base import Loss
from fer_fast.registry import LossSpec

C, D, N = 4, 6, 8


def build(spec: LossSpec, **keywords) -> Loss:
    """The module of C classes and D columns."""
    arguments = {"classifier": (C, D), "center": (C, D), "correlation": (C,)}.get(spec.family, ())
    if spec.name == "weighted-softmax":
        keywords["class_weights"] = torch.rand(C) + 0.1
    return getattr(losses, spec.cls)(*(() if spec.name == "ed" else arguments), **keywords)


def batch(spec: LossSpec, seed: int = 0, n: int = N, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Features and labels; an even number of rows, as SelfCon asks."""
    tensors, _ = make_inputs(spec, n, C, D, dtype, seed=seed)
    return next(tensors[name] for name in ("x", "e", "z") if name in tensors), tensors["y"]
