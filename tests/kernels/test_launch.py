"""What a launch asks of the host: the current device, PyTorch's precision switches, how many parts fill a chip."""

from contextlib import contextmanager
from itertools import permutations

import pytest
import torch

from cases import evaluate, make_inputs
from fer_fast.dispatch import triton_runs_on
from fer_fast.ops import engines
from fer_fast.registry import LOSSES

if not triton_runs_on("cpu"):
    pytest.skip("launches need Triton", allow_module_level=True)

from fer_fast.kernels.host.launch import Launch, cdiv, pick_splits, product_kind, product_precision, start
from fer_fast.kernels.scale.launch import kind_of

SWITCHES = {
    "old": lambda on: setattr(torch.backends.cuda.matmul, "allow_tf32", on),
    "older": lambda on: torch.set_float32_matmul_precision("high" if on else "highest"),
    "new": lambda on: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32" if on else "ieee"),
}


@pytest.fixture
def switches():
    """The switches of TF32 by name; set back afterwards, the old ones first, which do not take "none"."""
    before = torch.backends.cuda.matmul.fp32_precision
    yield SWITCHES
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = before


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("order", permutations(SWITCHES), ids="-".join)
def test_the_last_switch_set_decides_about_tf32(switches, order, on):
    for name in order:
        switches[name](not on)
    switches[order[-1]](on)
    precision = "tf32" if on and torch.version.hip is None else "ieee"
    assert product_precision()[0] == precision
    assert product_kind(torch.float32) == {"tf32": "tf32", "ieee": "float32"}[precision]
    assert product_kind(torch.float16) == "half"


@pytest.mark.parametrize("name", ["softmax", "center", "ad-corre", "marginal", "range", "supcon"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_losses_run_after_the_new_switch(switches, name, dtype):
    switches["new"](True)
    tensors, options = make_inputs(LOSSES[name], 12, 4, 16, dtype)
    assert evaluate(LOSSES[name], tensors, options, backend="triton")["loss"].isfinite()


def test_only_another_device_is_made_current(monkeypatch):
    entered = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device", lambda device: _noted(entered, device))
    for device in ("cuda:1", "cuda:0", "cpu"):
        assert engines.on_device(torch.device(device), lambda *args: args, 1, 2) == (1, 2)
    assert entered == [torch.device("cuda:1")]


@contextmanager
def _noted(entered: list, device: torch.device):
    entered.append(device)
    yield


@pytest.mark.parametrize("name", ["softmax", "center", "ad-corre", "marginal", "range", "supcon"])
def test_forward_and_backward_launch_on_the_tensors_device(monkeypatch, name):
    open_guards, launched, find_engine = [], [], engines.engine_function

    def guard(device, function, *args, **told):
        open_guards.append(device)
        result = function(*args, **told)
        open_guards.pop()
        return result

    monkeypatch.setattr(engines, "on_device", guard)
    tensors, options = make_inputs(LOSSES[name], 12, 4, 16, torch.float32)

    def recording(backend, module, function):
        engine = find_engine(backend, module, function)

        def call(*args, **keywords):
            launched.append((backend, module, tuple(open_guards)))
            return engine(*args, **keywords)

        return call

    monkeypatch.setattr(engines, "engine_function", recording)
    evaluate(LOSSES[name], tensors, options, backend="triton")
    assert [(backend, guards) for backend, _, guards in launched] == [("triton", (torch.device("cpu"),))] * 2
    assert launched[1][1] == "scale"


@pytest.mark.parametrize("slots", [4, 108, 132, 264])
def test_keys_are_split_so_that_the_last_wave_idles_least(slots):
    for tiles in [1, 2, 3, 5, 27, 33, 34, 60, 132, 133, 1000]:
        for key_tiles in [1, 2, 3, 7, 50, 1000]:
            idle = {p: cdiv(tiles * p, slots) / p for p in range(1, min(key_tiles, max(slots // tiles, 4)) + 1)}
            assert pick_splits(tiles, key_tiles, slots) == min(idle, key=lambda p: (idle[p], p))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs the interpreter")
@pytest.mark.parametrize("name", LOSSES)
def test_every_launch_says_whether_products_and_sums_are_fused(monkeypatch, name):
    """Triton 3.9 warns of one that does not, and newer ones would not fuse them."""
    from triton.runtime.interpreter import GridExecutor

    run, launched = GridExecutor.__call__, []

    def noted(self, *args, **given):
        launched.append((self.fn, given))
        run(self, *args, **given)

    monkeypatch.setattr(GridExecutor, "__call__", noted)
    tensors, options = make_inputs(LOSSES[name], 12, 4, 16, torch.float32)
    evaluate(LOSSES[name], tensors, options, backend="triton")
    assert launched
    assert [kernel for kernel, given in launched if not given.get("enable_fp_fusion")] == []


class Kernel:
    """A kernel that notes how it is started: by Triton, or as what Triton compiled."""

    __name__, arg_names = "kernel", ("x", "BLOCK")

    def __init__(self):
        self.started = []

    def __getitem__(self, grid):
        def by_triton(*arguments, **constants):
            self.started.append(("triton", grid, arguments, constants))
            return Compiled(self)

        return by_triton


class Compiled:
    """What Triton makes of a kernel: by its grid, what starts it."""

    def __init__(self, kernel: Kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return lambda *given: self.kernel.started.append(("compiled", grid, given))


def test_a_launch_of_a_kind_seen_before_goes_past_triton():
    kernel, plan, other = Kernel(), {}, {}
    for compiled in (plan, plan, other, None, None):
        start(Launch(kernel, (1, 1, 1), (7,), {"BLOCK": 16}, compiled))
    assert [how for how, *_ in kernel.started] == ["triton", "compiled", "triton", "triton", "triton"]
    assert kernel.started[1][2] == (7, 16)


def test_a_launch_of_another_grid_is_of_that_grid():
    kernel, compiled = Kernel(), {}
    for programs in (1, 2, 2, 1):
        start(Launch(kernel, (programs, 1, 1), (7,), {"BLOCK": 16}, compiled))
    assert [grid for _, grid, *_ in kernel.started] == [(1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 1)]
    assert [how for how, *_ in kernel.started] == ["triton", "compiled", "compiled", "compiled"]


def test_a_kind_is_of_dtypes_and_of_what_is_left_out_and_of_aligned_tensors_alone():
    x = torch.zeros(64)
    kinds = [kind_of(x), kind_of(x, x), kind_of(x, None), kind_of(x.half()), kind_of(x, x.long())]
    assert len(set(kinds)) == len(kinds)
    assert kind_of(x, x[4:]) == kind_of(x, x)
    assert kind_of(x, x[1:]) is None
