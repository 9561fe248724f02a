"""Set-up every test module needs before it imports anything: Triton's interpreter where there is no GPU."""

import os
import threading
from functools import cache
from importlib.util import find_spec

import pytest
import torch

from fer_fast.dispatch import interpreter_fault, triton_runs_on

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def _fuse_multiply_add() -> None:
    """Round once where a chip does: the interpreter's fma rounds the product of two float32 numbers too."""
    import numpy as np
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    twice = InterpreterBuilder.create_fma

    def once(self, x, y, z):
        if x.data.dtype != np.float32:
            return twice(self, x, y, z)
        exact = x.data.astype(np.float64) * y.data + z.data
        return TensorHandle(exact.astype(np.float32), z.dtype.scalar)

    InterpreterBuilder.create_fma = once


def _patch_once_a_launch() -> None:
    """Put the language's interpreted functions in place once a launch: done for every call of a device function, as the
    interpreter does, it takes a third of the time of tests."""
    from triton.language import core
    from triton.runtime import interpreter

    class InPlace(threading.local):
        def __init__(self):
            self.languages = set()

    patch, in_place = interpreter._patch_lang, InPlace()

    @cache
    def languages(fn) -> tuple[bool, ...]:
        return tuple(any(value is of for value in fn.__globals__.values()) for of in (interpreter.tl, core))

    def once(fn):
        if languages(fn) in in_place.languages:
            return None  # for a device function, which takes nothing back
        in_place.languages.add(languages(fn))
        scope = patch(fn)
        restore = scope.restore
        scope.restore = lambda: (in_place.languages.clear(), restore())
        return scope

    interpreter._patch_lang = once


if os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton"):
    _fuse_multiply_add()
    _patch_once_a_launch()

torch.set_num_threads(int(os.environ.get("FER_FAST_TEST_THREADS", "1")))


def pytest_configure() -> None:
    if triton_runs_on("cpu") and (fault := interpreter_fault()):
        raise pytest.UsageError(fault)
