"""Set-up every test module needs before it imports anything: Triton's interpreter where there is no GPU."""

import ctypes
import os
import sys
from importlib.util import find_spec

# Before PyTorch reads it, for this process and those it starts: their threads would wait for one another's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from fer_fast.dispatch import interpreter_fault, triton_runs_on

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


if os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton"):
    import triton_interpreter

    triton_interpreter.install()

torch.set_num_threads(int(os.environ.get("FER_FAST_TEST_THREADS", "1")))


def pytest_configure() -> None:
    if triton_runs_on("cpu") and (fault := interpreter_fault()):
        raise pytest.UsageError(fault)


@pytest.fixture(scope="module", autouse=True)
def _freed_memory_goes_back():
    """Models that a module trained are gone, but the C library keeps their memory: gigabytes a worker in the end."""
    yield
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):  # which glibc has
        trim(0)


def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Files go to workers whole, and those of several processes together: the groups they share take long to start."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder = "tests/distributed/"
            return folder if nodeid.startswith(folder) else super()._split_scope(nodeid)

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None
