"""Every loss x backend x dtype against the float64 reference, over ragged and degenerate shapes."""

import os

import pytest
import torch

from cases import assert_within_budget, double, evaluate, make_inputs, plain
from fer_fast.dispatch import triton_runs_on
from fer_fast.registry import LOSSES

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SPECS = [pytest.param(spec, id=name) for name, spec in LOSSES.items()]
# n, C, d and how labels fall: ragged tiles, one row of each view, all one class, absent classes, every row its own class.
SHAPES = {
    "ragged": (34, 5, 19, "random"),
    "two rows": (2, 3, 8, "random"),
    "one class": (18, 4, 33, "one"),
    "absent classes": (6, 11, 16, "random"),
    "own classes": (8, 8, 5, "own"),
}
BLOCKED_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# The interpreter multiplies bfloat16 as raw bits; a GPU is needed for that one.
TRITON_DTYPES = (torch.float32, torch.float16) + ((torch.bfloat16,) if DEVICE == "cuda" else ())
RUNS = [pytest.param("blocked", dtype, id=f"blocked-{dtype}") for dtype in BLOCKED_DTYPES]
if triton_runs_on(DEVICE):
    RUNS += [pytest.param("triton", dtype, id=f"triton-{dtype}") for dtype in TRITON_DTYPES]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("backend", "dtype"), RUNS)
@pytest.mark.parametrize("spec", SPECS)
def test_parity(spec, backend, dtype, shape):
    n, num_classes, d, labels = SHAPES[shape]
    for reduction in ("mean", "sum"):
        tensors, options = make_inputs(spec, n, num_classes, d, dtype, labels)
        truth = evaluate(spec, double(tensors), in_double(options), backend="reference", reduction=reduction)
        simple = plain(spec, tensors, options, reduction=reduction)
        actual = evaluate(spec, tensors, options, backend=backend, reduction=reduction)
        assert_within_budget(actual, simple, truth)


def in_double(options: dict) -> dict:
    groups = [(x.double(), y) for x, y in options.get("groups", ())]
    return options | ({"groups": groups} if groups else {})


@pytest.mark.parametrize("backend", ["blocked", "triton"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("spec", SPECS)
def test_a_bad_row_is_never_a_finite_loss(spec, value, backend):
    if backend == "triton" and not triton_runs_on(DEVICE):
        pytest.skip("Triton does not run here")
    tensors, options = make_inputs(spec, 6, 3, 8, torch.float32)
    features = next(tensors[name] for name in ("x", "e", "z") if name in tensors)
    features[..., 1, 2] = value
    loss = evaluate(spec, tensors, options, backend=backend)["loss"]
    expected = evaluate(spec, tensors, options, backend="reference")["loss"]
    assert not torch.isfinite(expected)
    assert not torch.isfinite(loss), f"{os.environ.get('TRITON_INTERPRET')}"


@pytest.mark.parametrize("backend", ["blocked", "triton"])
@pytest.mark.parametrize("spec", SPECS)
def test_same_bits_and_any_strides(spec, backend):
    if backend == "triton" and not triton_runs_on(DEVICE):
        pytest.skip("Triton does not run here")
    tensors, options = make_inputs(spec, 20, 4, 12, torch.float32)
    first = evaluate(spec, tensors, options, backend=backend)
    strided = {
        name: t if name == "y" or t.ndim < 2 else t.mT.contiguous().mT if name != "centers" else t
        for name, t in tensors.items()
    }
    again = evaluate(spec, strided, options, backend=backend)
    assert all(torch.equal(first[name], again[name]) for name in first)
    zero_stride = tensors | {
        name: t[..., :1, :].expand(t.shape) for name, t in tensors.items() if name in ("x", "e", "z")
    }
    solid = {name: t.contiguous() for name, t in zero_stride.items()}
    expanded, copied = (evaluate(spec, each, options, backend=backend) for each in (zero_stride, solid))
    assert all(torch.equal(expanded[name], copied[name]) for name in expanded)
