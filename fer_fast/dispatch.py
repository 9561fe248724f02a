"""Which backend a call runs on: an argument, a context manager, or what the device has."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from os import environ
from threading import local
from types import ModuleType
from typing import Literal, get_args

import torch
from torch._C._functorch import TransformType, get_interpreter_stack

from .suggest import one_of

Backend = Literal["auto", "triton", "blocked", "reference"]
BACKENDS = get_args(Backend)


class _Preferred(local):
    """What :func:`backend` asked for, of each thread."""

    name: Backend = "auto"


_preferred = _Preferred()


@contextmanager
def backend(name: Backend) -> Iterator[None]:
    """Run every loss and primitive below on one backend: `with fer_fast.backend("blocked"): ...`.

    A call's own `backend=` argument wins over the context, which holds for the thread that entered it. `"auto"` takes
    Triton on a GPU that has it, else the blocked engines; `"reference"` is plain PyTorch, the only one with second
    derivatives.
    """
    outer, _preferred.name = _preferred.name, one_of(name, BACKENDS, "backend")
    try:
        yield
    finally:
        _preferred.name = outer


def preferred() -> str:
    """What :func:`backend` asks for, "auto" for nothing."""
    return _preferred.name


def resolve(name: str, device: torch.device) -> str:
    """The backend a call on `device` runs on: "triton", "blocked" or "reference".

    Under `torch.func.grad` and its like, which see into plain PyTorch alone, "auto" is "reference".

    Raises `ValueError` for an unknown name, for "triton" where it cannot run, and for any inside `torch.vmap`.
    """
    name, kind = one_of(_preferred.name if name == "auto" else name, BACKENDS, "backend"), device.type
    if not torch.compiler.is_compiling() and (transforms := get_interpreter_stack()):
        return _transformed(name, {transform.key() for transform in transforms})
    if name == "auto":
        return "triton" if kind == "cuda" and triton_runs_on("cuda") else "blocked"
    if name == "triton" and not triton_runs_on(kind):
        raise ValueError(f'backend: "triton" does not run on {kind} here; "blocked" and "reference" do')
    if name == "triton" and kind == "cpu" and (fault := interpreter_fault()):
        raise ValueError(f'backend: "triton" does not run on cpu here: {fault}')
    return name


def _transformed(name: str, transforms: set[TransformType]) -> str:
    """The backend under transforms of :mod:`torch.func`."""
    if TransformType.Vmap in transforms:
        raise ValueError("torch.vmap: a loss takes one batch; call it once for each")
    if name not in ("auto", "reference"):
        raise ValueError(f'backend: "{name}" does not run under torch.func; "reference" does')
    return "reference"


@cache
def triton_runs_on(device_type: str) -> bool:
    """Whether kernels run there: a GPU with Triton installed, or a CPU under Triton's interpreter."""
    if find_spec("triton") is None:
        return False
    if device_type == "cpu":
        return environ.get("TRITON_INTERPRET") == "1"
    return device_type == "cuda"


@cache
def interpreter_fault() -> str:
    """Why Triton's interpreter, which must be installed, cannot run kernels here, or nothing."""
    import numpy
    import triton

    # It makes a number of an array of one element, which numpy 2.4 refuses.
    if _release(triton) < (3, 7) and _release(numpy) >= (2, 4):
        return f"the interpreter of Triton {triton.__version__} needs numpy below 2.4, not {numpy.__version__}"
    return ""


def _release(module: ModuleType) -> tuple[int, ...]:
    return tuple(int(part) for part in module.__version__.split(".")[:2])
