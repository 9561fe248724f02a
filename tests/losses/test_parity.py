"""Every loss x backend x dtype against the float64 reference, over ragged and degenerate shapes."""

import os
from functools import lru_cache

import pytest
import torch
from fer_fast.bench.check import cancelling_terms

from cases import assert_within_budget, double, evaluate, make_inputs, plain
from fer_fast.dispatch import triton_runs_on
from fer_fast.registry import LOSSES

DRAWS, PLAIN_DRAWS = 2, 16  # of a fast path, and of plain PyTorch for what error to expect
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SPECS = [pytest.param(spec, id=name) for name, spec in LOSSES.items()]
# n, C, d and how labels fall.
SHAPES = {
    "ragged": (34, 5, 19, "random"),
    "two rows": (2, 3, 8, "random"),
    "one class": (18, 4, 33, "one"),
    "absent classes": (6, 11, 16, "random"),
    "own classes": (8, 8, 5, "own"),
    "many classes": (6, 70, 16, "random"),
}
BLOCKED_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# The interpreter multiplies bfloat16 as raw bits; a GPU is needed for that one.
TRITON_DTYPES = (torch.float32, torch.float16) + ((torch.bfloat16,) if DEVICE == "cuda" else ())
RUNS = [pytest.param("blocked", dtype, id=f"blocked-{dtype}") for dtype in BLOCKED_DTYPES]
if triton_runs_on(DEVICE):
    RUNS += [pytest.param("triton", dtype, id=f"triton-{dtype}") for dtype in TRITON_DTYPES]


@pytest.mark.parametrize(("backend", "dtype"), RUNS)  # which change first: what is expected serves all backends
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spec", SPECS)
def test_parity(spec, backend, dtype, shape):
    for reduction in ("mean", "sum"):
        draws, *expected = known(spec, shape, dtype, reduction)
        actual = evaluate_draws(spec, draws, backend, reduction=reduction)
        assert_within_budget(actual, *expected, cancelling_terms(spec, SHAPES[shape][0], reduction))


@lru_cache(maxsize=2 * len(BLOCKED_DTYPES))
def known(spec, shape, dtype, reduction) -> tuple[list, list, list]:
    """Inputs, what plain PyTorch finds, and the truth."""
    n, num_classes, d, labels = SHAPES[shape]
    draws = [make_inputs(spec, n, num_classes, d, dtype, labels, seed) for seed in range(PLAIN_DRAWS)]
    return draws, *expect(spec, draws, dtype, reduction=reduction)


def expect(spec, draws, dtype=torch.float32, **how) -> tuple[list, list]:
    truth = [evaluate(spec, double(t), in_double(options), backend="reference", **how) for t, options in draws]
    return truth if dtype == torch.float64 else [plain(spec, *draw, **how) for draw in draws], truth


def evaluate_draws(spec, draws, backend, **how) -> list:
    return [evaluate(spec, *draw, backend=backend, **how) for draw in draws[:DRAWS]]


def assert_parity(spec, draws, backend, cancelling=None) -> None:
    assert_within_budget(evaluate_draws(spec, draws, backend), *expect(spec, draws), cancelling)


def in_double(options: dict) -> dict:
    groups = [(x.double(), y) for x, y in options.get("groups", ())]
    return options | ({"groups": groups} if groups else {})


@pytest.mark.parametrize("num_classes", [1, 7, 60])
@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.values[0].family == "center" or spec.id == "md"])
def test_sums_over_many_rows_of_a_class_lose_no_digits(spec, num_classes):
    if num_classes < 2 and spec.family == "center" and spec.name not in ("center", "variant"):
        pytest.skip("one center has no others")
    draws = [make_inputs(spec, 4096, num_classes, 16, torch.float32, seed=seed) for seed in range(PLAIN_DRAWS)]
    assert_parity(spec, draws, "blocked")


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
def test_same_bits_on_every_run_and_any_strides(spec, backend):
    if backend == "triton" and not triton_runs_on(DEVICE):
        pytest.skip("Triton does not run here")
    draws = [make_inputs(spec, 20, 4, 12, torch.float32, seed=seed) for seed in range(PLAIN_DRAWS)]
    first, again = (evaluate(spec, *draws[0], backend=backend) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    for stride in (transposed, repeated):
        strided = [({name: stride(name, t) for name, t in tensors.items()}, options) for tensors, options in draws]
        assert_parity(spec, strided, backend, cancelling_terms(spec, 20, "mean"))


def transposed(name: str, t: torch.Tensor) -> torch.Tensor:
    return t.mT.contiguous().mT if t.ndim > 1 and name != "centers" else t


def repeated(name: str, t: torch.Tensor) -> torch.Tensor:
    return t[..., :1, :].expand(t.shape) if name in ("x", "e", "z") else t
