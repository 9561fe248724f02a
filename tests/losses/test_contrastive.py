"""What every contrastive loss does with rows left out, a temperature that learns, weights of rows and terms of rows."""

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from cases import assert_within_budget, make_inputs
from fer_fast import functional, losses, reference
from fer_fast.blocked import contrastive as blocked
from fer_fast.dispatch import triton_runs_on
from fer_fast.registry import LOSSES, by_public_name
from fer_fast.terms import ALONE

N, C, D = 22, 4, 9
SPECS = [pytest.param(spec, id=name) for name, spec in LOSSES.items() if spec.family == "contrastive"]
FAST = ["blocked", *(["triton"] if triton_runs_on("cpu") else [])]
BACKENDS = ["reference", *FAST]
over_losses = pytest.mark.parametrize("spec", SPECS)
over_backends = pytest.mark.parametrize("backend", BACKENDS)
over_fast = pytest.mark.parametrize("backend", FAST)


def call(spec, tensors: dict, backend: str, **how) -> Tensor:
    return getattr(functional, spec.function)(**by_public_name(tensors), backend=backend, **how)


def evaluate(spec, tensors: dict, backend: str, incoming: Tensor | None = None, **how) -> dict[str, Tensor]:
    """The loss and its gradients by z and by the temperature, where that is a tensor."""
    z, dtype = tensors["z"].detach().requires_grad_(), tensors["z"].dtype
    how = {name: t.to(dtype) if isinstance(t, Tensor) else t for name, t in how.items()}
    leaves = {"dz": z}
    if isinstance(how.get("temperature"), Tensor):
        leaves["dtemperature"] = how["temperature"] = how["temperature"].detach().requires_grad_()
    loss = call(spec, tensors | {"z": z}, backend, **how)
    given = None if incoming is None else incoming.to(loss)
    gradients = torch.autograd.grad(loss, list(leaves.values()), given)
    return {"loss": loss.detach()} | dict(zip(leaves, gradients, strict=True))


def held_to_reference(spec, backend: str, dtype: torch.dtype, draws: list[dict], **how) -> None:
    inputs = [{k: t.to(dtype) if t.is_floating_point() else t for k, t in each.items()} for each in draws]
    double = [{k: t.double() if t.is_floating_point() else t for k, t in each.items()} for each in inputs]
    truth = [evaluate(spec, each, "reference", **how) for each in double]
    plain = [evaluate(spec, each, "reference", **how) for each in inputs]
    actual = [evaluate(spec, each, backend, **how) for each in inputs[:3]]
    assert all(torch.isfinite(t).all() for each in truth for t in each.values())
    assert_within_budget(actual, plain, truth)


def draws_of(spec, count: int = 8) -> list[dict]:
    return [make_inputs(spec, N, C, D, torch.float64, seed=seed)[0] for seed in range(count)]


def weights_of(n: int = N, seed: int = 0) -> Tensor:
    weights = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weights[::4] = 0
    return weights


@over_backends
@over_losses
def test_a_negative_label_takes_its_row_out_of_everything(spec, backend):
    tensors, _ = make_inputs(spec, N, C, D, torch.float32)
    out = torch.zeros(N, dtype=torch.bool)
    out[torch.tensor([0, 5, 6, 20])] = True
    y = tensors["y"]
    if spec.name == "selfcon":  # which is SupCon of pairs: the other view of a row that is out stays a key
        y = torch.arange(N) % (N // 2)
    kept = {name: t[~out] if len(t) == N else t for name, t in (tensors | {"y": y}).items()}
    rest = LOSSES["supcon"] if spec.name == "selfcon" else spec
    temperature, weights, z = torch.tensor(0.3), weights_of(), tensors["z"].clone()
    z[out] = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e38])[:, None]
    given = tensors | {"z": z, "y": tensors["y"].masked_fill(out, -1)}
    given["y"][5] = -(2**40)
    for how in ({}, {"sample_weights": weights}, {"reduction": "none"}):
        of_rest = how | ({"sample_weights": weights[~out]} if "sample_weights" in how else {})
        incoming = torch.linspace(-1, 1, N) if how.get("reduction") == "none" else None
        found = evaluate(spec, given, backend, incoming, temperature=temperature, **how)
        incoming = None if incoming is None else incoming[~out]
        expected = evaluate(rest, kept, "reference", incoming, temperature=temperature, **of_rest)
        assert torch.equal(found["dz"][out], torch.zeros(4, D))
        found["dz"] = found["dz"][~out]
        if incoming is not None:
            assert torch.equal(found["loss"][out], torch.zeros(4))
            found["loss"] = found["loss"][~out]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@over_backends
