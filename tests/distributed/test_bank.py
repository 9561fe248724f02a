"""Banks of several processes, whole on each or in parts, and the losses that meet them: those of one process."""

import math

import pytest
import torch

import shared_bank
from shared_bank import CAPACITY, STEPS, Case, D, Model, bank_of, expected, follow

CASES = [
    Case(loss, sharded, *more)
    for sharded in (False, True)
    for loss, *more in (
        ("ENSCLoss",),
        ("ESCLoss", "true", "sum"),
        ("ENSCLoss", "mask"),
        ("ESCLoss", "valid"),
        ("ENSCLoss", "numbers"),
        ("ENSCLoss", "true", "none"),
        ("MVALoss",),
        ("MVALoss", "", "sum", "reference"),
        ("ESCLoss", "true", "mean", "reference"),
        ("ENSCLoss", "", "mean", "blocked", torch.float16),
        ("MVALoss", "", "mean", "blocked", torch.float16),
        ("ENSCLoss", "true", "mean", "blocked", torch.float64, 3),  # a process without a row of the bank
        ("ESCLoss", "true", "mean", "blocked", torch.float64, CAPACITY, 13),  # counts that devices alone know
        ("MVALoss", "", "mean", "blocked", torch.float64, CAPACITY, 13),
    )
]


def assert_equal(found: dict, whole: dict, of: str) -> None:
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        said = f"{of}, {name}: {{}}".format
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12, msg=said)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_four_processes(four, case):
    for rank, (found, whole) in enumerate(
        zip(four.run(shared_bank.on_process, case, 4), expected(case, 4), strict=True)
    ):
        assert_equal(found, whole, f"rank {rank}")


@pytest.mark.parametrize("case", [Case(sharded=True), Case("MVALoss", True), Case("ESCLoss", False, "true")], ids=str)
def test_two_of_the_processes(four, case):
    for rank, whole in enumerate(expected(case, 2)):
        assert_equal(four.run(shared_bank.on_process, case, 2)[rank], whole, f"rank {rank}")


@pytest.mark.parametrize("sharded", [False, True])
def test_a_state_of_four_moves_on_with_two_and_one(four, sharded):
    state = bank_of(Case(), None)
    of_four = four.run(shared_bank.on_process, Case(sharded=sharded), 4)[3]
    state = {name: of_four[name] for name in state.state_dict()}
    alone = bank_of(Case(), None)
    alone.load_state_dict(state)
    after = follow(Case(), None, 2, None, alone)  # the batches of two
    for to in (False, True):
        for found in four.run(shared_bank.moved_on, state, to, 2)[:2]:
            assert_equal({k: found[k] for k in state}, {k: after[k] for k in state}, f"to sharded={to}")
            assert_equal({"loss 1": found["loss 1"]}, {"loss 1": after["loss 1"]}, f"to sharded={to}")
    assert not torch.equal(after["ring"], state["ring"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_key_that_is_not_finite_is_seen_by_all(four, value):
    for sharded in (False, True):
        assert all(loss.isnan() for loss in four.run(shared_bank.spoilt, Case("ESCLoss", sharded), value))


@pytest.mark.parametrize("sharded", [False, True])
def test_over_and_ddp_train_what_one_process_does(four, sharded):
    model = Model(False, rows=9)
    whole = shared_bank.trained(model, model, None)
    for rank, (found, shape) in enumerate(four.run(shared_bank.trained_by_ddp, sharded)):
        assert_equal(found, whole, f"rank {rank}")
        assert shape == [math.ceil(CAPACITY / 4) if sharded else CAPACITY, D]


def test_what_does_not_belong_together_is_named(four):
    for said in four.run(shared_bank.refused):
        assert said == [
            "bank: a sharded one asks for a loss and a bank of the same process_group",
            "own: True asks for a loss and a bank of the same process_group",
            "own: True asks for a loss and a bank of the same process_group",
            "ring_labels: shape (9,) given, (8,) expected",
        ]


def test_the_steps_fill_the_ring_and_go_round():
    rows = [sum(counts) for counts in STEPS]
    assert rows[0] < CAPACITY < rows[0] + rows[1]
    assert max(rows) > CAPACITY
    assert 0 in rows
