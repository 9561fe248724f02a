"""The pairwise engine in Triton against the float64 reference, on hostile inputs."""

import pytest
import torch
from fer_fast.kernels.directions import launch as directions
from fer_fast.kernels.pairwise import launch as engine
from fer_fast.kernels.survey import launch as survey
from torch import Tensor

from fer_fast import reference
from fer_fast.dispatch import triton_runs_on
from triton_hostile import DEVICE, DTYPES, check, labels_of, normal, poison, rows

pytestmark = pytest.mark.skipif(not triton_runs_on(DEVICE), reason="Triton does not run here")


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch):
    poison(monkeypatch, engine, directions, survey)


def check_marginal(inputs: list[Tensor], y: Tensor, theta: float = 1.2, xi: float = 0.3, mean: bool = True) -> None:
    reduction = "mean" if mean else "sum"
    check(
        lambda x: reference.marginal(x, y, theta, xi, reduction),
        lambda x, _: engine.pairwise(x, y, None, "marginal", [theta, xi], mean, True),
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
    monkeypatch.setattr(engine, "pick_splits", lambda *_: 2)
    x, y = rows((70, 24), dtype), labels_of(70, 3)
    small = (y // 2**33).to(labels)
    check_marginal(x, small)
    results = [engine.pairwise(x[0], each, None, "marginal", [1.2, 0.3], True, True) for each in (small, y)]
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-8)


def test_marginal_of_zero_duplicate_huge_tiny_and_strided_rows():
    y = labels_of(20, 3)
    hostile = rows((20, 24))
    for x in hostile:
        x[3] = 0
        x[4] = x[5]
        x[6] *= 1e11
        x[7] *= 1e-12
    check_marginal(hostile, y)
    check_marginal([x.mT.contiguous().mT for x in hostile], y, theta=2.0, xi=1.0)
    check_marginal([x[:1].expand(20, 24) for x in rows((20, 24))], y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("k", "n", "d"), [(1, 1, 5), (2, 33, 24), (3, 17, 70)])
def test_fd_in_its_pairwise_form(k, n, d, dtype):
    y, difficulty = torch.arange(n, device=DEVICE) % 4, normal(4, seed=9).abs().to(DEVICE, torch.float32)
    x = rows((k, n, d), dtype)
    for e in x[:2]:
        e[:, n // 2] = 2.0  # a constant row
    check(
        lambda e: reference.fd(e, y, difficulty),
        lambda e, _: engine.pairwise(e, y, difficulty, "fd", [], True, True),
        x,
    )


def test_fd_of_an_unknown_label_is_nan():
    x, y = rows((1, 6, 8))[0], torch.tensor([0, 1, 2, 3, 2**40, -1], device=DEVICE)
    assert torch.isnan(engine.pairwise(x, y, torch.ones(4, device=DEVICE), "fd", [], True, True)[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_row_reaches_every_loss(value):
    x, y = rows((18, 8))[0], labels_of(18, 3)
    x[3, 2] = value
    assert torch.isnan(engine.pairwise(x, y, None, "marginal", [1.2, 0.3], True, False)[0])
    assert torch.isnan(engine.pairwise(x[None], y * 0, torch.ones(1, device=DEVICE), "fd", [], True, False)[0])


def test_parts_of_the_keys_combine_to_the_same_and_to_the_same_bits(monkeypatch):
    x, y = rows((50, 16))[0], labels_of(50, 3)
    results = {}
    for parts in (1, 3):
        monkeypatch.setattr(engine, "pick_splits", lambda *_, parts=parts: parts)
        results[parts], again = (engine.pairwise(x, y, None, "marginal", [1.2, 0.3], True, True) for _ in range(2))
        assert all(map(torch.equal, results[parts], again))
    torch.testing.assert_close(results[3], results[1], rtol=1e-6, atol=1e-7)