@over_losses
def test_all_rows_left_out_are_no_loss(spec, backend):
    tensors, _ = make_inputs(spec, N, C, D, torch.float32)
    given = tensors | {"y": torch.full((N,), -1), "z": torch.full((N, D), torch.nan)}
    for reduction in ("mean", "sum"):
        found = evaluate(spec, given, backend, reduction=reduction, temperature=torch.tensor(0.1))
        assert all(torch.equal(t, torch.zeros_like(t)) for t in found.values())


@over_backends
@pytest.mark.parametrize("mode", ["supcon", "esc", "ensc"])
def test_the_log_denominator_of_a_row_left_out_is_that_of_no_key(mode, backend):
    tensors, _ = make_inputs(LOSSES["ensc"], N, C, D, torch.float32)
    out = torch.zeros(N, dtype=torch.bool)
    out[torch.tensor([3, 4, 21])] = True
    z, y = tensors["z"].clone(), tensors["y"].masked_fill(out, -7)
    z[out] = torch.nan
    bank, weigh, results = (tensors["bank_z"], tensors["bank_y"]), torch.linspace(-1, 1, N), []
    for rows, labels, weights, of in ((z, y, weigh, backend), (z[~out], y[~out], weigh[~out], "reference")):
        rows, temperature = rows.clone().requires_grad_(), torch.tensor(0.2, requires_grad=True)
        log_d = functional.contrastive_log_denominator(rows, labels, *bank, temperature, mode, backend=of)
        finite = log_d.masked_fill(labels < 0, 0)
        results.append((log_d.detach(), *torch.autograd.grad((finite * weights).sum(), (rows, temperature))))
    (log_d, dz, dt), (expected, expected_dz, expected_dt) = results
    assert (log_d[out] == -torch.inf).all()
    assert torch.equal(dz[out], torch.zeros(3, D))
    torch.testing.assert_close((log_d[~out], dz[~out], dt), (expected, expected_dz, expected_dt), rtol=1e-5, atol=1e-6)


@over_backends
@over_losses
def test_what_is_not_finite_reaches_the_loss(spec, backend):
    tensors, _ = make_inputs(spec, N, C, D, torch.float32)
    for name in [name for name in ("z", "bank_z") if name in tensors]:
        for value in (torch.inf, -torch.inf, torch.nan):
            bad = tensors[name].clone()
            bad[2, 1] = value  # of a key whose logits are all -inf, and of one that only ENSC leaves out
            others = {"z": tensors["z"].abs()} if name == "bank_z" else {}
            for labels in (tensors["y"], torch.full((N,), int(tensors.get("bank_y", tensors["y"])[2]))):
                given = tensors | {"y": labels, name: bad} | others
                assert not call(spec, given, backend).isfinite(), (name, value)
                assert not call(spec, given, backend, reduction="none").isfinite().any(), (name, value)


@over_fast
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("temperature", [0.03, 0.1, 1.0])
@over_losses
def test_a_temperature_that_learns(spec, temperature, dtype, backend):
    held_to_reference(spec, backend, dtype, draws_of(spec), temperature=torch.tensor(temperature, dtype=torch.float64))


@pytest.mark.parametrize("spec", SPECS)
def test_a_temperature_on_a_device_is_not_looked_at(spec, monkeypatch):
    """Which no CPU shows: there the blocked engine makes a number of it."""
    tensors, temperature = make_inputs(spec, N, C, D, torch.float32)[0], torch.tensor(0.2)
    looked = evaluate(spec, tensors, "blocked", temperature=temperature)
    monkeypatch.setattr(blocked, "number", lambda temperature, dtype: temperature.to(dtype))
    torch.testing.assert_close(evaluate(spec, tensors, "blocked", temperature=temperature), looked)


@over_fast
@over_losses
def test_a_temperature_in_half_precision_and_a_detached_one(spec, backend):
    tensors, _ = make_inputs(spec, N, C, D, torch.float32)
    number = evaluate(spec, tensors, backend, temperature=0.25)
    for temperature in (torch.tensor(0.25), torch.tensor(0.25, dtype=torch.float16)):
        z, temperature = tensors["z"].clone().requires_grad_(), temperature.requires_grad_()
        loss = call(spec, tensors | {"z": z}, backend, temperature=temperature)
        loss.backward()
        torch.testing.assert_close((loss, z.grad), (number["loss"], number["dz"]), rtol=1e-5, atol=1e-6)
        assert temperature.grad.dtype == temperature.dtype
        alone = temperature.detach().clone().requires_grad_()  # features that are frozen
        call(spec, tensors, backend, temperature=alone).backward()
        torch.testing.assert_close(alone.grad, temperature.grad)
    assert not call(spec, tensors, backend, temperature=temperature.detach()).requires_grad


