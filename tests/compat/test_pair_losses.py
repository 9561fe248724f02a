"""The engine of the pair losses: its formula term by term, its tiles within plain PyTorch's error, its operator."""

import math

import pytest
import torch
from torch.nn.functional import normalize

import fer_fast
from cases import assert_within_budget
from fer_fast import ops, reference
from fer_fast.compat import pml

FORMULAS = {"supcon": reference.pair_losses.supcon, "ntxent": reference.ntxent}
MODES = pytest.mark.parametrize("mode", FORMULAS)


def tensors(n, m, d, dtype, seed=0, num_classes=4):
    """z, y, keys, key_y."""
    generator = torch.Generator().manual_seed(seed)
    z, keys = (
        normalize(torch.randn(count, d, dtype=torch.float64, generator=generator), dim=1).to(dtype) for count in (n, m)
    )
    y, key_y = (torch.randint(num_classes, (count,), generator=generator) for count in (n, m))
    return z.requires_grad_(), y, keys.requires_grad_(), key_y


def results(loss, inputs):
    z, _, keys, _ = inputs
    dz, dkeys = torch.autograd.grad(loss, (z, keys))
    return {"loss": loss.detach(), "dz": dz, "dkeys": dkeys}


@MODES
@pytest.mark.parametrize("with_own", [False, True])
def test_formula_term_by_term(mode, with_own):
    z, y, keys, key_y = tensors(7, 5, 3, torch.float64)
    y[0] = 9  # without a positive
    own = torch.tensor([0, 1, 2, 3, 4, 0, 1]) if with_own else None
    s = [[math.exp(sum(a * b for a, b in zip(i, k, strict=True)) / 0.3) for k in keys.tolist()] for i in z.tolist()]
    terms, anchors = [], []
    for i in range(7):
        met = [j for j in range(5) if own is None or j != own[i]]
        positives = [j for j in met if y[i] == key_y[j]]
        negatives = sum(s[i][j] for j in met if y[i] != key_y[j])
        terms += [-math.log(s[i][p] / (s[i][p] + negatives)) for p in positives]
        if positives:
            total = sum(s[i][j] for j in met)
            anchors.append(-sum(math.log(s[i][p] / total) for p in positives) / len(positives))
    expected = {"supcon": anchors, "ntxent": terms}[mode]
    value = FORMULAS[mode](z, y, keys, key_y, own, 0.3).item()
    assert value == pytest.approx(sum(expected) / len(expected), rel=1e-12)


@MODES
def test_gradcheck_of_the_formula(mode):
    z, y, keys, key_y = tensors(5, 4, 3, torch.float64)
    own = torch.tensor([3, 2, 1, 0, 0])
    assert torch.autograd.gradcheck(lambda z, keys: FORMULAS[mode](z, y, keys, key_y, own, 0.5), (z, keys))


@MODES
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 5.0])
def test_tiles_are_at_most_twice_as_wrong_as_plain_pytorch(mode, dtype, temperature):
    ours, plain, truth = [], [], []
    for seed in range(8):
        inputs = tensors(37, 29, 16, dtype, seed)
        own = torch.arange(37) % 29 if seed % 2 else None
        ours.append(results(ops.pair_losses(*inputs, own, temperature, mode), inputs))
        plain.append(results(FORMULAS[mode](*inputs, own, temperature), inputs))
        wide = [t.detach().double().requires_grad_() if t.dtype.is_floating_point else t for t in inputs]
        truth.append(results(FORMULAS[mode](*wide, own, temperature), wide))
    assert_within_budget(ours, plain, truth)


@MODES
def test_strides_and_signed_views_change_nothing(mode):
    z, y, keys, key_y = tensors(9, 7, 6, torch.float64)
    expected = results(ops.pair_losses(z, y, keys, key_y, None, 0.2, mode), (z, y, keys, key_y))
    strided = [t.detach().t().contiguous().t().requires_grad_() for t in (z, keys)]
    given = strided[0], y.repeat_interleave(2)[::2], strided[1], key_y
    got = results(ops.pair_losses(*given, None, 0.2, mode), given)
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value)


@MODES
def test_gradients_are_asked_for_where_they_are_wanted(mode):
    z, y, keys, key_y = tensors(9, 7, 6, torch.float64)
    loss = ops.pair_losses(z, y, keys, key_y, None, 0.2, mode)
    dz, dkeys = torch.autograd.grad(loss, (z, keys))
    (alone,) = torch.autograd.grad(ops.pair_losses(z, y, keys.detach(), key_y, None, 0.2, mode), z)
    torch.testing.assert_close(alone, dz)
    (alone,) = torch.autograd.grad(ops.pair_losses(z.detach(), y, keys, key_y, None, 0.2, mode), keys)
    torch.testing.assert_close(alone, dkeys)
    assert not ops.pair_losses(z.detach(), y, keys.detach(), key_y, None, 0.2, mode).requires_grad


@MODES
@pytest.mark.parametrize("gradient_of_keys", [False, True])
def test_opcheck(mode, gradient_of_keys):
    z, y, keys, key_y = tensors(9, 7, 6, torch.float32)
    given = (keys, None) if gradient_of_keys else (None, keys.detach())
    args = (z, y, *given, key_y, torch.arange(9) % 7, 0.2, mode, True, "blocked")
    report = torch.library.opcheck(torch.ops.fer_fast.pair_losses_.default, args)
    assert set(report.values()) == {"SUCCESS"}


@pytest.mark.parametrize(
    ("name", "two_towers"),
    [("SupConLoss", False), ("SupConLoss", True), ("NTXentLoss", False), ("NTXentLoss", True), ("CosFaceLoss", False)],
)
def test_compiles_as_one_graph(name, two_towers):
    x, y, ref_emb, ref_labels = tensors(12, 9, 6, torch.float32)
    loss = getattr(pml, name)(*((4, 6) if name == "CosFaceLoss" else ()))
    given = (x, y, None, ref_emb, ref_labels) if two_towers else (x, y)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(*given)
    expected = loss(*given)
    torch.testing.assert_close(compiled, expected)
    torch.testing.assert_close(torch.autograd.grad(compiled, x), torch.autograd.grad(expected, x))


@MODES
def test_nothing_of_every_pair_is_kept(mode):
    n = 3000
    z, y, keys, key_y = tensors(n, n, 4, torch.float32)
    with torch.profiler.profile(profile_memory=True) as profile:
        ops.pair_losses(z, y, keys, key_y, None, 0.1, mode).backward()
    level = peak = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            level += event.nbytes()
            peak = max(peak, level)
    assert 0 < peak < n * n * 4


@pytest.mark.parametrize("name", ["SupConLoss", "NTXentLoss"])
def test_second_derivatives_are_refused_but_by_the_reference(name):
    x, y, ref_emb, ref_labels = tensors(6, 5, 4, torch.float64, num_classes=2)
    loss = getattr(pml, name)(0.5)
    (gradient,) = torch.autograd.grad(loss(x, y, None, ref_emb, ref_labels), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.sum().backward()
    with fer_fast.backend("reference"):
        assert torch.autograd.gradgradcheck(lambda x: loss(x, y, None, ref_emb, ref_labels), x)
