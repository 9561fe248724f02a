"""`python -m bench targets`: which way a ratio goes, what is checked first, and what the yardstick computes.

And the rows of the tables that are committed.
"""

import json

import pytest
import torch
from fer_fast.bench import rows, steps, table10, targets
from fer_fast.bench.contenders import EAGER, FER_FAST
from fer_fast.bench.problems import Problem, Shape

from fer_fast.errors import InputError

SMALL = Problem("ensc", Shape(n=8, d=4, bank=16))
MANY = Problem("lmcl", Shape(n=8, d=4, classes=90))


@pytest.fixture
def medians(monkeypatch):
    monkeypatch.setattr(targets, "_medians", lambda steps: [2.0, 3.0][: len(steps)])


@pytest.mark.parametrize(
    ("limit", "slower", "ratio", "promise", "kept"),
    [
        (0.7, True, 2 / 3, "at most 0.7", True),
        (0.6, True, 2 / 3, "at most 0.6", False),
        (1.4, False, 1.5, "at least 1.4", True),
        (1.6, False, 1.5, "at least 1.6", False),
    ],
)
def test_which_way_a_ratio_goes(medians, limit, slower, ratio, promise, kept):
    row = targets._held(SMALL, "x", targets._checked(EAGER), limit, slower=slower)
    assert (row.seconds, row.other, row.promise, row.kept) == (2.0, 3.0, promise, kept)
    assert row.ratio == pytest.approx(ratio)


def test_a_wrong_answer_is_not_timed(monkeypatch):
    wrong = lambda problem, inputs: lambda: {"loss": torch.zeros(()), "dz": torch.zeros(8, 4)}  # noqa: E731
    with pytest.raises(InputError, match="fer_fast is wrong on ensc"):
        targets._checked(targets.Contender(FER_FAST.name, wrong))(SMALL, targets._inputs(SMALL))


def test_the_yardstick_is_both_products():
    inputs = targets._inputs(SMALL)
    z, bank = inputs.tensors["z"].detach(), inputs.tensors["bank_z"]
    keys = torch.cat([z, bank])
    torch.testing.assert_close(targets._products(SMALL, inputs)()["sums"], z @ keys.T @ keys)


def test_the_yardstick_of_a_classifier_is_its_three_products():
    inputs = targets._inputs(MANY)
    x, weight = inputs.tensors["x"].detach(), inputs.tensors["weight"].detach()
    products = targets._classifier_products(MANY, inputs)()
    torch.testing.assert_close(products["dx"], x @ weight.T @ weight)
    torch.testing.assert_close(products["dweight"], weight @ x.T @ x)


def test_every_promise_is_measured(medians, monkeypatch):
    for name, problem in {
        "ENSC": SMALL,
        "LMCL": MANY,
        "MARGINAL": Problem("marginal", Shape(n=8, d=4)),
        "AD_CORRE": Problem("ad-corre", Shape(n=8, d=4, k=2)),
    }.items():
        monkeypatch.setattr(targets, name, problem)
    monkeypatch.setattr(targets, "COMPILED", EAGER)  # nothing is compiled for a count
    found = list(targets.measure(longest=32))
    assert len(found) == 8
    assert [row.ratio for row in found[-2:]] == [1.5, 1.5]
    assert targets.table(found).row_count == 8


@pytest.mark.parametrize(("table", "row"), [(table10, "StepRow"), (steps, "StepsRow"), (targets, "TargetRow")])
def test_committed_tables_are_rows_of_theirs(table, row):
    name = table.__name__.rpartition(".")[2]
    lines = (rows.ROOT / "bench" / "results" / "tables" / f"{name}.jsonl").read_text().splitlines()
    found = [getattr(table, row)(**json.loads(line)) for line in lines]
    assert found
    assert {each.table for each in found} == {name}
    assert all(each.seconds > 0 and not each.environment["commit"].endswith("dirty") for each in found)
