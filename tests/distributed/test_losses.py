"""Every loss of a batch that lies on several processes, with all that comes of it, is that of one that has it whole."""

import pytest
import torch
import torch.distributed as dist

import shared_cases
from fer_fast.registry import LOSSES
from shared_cases import Case, alone, on_process

JOINT = ("softmax+center", "weighted-softmax+variant", "lmcl+mva", "softmax+ad-corre", "weighted-softmax+supcon")
MODES = [
    Case(name, reduction, weighted=weighted)
    for name, spec in LOSSES.items()
    for reduction in spec.reductions
    for weighted in (False, True)[: 1 + spec.reference.by_row]
]
OPTIONS = [
    *[Case(name, reduction, weighted=True) for name in JOINT[:3] for reduction in ("mean", "sum")],
    *[Case(name, gradients="sum") for name in ("softmax", "variant", "ad-corre", "marginal", "ensc")],
    Case("softmax", options=(("label_smoothing", 0.1),)),
    Case("weighted-softmax", options=(("ignore_index", 2),), weighted=True),
    Case("lmcl", options=(("s", torch.nn.Parameter(torch.tensor(7.0))),)),
    Case("supcon", options=(("temperature", torch.nn.Parameter(torch.tensor(0.3))),), weighted=True),
    Case("variant", options=(("feature_gradient", "paper"),)),
]
REFERENCE = [Case(name, backend="reference", weighted=spec.reference.by_row) for name, spec in LOSSES.items()]


def assert_equal_to_one_process(group, case: Case, function=on_process) -> None:
    found = group.run(function, [case])
    for rank, (expected, (share,)) in enumerate(zip(alone(case, group.size), found, strict=True)):
        assert share.keys() == expected.keys()
        for name, value in expected.items():
            size = max(1, float(value.abs().amax())) if value.numel() else 1
            where = f"{case}, rank {rank}, {name}: {{}}"
            torch.testing.assert_close(share[name], value, rtol=0, atol=1e-12 * size, msg=where.format)


@pytest.mark.parametrize("case", MODES + OPTIONS, ids=str)
def test_four_processes(four, case):
    assert_equal_to_one_process(four, case)


@pytest.mark.parametrize("case", [Case(name) for name in LOSSES] + REFERENCE, ids=str)
def test_two_processes(two, case):
    assert_equal_to_one_process(two, case)


PADDED = [
    Case("marginal"),
    Case("range"),
    *[Case(name, reduction, weighted=True) for name in ("selfcon", "ensc") for reduction in ("mean", "none")],
]


def with_most_rows(cases: list[Case]) -> list[dict]:
    """Where no process has more than 30 rows, which is said before and not asked again."""
    from fer_fast.distributed import collectives

    group = dist.group.WORLD
    collectives.at_most(group, 30)
    on_process(cases)  # which also makes sure, once, that all make the same calls
    asked, collectives.agree = collectives.agree, None
    try:
        return on_process(cases)
    finally:
        collectives.agree = asked
        del collectives._most_rows[group]


@pytest.mark.parametrize("case", PADDED, ids=str)
def test_nobody_asks_how_many_rows_there_are(four, case):
    assert_equal_to_one_process(four, case, with_most_rows)


def without_factor(cases: list[Case]) -> list[dict]:
    """A mutant: what the mean of all processes' gradients takes away is not put in before."""
    from fer_fast.ops import library

    right, library.times_of = library.times_of, lambda peers: 1
    try:
        return on_process(cases)
    finally:
        library.times_of = right


@pytest.mark.parametrize("name", ["softmax", "variant", "ad-corre", "marginal", "range", "supcon"])
def test_a_lost_factor_shows(two, name):
    case = Case(name)
    expected, (share,) = alone(case, 2)[0], two.run(without_factor, [case])[0]
    torch.testing.assert_close(2 * share["x 0"], expected["x 0"], rtol=1e-9, atol=1e-12)
    assert (share["x 0"] - expected["x 0"]).abs().max() > 0.1 * expected["x 0"].abs().max()


def test_centers_are_the_same_to_the_bit(four):
    found = four.run(on_process, [Case("softmax+variant", dtype=torch.float32)])
    for (share,) in found[1:]:
        for name in ("auxiliary.centers", "dclassifier.weight", "loss 1"):
            assert torch.equal(share[name], found[0][0][name])


def test_the_classes_of_the_batch(four):
    """Of which the last is never there."""
    given = shared_cases.batch(Case("softmax"), four.size)
    assert given["counts"] == (7, 0, 12, 5)
    assert given["y"].max() < shared_cases.C - 1
