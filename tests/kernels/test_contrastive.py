"""The contrastive engine in Triton against the float64 reference: what the table of parity tests does not reach."""

import pytest
import torch
from fer_fast.kernels.contrastive import launch as engine
from fer_fast.kernels.host.launch import gradient_dtype
from fer_fast.kernels.survey import launch as survey
from fer_fast.kernels.survey.survey import MARGIN
from torch import Tensor

from cases import assert_within_budget
from fer_fast import reference
from fer_fast.dispatch import triton_runs_on
from fer_fast.terms import Setting
from triton_hostile import DEVICE, normal, poison, unit

pytestmark = pytest.mark.skipif(not triton_runs_on(DEVICE), reason="Triton does not run here")


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch):
    poison(monkeypatch, engine, survey)


def make(n: int, d: int, m: int, classes: int, seed: int, dtype=torch.float32, bank_dtype=None, length: float = 1.0):
    """Anchors, labels and a bank whose rows of label -1 are NaN; labels are far apart and beyond 32 bits. Nothing of it
    is plain: every tile is visited with care."""
    z = (unit(normal(n, d, seed=seed)) * length).to(dtype)
    bank_z = (unit(normal(m, d, seed=seed + 1)) * length).to(bank_dtype or dtype)
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=generator)
    bank_y = torch.randint(-1, classes, (m,), generator=generator)
    bank_z[bank_y < 0] = torch.nan
    far = 2**32
    return z.to(DEVICE), (y * far).to(DEVICE), bank_z.to(DEVICE), torch.where(bank_y < 0, -1, bank_y * far).to(DEVICE)


