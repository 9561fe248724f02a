"""Set-up every test module needs before it imports anything: Triton's interpreter where there is no GPU."""

import os
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


if os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton"):
    _fuse_multiply_add()

torch.set_num_threads(int(os.environ.get("FER_FAST_TEST_THREADS", "1")))


def pytest_configure() -> None:
    if triton_runs_on("cpu") and (fault := interpreter_fault()):
        raise pytest.UsageError(fault)
