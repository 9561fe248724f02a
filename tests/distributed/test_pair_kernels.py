"""Triton's engines whose rows meet each other, of rows that lie on several processes."""

from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from fer_fast import reference
from fer_fast.dispatch import triton_runs_on
from triton_hostile import DEVICE, normal, poison, unit

if not triton_runs_on(DEVICE):
    pytest.skip("Triton does not run here", allow_module_level=True)

from fer_fast.kernels.contrastive import launch as contrastive
from fer_fast.kernels.directions import launch as directions
from fer_fast.kernels.host.launch import gradient_dtype
from fer_fast.kernels.pairwise import launch as pairwise
from fer_fast.kernels.range_loss import launch as range_loss
from fer_fast.kernels.survey import launch as survey

from cases import assert_within_budget
from fer_fast.terms import Peers, Setting
from lockstep import of_each
from shared_cases import Case, alone, on_process

COUNTS = (18, 0, 23, 9)  # of no tile's size, and over several
DRAWS = 6  # of plain PyTorch, whose error on one is luck
D, BANK = 24, 37


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch):
    poison(monkeypatch, contrastive, pairwise, directions, survey, range_loss)


class Of(NamedTuple):
    """A call: of which loss, and what is unusual about it."""

    mode: str
    dtype: torch.dtype = torch.float32
    reduction: str = "mean"
    hostile: bool = False  # rows are left out, a bank has holes: every tile is visited with care
    weighted: bool = False
    learnt: bool = False  # the temperature
    told: bool = True  # how many rows each process has; else shares are filled up

    def __str__(self) -> str:
        unusual = [name for name in ("hostile", "weighted", "learnt") if getattr(self, name)]
        return "-".join([self.mode, str(self.dtype)[-2:], self.reduction, *unusual, *["padded"] * (not self.told)])


