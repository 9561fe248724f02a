"""The pairwise engine, range loss and the primitives in Triton against the float64 reference, on hostile inputs."""

from collections.abc import Callable

import pytest
import torch
from fer_fast.kernels.directions import launch as directions
from fer_fast.kernels.host.launch import gradient_dtype
from fer_fast.kernels.pairwise import launch as pairs
from fer_fast.kernels.primitives import launch as primitives
from fer_fast.kernels.range_loss import launch as ranges
from fer_fast.kernels.survey import launch as survey
from torch import Tensor

from cases import assert_within_budget
from fer_fast import reference
from fer_fast.dispatch import triton_runs_on
from triton_hostile import DEVICE, normal, poison

pytestmark = pytest.mark.skipif(not triton_runs_on(DEVICE), reason="Triton does not run here")
DTYPES = [torch.float32, torch.float16]


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch):
    poison(monkeypatch, pairs, ranges, primitives, directions, survey)


def with_gradient(call: Callable, x: Tensor, grad: Tensor | None = None, autocast=None) -> dict[str, Tensor]:
    """A function's value and gradient by autograd, in the precision of x or under autocast."""
    x = x.clone().requires_grad_()
    with torch.autocast(DEVICE, dtype=autocast, enabled=autocast is not None):
        out = call(x)
    return {"out": out.detach(), "dx": torch.autograd.grad(out, x, None if grad is None else grad.to(out.dtype))[0]}


def check(call: Callable, fast: Callable, inputs: list[Tensor], grads: list[Tensor | None] | None = None) -> None:
    """`fast(x, grad)` gives (value, dx); `call(x)` is the reference."""
    half = inputs[0].dtype if inputs[0].dtype != torch.float32 else None
    cases = list(zip(inputs, grads or [None] * len(inputs), strict=True))
    truth = [with_gradient(call, x.double(), g) for x, g in cases]
    plain = [with_gradient(call, x, g, half) for x, g in cases]
    actual = [dict(zip(("out", "dx"), fast(x, g), strict=True)) for x, g in cases]
    given = [gradient_dtype(x) if grads is None else x.dtype for x in inputs]  # a loss's awaits the loss scale
    assert all(a["out"].dtype == torch.float32 for a in actual)
    assert [a["dx"].dtype for a in actual] == given
    assert_within_budget(actual, plain, truth)


def labels_of(n: int, classes: int) -> Tensor:
    return (torch.randint(classes, (n,), generator=torch.Generator().manual_seed(n)) * 2**33 - 7).to(DEVICE)


def rows(shape: tuple[int, ...], dtype=torch.float32, count: int = 3) -> list[Tensor]:
    return [normal(*shape, seed=seed).to(DEVICE, dtype) for seed in range(count)]


