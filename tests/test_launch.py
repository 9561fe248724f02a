"""What a launch asks of the host: PyTorch's precision switches, and how many parts fill a chip."""

from itertools import permutations

import pytest
import torch

from cases import evaluate, make_inputs
from fer_fast.dispatch import triton_runs_on
from fer_fast.registry import LOSSES

if not triton_runs_on("cpu"):
    pytest.skip("launches need Triton", allow_module_level=True)

from fer_fast.kernels.launch import cdiv, pick_splits, product, product_precision

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
    assert product(torch.float32) == ({"tf32": "tf32", "ieee": "float32"}[precision], precision)
    assert product(torch.float16) == ("half", "tf32")


@pytest.mark.parametrize("name", ["softmax", "center", "ad-corre", "marginal", "range", "supcon"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_losses_run_after_the_new_switch(switches, name, dtype):
    switches["new"](True)
    tensors, options = make_inputs(LOSSES[name], 12, 4, 16, dtype)
    assert evaluate(LOSSES[name], tensors, options, backend="triton")["loss"].isfinite()


@pytest.mark.parametrize("slots", [4, 108, 132, 264])
def test_keys_are_split_so_that_the_last_wave_idles_least(slots):
    for tiles in [1, 2, 3, 5, 27, 33, 34, 60, 132, 133, 1000]:
        for key_tiles in [1, 2, 3, 7, 50, 1000]:
            idle = {p: cdiv(tiles * p, slots) / p for p in range(1, min(key_tiles, max(slots // tiles, 4)) + 1)}
            assert pick_splits(tiles, key_tiles, slots) == min(idle, key=lambda p: (idle[p], p))