@over_fast
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@over_losses
def test_sample_weights(spec, reduction, dtype, backend):
    how = {"reduction": reduction, "sample_weights": weights_of(), "temperature": torch.tensor(0.2)}
    if reduction == "none":
        how["incoming"] = torch.randn(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    held_to_reference(spec, backend, dtype, draws_of(spec), **how)


@over_backends
@over_losses
def test_weights_of_one_change_nothing_and_none_but_the_sum_of_those_that_count_divides(spec, backend):
    tensors, _ = make_inputs(spec, N, C, D, torch.float32)
    if spec.name != "selfcon":
        tensors["y"] = torch.cat([torch.tensor([C]), tensors["y"][1:]])  # an anchor without a positive
    plain = evaluate(spec, tensors, backend)
    torch.testing.assert_close(evaluate(spec, tensors, backend, sample_weights=torch.ones(N)), plain)
    torch.testing.assert_close(evaluate(spec, tensors, backend, sample_weights=torch.full((N,), 3e-6)), plain)
    rows, weights = call(spec, tensors, backend, reduction="none"), weights_of().float()
    counted = rows != 0
    assert counted.sum() == N - (spec.name != "selfcon")
    torch.testing.assert_close(rows.sum(), call(spec, tensors, backend, reduction="sum"))
    weighted = call(spec, tensors, backend, sample_weights=weights)
    torch.testing.assert_close(weighted, (rows * weights).sum() / weights[counted].sum())
    torch.testing.assert_close(call(spec, tensors, backend, reduction="none", sample_weights=weights), rows * weights)
    nothing = evaluate(spec, tensors, backend, sample_weights=torch.zeros(N))
    assert all(torch.equal(t, torch.zeros_like(t)) for t in nothing.values())


@over_fast
@over_losses
def test_terms_of_rows_in_float16_whatever_the_loss_scale(spec, backend):
    tensors, _ = make_inputs(spec, N, C, D, torch.float16)
    tensors |= {name: tensors[name] * 2**-6 for name in ("z", "bank_z") if name in tensors}
    incoming = torch.linspace(-1, 1, N)
    once = evaluate(spec, tensors, backend, incoming, reduction="none", temperature=1e-3)
    scaled = evaluate(spec, tensors, backend, incoming * 2**6, reduction="none", temperature=1e-3)
    assert once["loss"].dtype == torch.float32
    torch.testing.assert_close(scaled["dz"].float(), once["dz"].float() * 2**6, rtol=2e-3, atol=1e-2)


def test_equal_rows_cost_no_digits():
    z, y = torch.full((4096, 4), 0.5), torch.zeros(4096, dtype=torch.int64)
    exact = reference.supcon(z.double(), y)
    assert abs(functional.supcon_loss(z, y, backend="blocked") - exact) < 2e-6


@over_backends
def test_settings_that_are_refused(backend):
    z, y = torch.nn.functional.normalize(torch.randn(6, D), dim=1), torch.arange(6) % 2
    for temperature, said in (
        (torch.tensor([0.1]), r"temperature: .*shape \(\), got \(1,\)"),
        (torch.tensor(0.0), "temperature: 0.0 given"),
        (torch.tensor(torch.nan), "temperature: nan given"),
        (torch.tensor(1), "temperature: expected a dtype"),
        (torch.tensor(0.1, device="meta"), "temperature: .*meta"),
    ):
        with pytest.raises(ValueError, match=said):
            functional.supcon_loss(z, y, temperature=temperature, backend=backend)
        with pytest.raises(ValueError, match=said):
            functional.contrastive_log_denominator(z, y, temperature=temperature, backend=backend)
    for weights, said in (
        (torch.ones(6, requires_grad=True), "sample_weights: requires a gradient"),
        (torch.ones(5), r"sample_weights: expected shape \(6,\)"),
        (torch.ones(6).int(), "sample_weights: expected a dtype"),
        (torch.ones(6, device="meta"), "sample_weights: .*meta"),
        ([1.0] * 6, "sample_weights: expected a tensor"),
    ):
        with pytest.raises(ValueError, match=said):
            functional.supcon_loss(z, y, sample_weights=weights, backend=backend)
    with pytest.raises(ValueError, match="reduction: 'all' given; allowed are mean, sum, none"):
        functional.supcon_loss(z, y, reduction="all", backend=backend)


def test_a_loss_with_a_temperature_of_its_own_learns_it():
    torch.manual_seed(0)
    z, y = torch.nn.functional.normalize(torch.randn(8, D), dim=1), torch.arange(8) % 2
    loss = losses.SupConLoss(temperature=torch.nn.Parameter(torch.tensor(0.3)))
    assert [name for name, _ in loss.named_parameters()] == ["temperature"]
    before = loss(z, y)
    before.backward()
    torch.optim.SGD(loss.parameters(), lr=1e-3).step()
    assert loss.temperature != 0.3
    assert loss(z, y) < before
    other = losses.SupConLoss(temperature=torch.nn.Parameter(torch.tensor(1.0)))
    other.load_state_dict(loss.state_dict())
    assert other(z, y) == loss(z, y)


@over_backends
@over_losses
def test_normalize_scales_rows_of_batch_and_bank(spec, backend):
    tensors, _ = make_inputs(spec, N, C, D, torch.float64)
    lengths = torch.linspace(0.01, 50, N, dtype=torch.float64)[:, None]
    z = (tensors["z"] * lengths).requires_grad_()
    long = tensors | {"z": z} | ({"bank_z": tensors["bank_z"] * 7} if "bank_z" in tensors else {})
    unit = torch.nn.functional.normalize(z, dim=1)
    expected, found = call(spec, tensors | {"z": unit}, backend), call(spec, long, backend, normalize=True)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, z), torch.autograd.grad(expected, z))
    half = {name: t.half() if t.is_floating_point() else t for name, t in long.items()}
    half["z"] = half["z"].detach().requires_grad_()
    loss = call(spec, half, backend, normalize=True)
    torch.testing.assert_close(loss.double(), expected, rtol=2e-2, atol=1e-2)
    assert torch.autograd.grad(loss, half["z"])[0].isfinite().all()
    module = getattr(losses, spec.cls)(normalize=True, backend=backend)
    names = [name for name in ("z", "y") if name in long]
    reference_names = {"ref_emb": long.get("bank_z"), "ref_labels": long.get("bank_y")} if "bank_z" in long else {}
    torch.testing.assert_close(module(*[long[name] for name in names], **reference_names), expected)