def check_marginal(inputs: list[Tensor], y: Tensor, theta: float = 1.2, xi: float = 0.3, mean: bool = True) -> None:
    reduction = "mean" if mean else "sum"
    check(
        lambda x: reference.marginal(x, y, theta, xi, reduction),
        lambda x, _: pairs.pairwise(x, y, None, "marginal", [theta, xi], mean, True),
        inputs,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d", "classes", "mean"), [(1, 5, 1, True), (33, 24, 3, True), (20, 70, 20, False)])
def test_marginal(n, d, classes, mean, dtype):
    check_marginal(rows((n, d), dtype), labels_of(n, classes), mean=mean)


@pytest.mark.parametrize("labels", [torch.int64, torch.int32])
@pytest.mark.parametrize("dtype", DTYPES)
def test_marginal_of_labels_that_fit_32_bits(dtype, labels, monkeypatch):
    """Tiles off the diagonal then take no masks; labels beyond take them everywhere, to the same result."""
    monkeypatch.setattr(pairs, "pick_splits", lambda *_: 2)
    x, y = rows((70, 24), dtype), labels_of(70, 3)
    small = (y // 2**33).to(labels)
    check_marginal(x, small)
    results = [pairs.pairwise(x[0], each, None, "marginal", [1.2, 0.3], True, True) for each in (small, y)]
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-8)


def test_marginal_of_zero_duplicate_huge_tiny_and_strided_rows():
    y = labels_of(20, 3)
    hostile = rows((20, 24))
    for x in hostile:
        x[3] = 0
        x[4] = x[5]
        x[6] *= 1e30
        x[7] *= 1e-30
    check_marginal(hostile, y)
    check_marginal([x.mT.contiguous().mT for x in hostile], y, theta=2.0, xi=1.0)
    check_marginal([x[:1].expand(20, 24) for x in rows((20, 24))], y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("k", "n", "d"), [(1, 1, 5), (2, 33, 24), (3, 17, 70)])
def test_fd_in_its_pairwise_form(k, n, d, dtype):
    y, difficulty = torch.arange(n, device=DEVICE) % 4, torch.rand(4, device=DEVICE) + 1e-6
    x = rows((k, n, d), dtype)
    for e in x[:2]:
        e[:, n // 2] = 2.0  # a constant row
    check(
        lambda e: reference.fd(e, y, difficulty),
        lambda e, _: pairs.pairwise(e, y, difficulty, "fd", [], True, True),
        x,
    )


def test_fd_of_an_unknown_label_is_nan():
    x, y = rows((1, 6, 8))[0], torch.tensor([0, 1, 2, 3, 2**40, -1], device=DEVICE)
    assert torch.isnan(pairs.pairwise(x, y, torch.ones(4, device=DEVICE), "fd", [], True, True)[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_row_reaches_every_loss(value):
    x, y = rows((18, 8))[0], labels_of(18, 3)
    x[3, 2] = value
    assert torch.isnan(pairs.pairwise(x, y, None, "marginal", [1.2, 0.3], True, False)[0])
    assert torch.isnan(pairs.pairwise(x[None], y * 0, torch.ones(1, device=DEVICE), "fd", [], True, False)[0])
    assert torch.isnan(ranges.range_loss(x, y, 2, 1.0, 1.0, 1.0, False)[0])
    alone = torch.arange(18, device=DEVICE)  # no pair within a class
    assert torch.isnan(ranges.range_loss(x, alone, 2, 1.0, 1.0, 1.0, False)[0])


def test_parts_of_the_keys_combine_to_the_same_and_to_the_same_bits(monkeypatch):
    x, y = rows((50, 16))[0], labels_of(50, 3)
    results = {}
    for parts in (1, 3):
        monkeypatch.setattr(pairs, "pick_splits", lambda *_, parts=parts: parts)
        results[parts], again = (pairs.pairwise(x, y, None, "marginal", [1.2, 0.3], True, True) for _ in range(2))
        assert all(map(torch.equal, results[parts], again))
    torch.testing.assert_close(results[3], results[1], rtol=1e-6, atol=1e-7)


def check_range(inputs: list[Tensor], y: Tensor, k: int = 2, margin: float = 40.0) -> None:
    check(
        lambda x: reference.range_loss(x, y, k, 0.5, 0.3, margin),
        lambda x, _: ranges.range_loss(x, y, k, 0.5, 0.3, margin, True),
        inputs,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "d", "classes", "k"), [(1, 5, 1, 2), (33, 24, 4, 2), (64, 16, 2, 3), (20, 70, 1, 8), (18, 3, 18, 1)]
)
def test_range(n, d, classes, k, dtype):
    check_range(rows((n, d), dtype), labels_of(n, classes), k)


def test_range_of_ties_duplicates_and_near_duplicates():
    y = labels_of(30, 3)
    ties = [torch.randint(3, (30, 3), generator=torch.Generator().manual_seed(s)).to(DEVICE).float() for s in range(3)]
    check_range(ties, y, k=3, margin=1.0)
    check_range([1e-3 * x + 100 for x in rows((30, 8))], y, k=8, margin=1e-6)
    two = rows((2, 8))
    for x in two:
        x[1] = x[0]
    check_range(two, torch.zeros(2, dtype=torch.int64, device=DEVICE))
    check_range([torch.cat([x[:1], x[:1] + 1e-18]) for x in two], torch.zeros(2, dtype=torch.int64, device=DEVICE))


def test_range_has_the_same_bits_on_every_run():
    x, y = rows((40, 9))[0], labels_of(40, 5)
    first, again = (ranges.range_loss(x, y, 2, 0.5, 0.3, 40.0, True) for _ in range(2))
    assert all(map(torch.equal, first, again))
    loss, dx = ranges.range_loss(x, y, 2, 0.5, 0.3, 40.0, False)
    assert torch.equal(loss, first[0])
    assert dx.shape == (0,)


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
    check_primitive(
        reference.correlation_matrix, primitives.correlation_matrix, primitives.correlation_matrix_backward, x
    )


def test_the_correlation_matrix_of_a_scaled_float16_gradient_does_not_overflow():
    x = rows((12, 8), torch.float16)[0] * 1000
    dx = primitives.correlation_matrix_backward(torch.full((12, 12), 2.0**17, device=DEVICE), x)
    assert torch.isfinite(dx).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d", "classes"), [(1, 5, 1), (33, 24, 5), (7, 70, 40)])
def test_center_distances(n, d, classes, dtype):
    centers = normal(classes, d, seed=9).to(DEVICE, torch.float32)
    check_primitive(
        lambda x: reference.center_distances(x, centers),
        lambda x: primitives.center_distances(x, centers),
        lambda grad, x: primitives.center_distances_backward(grad, x, centers),
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
        lambda x: primitives.anti_center_distances(x, y, centers),
        lambda grad, x: primitives.anti_center_distances_backward(grad, x, y, centers),
        [row.to(dtype) for row in x],
    )


def test_the_anti_center_distance_of_an_unknown_label_is_nan():
    x, centers = rows((3, 8))[0], rows((4, 8))[1]
    s = primitives.anti_center_distances(x, torch.tensor([0, 4, -1], device=DEVICE), centers)
    assert torch.isnan(s).tolist() == [False, True, True]
