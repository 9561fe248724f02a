"""What a step does to this library's engines: poison their outputs, see which of them ran, exchange a tile setting."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from types import ModuleType
from unittest.mock import patch

import torch
from torch import Tensor

from fer_fast import kinds
from fer_fast.ops import engines

from ..contenders import FER_FAST, of_backend

OURS = replace(FER_FAST, bind=lambda problem, inputs: of_backend(problem, inputs, "triton"))


def poisoned_empty(*shape, **keywords) -> Tensor:
    """`torch.empty` filled with what a kernel must not leave behind."""
    out = torch.empty(*shape, **keywords)
    return out.fill_(torch.nan if out.is_floating_point() else torch.iinfo(out.dtype).max // 3)


@cache
def modules() -> tuple[ModuleType, ...]:
    """The modules of the kernels that are there."""
    package = importlib.import_module("fer_fast.kernels")
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return tuple(importlib.import_module(name) for _, name, _ in found)


@contextmanager
def poisoned() -> Iterator[None]:
    """What a kernel leaves unwritten in its outputs is NaN."""
    with ExitStack() as patched:
        for module in modules():
            if hasattr(module, "_empty"):
                patched.enter_context(patch.object(module, "_empty", poisoned_empty))
        yield


@contextmanager
def backends_run() -> Iterator[list[str]]:
    """The backends of the engines that are called; the last is the one that computed, for kernels may refuse a call
    and the blocked engine takes it."""
    ran, find = [], engines.engine_function

    def seen(backend: str, module: str, function: str):
        if function != "scale":
            ran.append(backend)
        return find(backend, module, function)

    with patch.object(engines, "engine_function", seen):
        yield ran


def tables() -> dict[str, Mapping]:
    """Every table of tile settings that a kernel's launcher holds, by name."""
    return {
        name: value
        for module in modules()
        for name, value in vars(module).items()
        if isinstance(value, Mapping) and not name.startswith("_") and all(map(_is_setting, value.values())) and value
    }


def _is_setting(value: object) -> bool:
    return any(name.endswith("warps") for name in getattr(value, "_fields", ()))


@contextmanager
def in_place_of(table: Mapping, other: Mapping) -> Iterator[None]:
    """Launchers that hold `table` hold `other`; what they remember of it is forgotten before and after."""
    with ExitStack() as patched:
        for module in modules():
            for name, value in list(vars(module).items()):
                if value is table:
                    patched.enter_context(patch.object(module, name, other))
        _forget()
        patched.callback(_forget)
        yield


def _forget() -> None:
    kinds.forget()
    for module in modules():
        for value in list(vars(module).values()):
            if hasattr(value, "cache_clear"):
                value.cache_clear()


class Watched(dict):
    """A table that notes which of its settings are taken."""

    def __init__(self, table: Mapping):
        super().__init__(table)
        self.taken: dict[tuple, None] = {}

    def __getitem__(self, key: tuple):
        self.taken[key] = None
        return super().__getitem__(key)

    def get(self, key: tuple, default: object = None):
        if key in self:
            self.taken[key] = None
        return super().get(key, default)
