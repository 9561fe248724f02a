"""The engines: modules by backend, each with the same functions."""

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType

import torch
from torch import Tensor

MODULES = {"triton": "fer_fast.kernels.{}.launch", "blocked": "fer_fast.blocked.{}"}


def run_engine(
    backend: str, module: str, function: str, *args, told: Mapping = MappingProxyType({}), **shared
) -> Tensor | tuple[Tensor, ...]:
    """Call a function of an engine: `fer_fast.kernels.<module>.launch`, which alone takes what it is `told`, or
    `fer_fast.blocked.<module>`.

    What the kernels do not take (float64, centers too wide for a tile, MVA of many classes) they refuse before
    touching anything, and the blocked engine computes on the same device.
    """
    if backend != "blocked" and args[0].dtype != torch.float64:
        try:
            return on_device(args[0].device, engine_function(backend, module, function), *args, **shared, **told)
        except NotImplementedError:
            pass
    return engine_function("blocked", module, function)(*args, **shared)


def on_device(device: torch.device, function: Callable, *args, **told):
    """Call a function that launches. Triton launches on the current device: it is made the tensors' own where it is
    another."""
    if device.index is not None and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            return function(*args, **told)
    return function(*args, **told)


@cache
def engine_function(backend: str, module: str, function: str) -> Callable:
    """Of an engine's module, which is imported when it is first called for."""
    return getattr(import_module(MODULES[backend].format(module)), function)