@over_losses
def test_anomaly_detection_names_rows_of_another_length(spec):
    tensors, _ = make_inputs(spec, N, C, D, torch.float32)
    long = tensors["z"].clone()
    long[4] *= 1.01
    call(spec, tensors | {"z": long}, "blocked")
    with torch.autograd.detect_anomaly(check_nan=False):
        call(spec, tensors, "blocked")
        call(spec, tensors | {"z": long}, "blocked", normalize=True)
        y = tensors["y"].clone()
        y[4] = -1
        call(spec, tensors | {"z": long, "y": y}, "blocked")
        with pytest.raises(ValueError, match=r"embeddings: row 4 has length 1.01; .* normalize=True"):
            call(spec, tensors | {"z": long}, "blocked")


def test_options_compile_as_one_graph_and_are_not_guarded_on():
    torch.manual_seed(0)
    loss = losses.ENSCLoss(temperature=torch.nn.Parameter(torch.tensor(0.2)), normalize=True, backend="blocked")
    bank = losses.MemoryBank(24, D)
    bank.enqueue(torch.nn.functional.normalize(torch.randn(24, D), dim=1), torch.arange(24) % C)
    rows, y, weights = torch.randn(N, D), torch.arange(N) % C - 1, torch.rand(N)
    seen = CompileCounter()

    def run(z, y, weights):
        return loss(z, y, bank, own=True, sample_weights=weights)

    compiled = torch.compile(run, fullgraph=True, backend=seen)
    for step in range(3):
        loss.temperature.data.fill_(0.2 + 0.1 * step)
        results = []
        for of in (run, compiled):
            z, loss.temperature.grad = rows.clone().requires_grad_(), None
            value = of(z, y, weights)
            value.backward()
            results.append((value.detach(), z.grad, loss.temperature.grad))
        torch.testing.assert_close(*results)
    assert seen.frame_count == 1


@pytest.mark.parametrize("name", ["mean", "none", "log denominator"])
def test_opcheck_with_every_option(name):
    z = torch.nn.functional.normalize(torch.randn(N, D), dim=1).requires_grad_()
    temperature = torch.tensor(0.3, requires_grad=True)
    y, weights = torch.arange(N) % C - 1, torch.rand(N)
    func, args = {
        "mean": ("contrastive", (z, y, z.detach(), y, 1.0, temperature, "ensc", weights, "mean", *ALONE, True)),
        "none": ("contrastive", (z, y, z.detach(), y, 1.0, temperature, "ensc", weights, "none", *ALONE, False)),
        "log denominator": ("log_denominator", (z, y, z.detach(), y, 1.0, temperature, "esc")),
    }[name]
    report = torch.library.opcheck(getattr(torch.ops.fer_fast, func).default, (*args, "blocked"))
    assert set(report.values()) == {"SUCCESS"}
