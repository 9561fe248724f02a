"""The primitives in Triton against the float64 reference, on hostile inputs."""

from collections.abc import Callable

import pytest
import torch
from fer_fast.kernels.directions import launch as directions
from fer_fast.kernels.primitives import launch as engine
from torch import Tensor

from fer_fast import reference
from fer_fast.dispatch import triton_runs_on
from triton_hostile import DEVICE, DTYPES, check, normal, poison, rows

pytestmark = pytest.mark.skipif(not triton_runs_on(DEVICE), reason="Triton does not run here")


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch):
    poison(monkeypatch, engine, directions)


def check_primitive(call: Callable, forward: Callable, backward: Callable, inputs: list[Tensor]) -> None:
    with torch.no_grad():
        shapes = [call(x.double()).shape for x in inputs]
    grads = [normal(*shape, seed=seed).to(DEVICE, torch.float32) for seed, shape in enumerate(shapes)]
    check(call, lambda x, grad: (forward(x), backward(grad, x)), inputs, grads)


# One float16 row is left out: plain PyTorch rounds its 1.0002 to exactly 1, and twice that error is no budget.
@pytest.mark.parametrize(
    ("n", "d", "dtype"),
    [(1, 5, torch.float32), *((n, d, of) for n, d in ((5, 1), (33, 24), (20, 70)) for of in DTYPES)],
)
def test_correlation_matrix(n, d, dtype):
    x = rows((n, d), dtype)
    x[0][n // 2] = 2.0
    check_primitive(reference.correlation_matrix, engine.correlation_matrix, engine.correlation_matrix_backward, x)


def test_the_correlation_matrix_of_a_scaled_float16_gradient_does_not_overflow():
    x = rows((12, 8), torch.float16)[0] * 1000
    dx = engine.correlation_matrix_backward(torch.full((12, 12), 2.0**17, device=DEVICE), x)
    assert torch.isfinite(dx).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d", "classes"), [(1, 5, 1), (33, 24, 5), (7, 70, 40)])
def test_center_distances(n, d, classes, dtype):
    centers = normal(classes, d, seed=9).to(DEVICE, torch.float32)
    check_primitive(
        lambda x: reference.center_distances(x, centers),
        lambda x: engine.center_distances(x, centers),
        lambda grad, x: engine.center_distances_backward(grad, x, centers),
        rows((n, d), dtype),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("near", ["random", "the other center", "far from the origin"])
@pytest.mark.parametrize("classes", [1, 2, 40])
def test_anti_center_distances(classes, near, dtype):
    n, d = 18, 24
    centers = normal(classes, d, seed=9).to(DEVICE, torch.float32)
    y = torch.arange(n, device=DEVICE) % classes
    x = rows((n, d))
    if near == "the other center":
        x = [centers[(y + 1) % classes] + 1e-3 * row for row in x]
    if near == "far from the origin":
        x, centers = [100 + 0.1 * row for row in x], 100 + 0.1 * centers
    check_primitive(
        lambda x: reference.anti_center_distances(x, y, centers),
        lambda x: engine.anti_center_distances(x, y, centers),
        lambda grad, x: engine.anti_center_distances_backward(grad, x, y, centers),
        [row.to(dtype) for row in x],
    )


def test_the_anti_center_distance_of_an_unknown_label_is_nan():
    x, centers = rows((3, 8))[0], rows((4, 8))[1]
    s = engine.anti_center_distances(x, torch.tensor([0, 4, -1], device=DEVICE), centers)
    assert torch.isnan(s).tolist() == [False, True, True]