def drawn(of: Of, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    n = sum(COUNTS)
    given = {"z": unit(normal(n, D, seed=seed)), "y": torch.randint(3, (n,), generator=generator)}
    given |= {"bank_z": unit(normal(BANK, D, seed=99 - seed)), "bank_y": torch.randint(3, (BANK,), generator=generator)}
    given |= {"weights": torch.rand(n, generator=generator)} if of.weighted else {}
    if of.hostile:
        for rows in ("", "bank_"):
            given[f"{rows}y"][4::9] = -1
            given[f"{rows}z"][4::9] = torch.nan
    return {name: t.to(DEVICE, of.dtype if name.endswith("z") else t.dtype) for name, t in given.items()}


def of_reference(of: Of, given: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    z = given["z"].to(dtype).requires_grad_()
    learnt = torch.tensor(0.1, dtype=max(dtype, torch.float32, key=lambda of: of.itemsize), device=DEVICE)
    learnt.requires_grad_()
    bank = () if of.mode == "supcon" else (given["bank_z"].to(dtype), given["bank_y"])
    more = {"temperature": learnt if of.learnt else 0.1, "reduction": of.reduction}
    with torch.autocast(DEVICE, dtype=torch.float16, enabled=dtype == torch.float16):
        loss = getattr(reference, of.mode)(z, given["y"], *bank, sample_weights=given.get("weights"), **more)
    found = {"loss": loss.detach()}
    if of.reduction == "none":
        return found
    found["dz"], *of_temperature = torch.autograd.grad(loss, [z, learnt][: 1 + of.learnt])
    return found | dict(zip(["dtemperature"], of_temperature, strict=False))


def filled_up(t: Tensor) -> Tensor:
    """Rows of all processes as they come where nobody knows how many each has."""
    own = [
        torch.cat([rows, rows.new_full((max(COUNTS) - len(rows), *t.shape[1:]), 0 if t.is_floating_point() else -1)])
        for rows in t.split(COUNTS)
    ]
    return torch.cat(own)


def of_all(results: list[tuple], of: Of) -> dict[str, Tensor]:
    """What the processes found, put together: of what all have, they have the same to the bit."""
    losses, gradients, *of_temperature = zip(*results, strict=True)
    if of.reduction == "none":
        return {"loss": torch.cat(losses)}
    if not of.told:
        gradients = [rows[:count] for rows, count in zip(gradients, COUNTS, strict=True)]
    found = {"loss": losses[0], "dz": torch.cat(gradients)}
    assert found["dz"].dtype == gradient_dtype(torch.empty(0, dtype=of.dtype))
    for same in (losses, *of_temperature):
        assert all(torch.equal(t, same[0]) for t in same)
    return found | ({"dtemperature": of_temperature[0][0]} if of.learnt else {})


CONTRASTIVE = [
    Of("supcon"),
    Of("supcon", torch.float16, weighted=True),
    Of("supcon", reduction="sum", hostile=True, weighted=True, learnt=True),
    Of("supcon", told=False),
    Of("supcon", reduction="none"),
    Of("esc", reduction="sum"),
    Of("ensc", learnt=True),
    Of("ensc", torch.float16),
    Of("ensc", torch.float16, hostile=True),
    Of("ensc", hostile=True, weighted=True, learnt=True, told=False),
    Of("ensc", reduction="none", hostile=True, weighted=True),
]


@pytest.mark.parametrize("of", CONTRASTIVE, ids=str)
def test_contrastive(of):
    draws = [drawn(of, seed) for seed in range(DRAWS)]
    given = dict(draws[0])
    if not of.told:
        given |= {name: filled_up(t) for name, t in given.items() if not name.startswith("bank")}
    temperature = Setting.of(torch.tensor(0.1, device=DEVICE) if of.learnt else 0.1)
    rows = given["z"], given["y"], given["bank_z"], given["bank_y"], temperature, of.mode, given.get("weights")
    results = of_each(COUNTS, partial(contrastive.contrastive, *rows, of.reduction, of.reduction != "none"), of.told)
    precise, plain = ([of_reference(of, draw, dtype) for draw in draws] for dtype in (torch.float64, of.dtype))
    assert_within_budget([of_all(results, of)], plain, precise)


def test_a_bank_in_parts_is_refused_before_anything_travels():
    z, y, bank_z, bank_y, *_ = drawn(Of("ensc"), 0).values()
    call = partial(contrastive.contrastive, z, y, bank_z, bank_y, Setting(0.1))
    with pytest.raises(NotImplementedError, match="in parts"):
        call("ensc", None, "mean", True, peers=Peers(sharded=True))
    assert call("supcon", None, "mean", True, peers=Peers(sharded=True))[0].isfinite()  # which asks for no bank


def test_without_a_gradient_the_loss_has_the_same_bits():
    given = drawn(Of("ensc"), 0)
    rows = given["z"], given["y"], given["bank_z"], given["bank_y"], Setting(0.1), "ensc", None, "mean"
    with_gradient, without = (
        of_each(COUNTS, partial(contrastive.contrastive, *rows, asked)) for asked in (True, False)
    )
    assert torch.equal(without[1][0], with_gradient[2][0])
    assert without[0][1].shape == (0,)


@pytest.mark.parametrize("mode", ["supcon", "marginal"])
def test_a_bad_row_reaches_the_loss_of_all(mode):
    given = drawn(Of("supcon"), 0)
    z, y = given["z"], given["y"]
    z[2], y[2] = torch.inf, 7  # of the first process, alone in its class
    call = partial(contrastive.contrastive, z, y, None, None, Setting(0.1), mode, None, "mean", True)
    if mode == "marginal":
        call = partial(pairwise.pairwise, z, y, None, mode, [1.2, 0.3], True, True)
    assert all(torch.isnan(loss) for loss, *_ in of_each(COUNTS, call))


PAIRS = [Of("marginal"), Of("marginal", torch.float16, "sum"), Of("marginal", hostile=True),
         Of("marginal", torch.float16, told=False)]  # fmt: skip


@pytest.mark.parametrize("of", PAIRS, ids=str)
def test_marginal(of, monkeypatch):
    monkeypatch.setattr(directions, "DIRECTION_ROWS", directions.DIRECTION_ROWS._replace(block_m=8 * 32))  # 8 rows
    draws = [drawn(of, seed) for seed in range(DRAWS)]
    x, y = draws[0]["z"], draws[0]["y"]
    if not of.told:
        x, y = filled_up(x), filled_up(y)
    call = partial(pairwise.pairwise, x, y, None, "marginal", [1.2, 0.3], of.reduction == "mean", True)

    def of_plain(given: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        x = given["z"].to(dtype).requires_grad_()
        with torch.autocast(DEVICE, dtype=torch.float16, enabled=dtype == torch.float16):
            loss = reference.marginal(x, given["y"], 1.2, 0.3, of.reduction)
        return {"loss": loss.detach(), "dz": torch.autograd.grad(loss, x)[0]}

    precise, plain = ([of_plain(draw, dtype) for draw in draws] for dtype in (torch.float64, of.dtype))
    assert_within_budget([of_all(of_each(COUNTS, call, of.told), of)], plain, precise)


def test_range_loss_is_to_the_bit_what_one_process_gives():
    given = drawn(Of("range", hostile=True), 0)
    x, y, counts = given["z"][:40, :5], given["y"][:40], (9, 0, 31)
    call = partial(range_loss.range_loss, x, y, 2, 1.0, 0.5, 2.0, True)
    found, (loss, dx) = of_all(of_each(counts, call), Of("range")), call()
    assert torch.equal(found["loss"], loss)
    assert torch.equal(found["dz"], dx)


def interpreted(cases: list[Case]) -> list[dict[str, Tensor]]:
    import triton_interpreter

    triton_interpreter.install()
    return on_process(cases)


@pytest.mark.skipif(not triton_runs_on("cpu"), reason="the processes have Triton's interpreter")
def test_losses_of_four_processes(four):
    learnt = (("temperature", torch.nn.Parameter(torch.tensor(0.3))),)
    cases = [
        Case("ensc", backend="triton", weighted=True, options=learnt, dtype=torch.float32),
        Case("esc", "none", "triton", weighted=True, dtype=torch.float32, gradients="sum"),
        Case("marginal", backend="triton", dtype=torch.float32),
    ]
    found = four.run(interpreted, cases)
    for at, case in enumerate(cases):
        for expected, shares in zip(alone(case, four.size), found, strict=True):
            torch.testing.assert_close(shares[at], expected, rtol=1e-5, atol=1e-6)
