"""A negative label takes its row out of everything, in pairwise losses of every backend."""

import pytest
import torch

from cases import assert_within_budget, double, evaluate, make_inputs, plain
from fer_fast import functional
from fer_fast.dispatch import triton_runs_on
from fer_fast.registry import LOSSES

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BACKENDS = ["reference", "blocked", *(["triton"] if triton_runs_on(DEVICE) else [])]
SPECS = [pytest.param(spec, id=name) for name, spec in LOSSES.items() if spec.family == "pairwise"]

over_backends = pytest.mark.parametrize("backend", BACKENDS)
over_losses = pytest.mark.parametrize("spec", SPECS)


def with_rows_taken_out(spec, seed, dtype=torch.float32, value=float("nan")):
    """A batch in which every third row is taken out, two of them by the same label, and holds NaN; and it without."""
    tensors, options = make_inputs(spec, 40, 4, 19, dtype, seed=seed)
    out = torch.arange(40) % 3 == 1
    x, y = tensors["x"].clone(), tensors["y"].clone()
    x[out], y[out] = value, -1 - torch.arange(40)[out] // 6
    return {"x": x, "y": y}, {name: t[~out] for name, t in tensors.items()}, out, options


@over_backends
@over_losses
@pytest.mark.parametrize("label_dtype", [torch.int64, torch.int32, torch.int8])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_others_are_alone(spec, reduction, label_dtype, backend):
    how = {"reduction": reduction}
    actual, simple, truth = [], [], []
    for seed in range(8):
        whole, rest, out, options = with_rows_taken_out(spec, seed)
        found = evaluate(spec, whole | {"y": whole["y"].to(label_dtype)}, options, backend=backend, **how)
        assert torch.equal(found["dx"][out], torch.zeros_like(found["dx"][out]))
        actual.append({"loss": found["loss"], "dx": found["dx"][~out]})
        simple.append(plain(spec, rest, options, **how))
        truth.append(evaluate(spec, double(rest), options, backend="reference", **how))
    assert_within_budget(actual, simple, truth)


@over_backends
@over_losses
@pytest.mark.parametrize("left", [0, 1])
def test_of_fewer_than_two_rows_nothing_is_lost(spec, left, backend):
    x, y = torch.full((5, 3), float("nan")), torch.tensor([-1, -1, -2, -9, -1])
    x[:left], y[:left] = 1.0, 0
    found = evaluate(spec, {"x": x, "y": y}, {}, backend=backend)
    assert found["loss"] == 0
    assert torch.equal(found["dx"], torch.zeros_like(x))


@over_backends
@over_losses
def test_a_bad_row_that_takes_part_still_reaches_the_loss(spec, backend):
    whole, _, out, options = with_rows_taken_out(spec, 0)
    whole["x"][int((~out).nonzero()[0]), 0] = float("inf")
    assert not evaluate(spec, whole, options, backend=backend)["loss"].isfinite()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["selfcon", "supcon", "esc", "ensc"])
def test_nothing_comes_back_through_the_length_of_a_row_left_out(name, backend):
    z, y = torch.randn(6, 4), torch.tensor([0, 0, 1, -1, 1, 1])
    z[3] = torch.nan
    z.requires_grad_()
    loss = getattr(functional, f"{name}_loss")(z, y, normalize=True, backend=backend)
    (gradient,) = torch.autograd.grad(loss, z)
    assert gradient[3].eq(0).all()
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
