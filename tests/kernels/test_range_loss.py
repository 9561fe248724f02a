"""Range loss in Triton against the float64 reference, on hostile inputs."""

import pytest
import torch
from fer_fast.kernels.range_loss import launch as engine
from torch import Tensor

from fer_fast import reference
from fer_fast.dispatch import triton_runs_on
from triton_hostile import DEVICE, DTYPES, check, labels_of, poison, rows

pytestmark = pytest.mark.skipif(not triton_runs_on(DEVICE), reason="Triton does not run here")


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch):
    poison(monkeypatch, engine)


def check_range(inputs: list[Tensor], y: Tensor, k: int = 2, margin: float = 40.0) -> None:
    check(
        lambda x: reference.range_loss(x, y, k, 0.5, 0.3, margin),
        lambda x, _: engine.range_loss(x, y, k, 0.5, 0.3, margin, True),
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
    first, again = (engine.range_loss(x, y, 2, 0.5, 0.3, 40.0, True) for _ in range(2))
    assert all(map(torch.equal, first, again))
    loss, dx = engine.range_loss(x, y, 2, 0.5, 0.3, 40.0, False)
    assert torch.equal(loss, first[0])
    assert dx.shape == (0,)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_row_reaches_range_loss(value):
    x, y = rows((18, 8))[0], labels_of(18, 3)
    x[3, 2] = value
    assert torch.isnan(engine.range_loss(x, y, 2, 1.0, 1.0, 1.0, False)[0])
    alone = torch.arange(18, device=DEVICE)  # no pair within a class
    assert torch.isnan(engine.range_loss(x, alone, 2, 1.0, 1.0, 1.0, False)[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_pair_is_read_of_a_bad_class_that_has_fewer_than_k(value, monkeypatch):
    def as_others_left_it(*shape, **how):
        memory = torch.zeros(*shape, **how)
        if memory.dtype == torch.int32 and memory.dim() == 3:  # pairs, of row 0 and of one that is not there
            memory[:, 1] = 2**30
        return memory

    monkeypatch.setattr(engine, "_empty", as_others_left_it)
    x, y = rows((5, 8))[0], torch.tensor([0, 0, 0, 1, 1], device=DEVICE)
    x[1, 2] = value
    assert engine.range_loss(x, y, 4, 0.5, 0.3, 40.0, True)[0].isnan()