def make_plain(n: int, d: int, m: int, classes: int, seed: int, dtype=torch.float32, labels=torch.int64):
    """What training has: unit rows, small labels, a bank that is full. Tiles off the diagonal take no masks."""
    z, y, bank_z, bank_y = make(n, d, m, classes, seed, dtype)
    y, bank_y = (t // 2**32 for t in (y, bank_y))
    return z, y.to(labels), torch.nan_to_num(bank_z), bank_y.clamp(min=0).to(labels)


def launch(z, y, bank_z, bank_y, temperature, mode, mean=True, gradient=True) -> tuple[Tensor, ...]:
    reduction = "mean" if mean else "sum"
    return engine.contrastive(z, y, bank_z, bank_y, Setting(temperature), mode, None, reduction, gradient)


def evaluate_reference(
    mode, z, y, bank_z, bank_y, temperature, mean, precision=None, autocast=None
) -> dict[str, Tensor]:
    z = z.to(precision or z.dtype).requires_grad_()
    reduction = "mean" if mean else "sum"
    bank = () if mode in ("selfcon", "supcon") else (bank_z if precision is None else bank_z.to(precision), bank_y)
    labels = () if mode == "selfcon" else (y,)
    with torch.autocast(DEVICE, dtype=autocast, enabled=autocast is not None):
        loss = getattr(reference, mode)(z, *labels, *bank, temperature=temperature, reduction=reduction)
    return {"loss": loss.detach(), "dz": torch.autograd.grad(loss, z)[0]}


def check(mode: str, inputs: list[tuple], temperature: float = 0.1, mean: bool = True) -> None:
    half = inputs[0][0].dtype if inputs[0][0].dtype != torch.float32 else None
    truth = [evaluate_reference(mode, *i, temperature, mean, torch.float64) for i in inputs]
    plain = [evaluate_reference(mode, *i, temperature, mean, None, half) for i in inputs]
    # The budget is of many draws: plain PyTorch's error on one, at low temperatures, is luck.
    actual = [dict(zip(("loss", "dz"), launch(*i, temperature, mode, mean)[:2], strict=True)) for i in inputs[:DRAWS]]
    assert all(
        a["dz"].dtype == gradient_dtype(i[0]) and a["loss"].dtype == torch.float32
        for a, i in zip(actual, inputs, strict=False)
    )
    assert_within_budget(actual, plain, truth)


DRAWS, PLAIN_DRAWS = 3, 12  # of ours, and of plain PyTorch


@pytest.mark.parametrize("labels", [torch.int64, torch.int32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("temperature", [0.02, 0.1])
@pytest.mark.parametrize("mode", engine.MODES)
def test_plain_problems_of_many_tiles(mode, temperature, dtype, labels, monkeypatch):
    monkeypatch.setattr(engine, "pick_splits", lambda *_: 2)
    check(mode, [make_plain(70, 24, 83, 3, seed, dtype, labels) for seed in range(PLAIN_DRAWS)], temperature)


@pytest.mark.parametrize("mode", engine.MODES)
def test_with_and_without_a_bound_the_same(mode, monkeypatch):
    inputs = make_plain(70, 24, 83, 3, 0)
    bounded = launch(*inputs, 0.1, mode)
    monkeypatch.setattr(engine, "largest_bound", lambda _: -1.0)
    careful = launch(*inputs, 0.1, mode)
    torch.testing.assert_close(bounded, careful, rtol=1e-5, atol=1e-7)
    assert not torch.equal(bounded[1], careful[1])  # another path was taken


@pytest.mark.parametrize("n", [6, 40])  # of masked tiles alone, and of interior ones
def test_logits_that_all_lie_far_below_their_bound(n):
    inputs = [make_plain(n, 32, 16, 3, seed) for seed in range(PLAIN_DRAWS)]
    for z, y, bank_z, bank_y in inputs:
        z *= 0.01
        bank_z *= 0.3
        bank_z[5] *= 930  # of every anchor's class, which ENSC leaves out
        bank_y[5] = y[:] = 3
    check("ensc", inputs, 0.068)


def test_long_keys_of_short_rows():
    inputs = [make_plain(20, 8, 83, 3, seed) for seed in range(PLAIN_DRAWS)]
    for z, _, bank_z, _ in inputs:
        bank_z[:] = z[:1] * 1.8e19
        z /= 1.8e19
    check("esc", inputs, 0.0245)


UNUSUAL = {  # which tensor, what it holds, and the bound then
    "row": (0, torch.inf, torch.nan),
    "long row": (0, 1e15, torch.inf),
    "label": (1, 2**31, torch.inf),
    "left out": (1, -1, torch.inf),
    "bank row": (2, torch.nan, torch.nan),
    "bank label": (3, 2**31, torch.inf),
    "unfilled": (3, -1, torch.inf),
}


@pytest.mark.parametrize("spoil", UNUSUAL)
def test_one_unusual_row_takes_the_bound_away(spoil):
    z, y, bank_z, bank_y = make_plain(70, 24, 83, 3, 0)
    which, value, bound = UNUSUAL[spoil]
    assert survey.survey(z, y, bank_z, bank_y, 14.4)[2].item() == pytest.approx(14.4 * MARGIN.value)
    (z, y, bank_z, bank_y)[which][5] = value
    torch.testing.assert_close(survey.survey(z, y, bank_z, bank_y, 14.4)[2].item(), bound, equal_nan=True)
    if which % 2 == 0:
        (y, bank_y)[which // 2][5] = -1  # left out, it may hold anything
        assert survey.survey(z, y, bank_z, bank_y, 14.4)[2].item() == torch.inf


@pytest.mark.parametrize("programs", [1, 3, 300])
def test_any_number_of_programs_gives_the_bound(programs, monkeypatch):
    z, y, bank_z, bank_y = make_plain(300, 5, 83, 3, 0)
    bank_z[80] *= 7
    monkeypatch.setattr(survey, "SURVEY_ROWS", survey.SURVEY_ROWS._replace(block_m=1))
    monkeypatch.setattr(survey, "max_programs", lambda _: programs)
    assert survey.survey(z, y, bank_z, bank_y, 14.4)[2].item() == pytest.approx(49 * 14.4 * MARGIN.value)


@pytest.mark.parametrize("mean", [True, False], ids=["mean", "sum"])
@pytest.mark.parametrize("temperature", [0.005, 0.1, 1.0])
@pytest.mark.parametrize("mode", engine.MODES)
def test_temperatures(mode, temperature, mean):
    check(mode, [make(20, 24, 37, 3, seed) for seed in range(PLAIN_DRAWS)], temperature, mean)


@pytest.mark.parametrize("length", [1e-3, 5.0])
def test_rows_of_any_length(length):
    check("ensc", [make(18, 12, 21, 3, seed, length=length) for seed in range(PLAIN_DRAWS)])


@pytest.mark.parametrize(("dtype", "bank_dtype"), [(torch.float32, torch.float16), (torch.float16, torch.float32),
                                                   (torch.float16, torch.float16)])  # fmt: skip
@pytest.mark.parametrize("temperature", [0.05, 0.1])
def test_banks_of_another_dtype(dtype, bank_dtype, temperature):
    check("ensc", [make(20, 24, 37, 3, seed, dtype, bank_dtype) for seed in range(3)], temperature)


@pytest.mark.parametrize("d", [1, 17, 70])
def test_widths_on_either_side_of_a_tile(d):
    check("ensc", [make(17, d, 19, 3, seed) for seed in range(3)])


def test_a_bank_of_the_anchors_own_class():
    z, y, bank_z, bank_y = make(12, 16, 20, 1, 0)
    alone = launch(z, y, None, None, 0.1, "ensc")
    within = launch(z, y, bank_z, bank_y, 0.1, "ensc")
    torch.testing.assert_close(within, alone, rtol=1e-6, atol=1e-7)
    check("ensc", [(z, y, bank_z, bank_y)])
    check("esc", [(z, y, bank_z, bank_y)])


@pytest.mark.parametrize("mode", ["supcon", "esc", "ensc"])
@pytest.mark.parametrize("n", [1, 5])
def test_no_positive_is_exactly_zero(n, mode):
    z, _, bank_z, bank_y = make(n, 8, 9, 3, 0)
    loss, dz, _ = launch(z, torch.arange(n, device=DEVICE), bank_z, bank_y, 0.1, mode)
    assert loss == 0
    assert torch.equal(dz, torch.zeros_like(z))


def test_an_empty_or_unfilled_bank_is_no_bank():
    z, y, bank_z, bank_y = make(12, 8, 9, 3, 0)
    alone = launch(z, y, None, None, 0.1, "esc")
    assert all(map(torch.equal, launch(z, y, bank_z[:0], bank_y[:0], 0.1, "esc"), alone))
    unfilled = torch.full_like(bank_y, -1)
    torch.testing.assert_close(launch(z, y, torch.full_like(bank_z, torch.nan), unfilled, 0.1, "esc"), alone)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_row_reaches_the_loss(value):
    z, y, bank_z, bank_y = make(12, 8, 9, 3, 0)
    bad = z.clone()
    bad[3, 2] = value
    assert torch.isnan(launch(bad, y, bank_z, bank_y, 0.1, "ensc")[0])
    alone = torch.arange(12, device=DEVICE)  # even where no similarity of the row counts
    assert torch.isnan(launch(bad, alone, bank_z, bank_y, 0.1, "ensc")[0])


def test_parts_of_the_bank_combine_to_the_same_and_to_the_same_bits(monkeypatch):
    inputs = make(10, 16, 50, 3, 0)
    monkeypatch.setattr(engine, "pick_splits", lambda *_: 1)
    whole = launch(*inputs, 0.1, "ensc")
    monkeypatch.setattr(engine, "pick_splits", lambda *_: 3)
    parts, again = (launch(*inputs, 0.1, "ensc") for _ in range(2))
    assert all(map(torch.equal, parts, again))
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


def test_without_a_gradient_the_loss_has_the_same_bits():
    inputs = make(10, 16, 20, 3, 0)
    with_gradient = launch(*inputs, 0.1, "ensc")[0]
    loss, dz, _ = launch(*inputs, 0.1, "ensc", gradient=False)
    assert torch.equal(loss, with_gradient)
    assert dz.shape == (0,)


@pytest.mark.parametrize("mean", [True, False], ids=["mean", "sum"])
def test_losses_of_more_tiles_than_are_added_up_at_once(mean, monkeypatch):
    inputs = make(37, 16, 20, 3, 0)
    few = launch(*inputs, 0.1, "ensc", mean)
    monkeypatch.setattr(engine, "COMBINE_ROWS", 2)
    monkeypatch.setattr(engine, "FINISH_BLOCK", 16)
    many, again = (launch(*inputs, 0.1, "ensc", mean) for _ in range(2))
    torch.testing.assert_close(many, few)
    assert all(map(torch.equal, many, again))


def log_denominator_of_reference(z, y, bank_z, bank_y, mode, grad, autocast=None) -> dict[str, Tensor]:
    z = z.clone().requires_grad_()
    with torch.autocast(DEVICE, dtype=autocast, enabled=autocast is not None):
        out = reference.contrastive_log_denominator(z, y, bank_z, bank_y, 0.1, mode)
    return {"out": out.detach(), "dz": torch.autograd.grad(out, z, grad.to(out.dtype))[0]}


@pytest.mark.parametrize("mode", ["supcon", "esc", "ensc"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_log_denominator(mode, dtype):
    truth, plain, actual = [], [], []
    for seed in range(3):
        z, y, bank_z, bank_y = make(18, 24, 37, 3, seed, dtype)
        grad = normal(18, seed=seed).to(DEVICE, torch.float32)
        truth.append(log_denominator_of_reference(z.double(), y, bank_z.double(), bank_y, mode, grad))
        half = dtype if dtype != torch.float32 else None
        plain.append(log_denominator_of_reference(z, y, bank_z, bank_y, mode, grad, half))
        out = engine.log_denominator(z, y, bank_z, bank_y, Setting(0.1), mode)
        dz, _ = engine.log_denominator_backward(grad, z, y, bank_z, bank_y, Setting(0.1), mode)
        actual.append({"out": out, "dz": dz})
    assert_within_budget(actual, plain, truth)


def test_a_scaled_gradient_does_not_overflow_float16_products():
    z, y, bank_z, bank_y = make(18, 24, 37, 3, 0, torch.float16)
    z = z * 2**-12  # so that a gradient of 2¹⁸ still fits dz
    grad = normal(18).to(DEVICE, torch.float32)
    backward = engine.log_denominator_backward
    once = backward(grad, z, y, bank_z * 2**-12, bank_y, Setting(0.1), "ensc")[0]
    scaled = backward(grad * 2**18, z, y, bank_z * 2**-12, bank_y, Setting(0.1), "ensc")[0]
    assert torch.isfinite(scaled).all()
    torch.testing.assert_close(scaled.float(), once.float() * 2**18, rtol=1e-3, atol=2.0)


def test_the_log_of_an_empty_denominator():
    z, y, *_ = make(1, 8, 1, 1, 0)
    out = engine.log_denominator(z, y, None, None, Setting(0.1), "supcon")
    assert out.item() == -torch.inf
    grad = torch.ones(1, device=DEVICE)
    dz, _ = engine.log_denominator_backward(grad, z, y, None, None, Setting(0.1), "supcon")
    assert torch.equal(dz, torch.zeros_like(z))
