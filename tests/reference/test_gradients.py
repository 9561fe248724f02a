"""Gradients of the reference: numerical differences at generic points, printed gradients, and where none may flow."""

from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck

from fer_fast import reference as ref
from strategies import LOSSES, combinations, make_batch

LABELS = [0, 1, 0, 2, 1, 1]  # class 3 absent, class 2 with one sample


# MVA's weight is a constant for the gradient, which is therefore not the derivative: it has a test of its own.
DERIVATIVES = [(name, keywords) for name, keywords in combinations() if name != "mva"]


@pytest.mark.parametrize(("name", "keywords"), DERIVATIVES)
def test_gradient_is_the_derivative(name: str, keywords: dict):
    loss = LOSSES[name]
    batch = make_batch(LABELS, num_classes=4, d=3, seed=3)
    inputs = [getattr(batch, field).requires_grad_() for field in loss.differentiable]

    def evaluate(*values: torch.Tensor) -> torch.Tensor:
        return loss(replace(batch, **dict(zip(loss.differentiable, values, strict=True))), **keywords)

    assert gradcheck(evaluate, inputs, eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_mva_weight_is_a_constant(reduction: str):
    batch = make_batch(LABELS, num_classes=4, d=3)
    value, (gradient,) = LOSSES["mva"].gradients(batch, reduction=reduction)
    plain, (plain_gradient,) = LOSSES["affinity"].gradients(batch, reduction=reduction)
    assert value > 1.01 * plain  # groups that differ do weigh
    torch.testing.assert_close(gradient, value / plain * plain_gradient)


@pytest.mark.parametrize("settings", [{}, {"lambda1": 3.0, "lambda2": 50.0, "eps1": 0.3, "eps2": 0.2}])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_variant_paper_gradient_is_the_printed_one(settings: dict, reduction: str):
    batch = make_batch(LABELS, num_classes=4, d=3)
    lambda1, lambda2, eps1, eps2 = ({"lambda1": 0.4, "lambda2": 0.6, "eps1": 0.01, "eps2": 0.01} | settings).values()
    c = batch.centers
    spread = sum((c[m] - c[n]).square().sum() for m in range(4) for n in range(4) if m != n)
    rows = []
    for x, y in zip(batch.x, batch.y, strict=True):
        others = [c[n] for n in range(4) if n != y]
        anti = sum((x - other).square().sum() for other in others)
        exact = (x - c[y]) - lambda1 * sum(x - other for other in others) / (eps1 + anti) ** 2
        # Σ_n (c_y - c_n) - Σ_m (c_m - c_y): the two sums of eq. 3 are one, twice.
        twice = sum(c[y] - other for other in others) - sum(other - c[y] for other in others)
        rows.append((exact, exact - lambda2 * twice / (eps2 + spread) ** 2))
    count = len(rows) if reduction == "mean" else 1
    value, (gradient,) = LOSSES["variant"].gradients(batch, reduction=reduction, **settings)
    paper_value, (paper,) = LOSSES["variant"].gradients(
        batch, reduction=reduction, feature_gradient="paper", **settings
    )
    torch.testing.assert_close(gradient, torch.stack([exact for exact, _ in rows]) / count)
    torch.testing.assert_close(paper, torch.stack([printed for _, printed in rows]) / count)
    assert value == paper_value


def test_weighted_cluster_gradient_is_the_printed_one():
    # Eq. 7: W_y (x_i - c_y) / (Σ_{l≠y} ‖c_l - c_y‖² + α).
    batch = make_batch(LABELS, num_classes=4, d=3)
    c, w = batch.centers, batch.class_weights
    _, (gradient,) = LOSSES["weighted_cluster"].gradients(batch, reduction="sum", alpha=0.7)
    for row, x, y in zip(gradient, batch.x, batch.y.tolist(), strict=True):
        spread = sum((c[l] - c[y]).square().sum() for l in range(4) if l != y)
        torch.testing.assert_close(row, w[y] * (x - c[y]) / (spread + 0.7))


@pytest.mark.parametrize("name", ["supcon", "esc", "ensc"])
def test_contrastive_gradient_reaches_rows_that_require_it_and_no_others(name: str):
    # Row 3 is frozen: the others' gradient is what it was, as if it were an anchor and a key without parameters.
    batch = make_batch(LABELS, num_classes=4)
    _, (whole,) = LOSSES[name].gradients(batch)
    live = batch.z.clone().requires_grad_()
    mixed = torch.cat([live[:3], batch.z[3:4], live[4:]])
    (gradient,) = torch.autograd.grad(LOSSES[name](replace(batch, z=mixed)), live)
    keep = [0, 1, 2, 4, 5]
    torch.testing.assert_close(gradient[keep], whole[keep])
    assert gradient[3].eq(0).all()


@pytest.mark.parametrize("name", ["esc", "ensc"])
def test_bank_gets_no_gradient(name: str):
    batch = make_batch(LABELS, num_classes=4)
    bank_z = batch.bank_z.clone().requires_grad_()
    z = batch.z.clone().requires_grad_()
    LOSSES[name](replace(batch, z=z, bank_z=bank_z)).backward()
    assert bank_z.grad is None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("mode", ["supcon", "esc", "ensc"])
def test_log_denominator_gradient(mode: str):
    batch = make_batch(LABELS, num_classes=4, d=3)

    def evaluate(z: torch.Tensor) -> torch.Tensor:
        return ref.contrastive_log_denominator(z, batch.y, batch.bank_z, batch.bank_y, 0.5, mode)

    assert gradcheck(evaluate, batch.z.requires_grad_())


def test_primitive_gradients():
    batch = make_batch(LABELS, num_classes=4, d=3)
    x, c = batch.x.requires_grad_(), batch.centers.requires_grad_()
    assert gradcheck(ref.correlation_matrix, x)
    assert gradcheck(ref.center_distances, (x, c))
    assert gradcheck(lambda x, c: ref.anti_center_distances(x, batch.y, c), (x, c))


def test_range_harmonic_mean_spreads_its_gradient():
    # H = 2 / (1/D₁ + 1/D₂): ∂H/∂D_j = H² / (2 D_j²). On a line at 0, 1, 3 with D = 9, 4: H = 72/13.
    x = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64, requires_grad=True)
    ref.range_loss(x, torch.zeros(3, dtype=torch.long), alpha=1.0).backward()
    h = 72 / 13
    by_nine, by_four = h**2 / (2 * 81) * 6, h**2 / (2 * 16) * 4  # times dD/dx of the farther end
    torch.testing.assert_close(x.grad, torch.tensor([[-by_nine], [-by_four], [by_nine + by_four]]).double())
