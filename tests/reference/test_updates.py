"""Moved centers: each printed rule in loops, its tie to the gradient of the loss, and what must stay where it is."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from torch import Tensor

from cases import make_inputs
from fer_fast import functional
from fer_fast import reference as ref
from fer_fast.registry import LOSSES, LossSpec, by_public_name, call
from strategies import Batch, batches, make_batch, repeatable

UPDATES: dict[str, Callable[..., Tensor]] = {
    "center": lambda b, **kw: ref.center_update(b.x, b.y, b.centers, **kw),
    "island": lambda b, **kw: ref.island_update(b.x, b.y, b.centers, **kw),
    "variant": lambda b, **kw: ref.variant_update(b.x, b.y, b.centers, **kw),
    "weighted_cluster": lambda b, **kw: ref.weighted_cluster_update(b.x, b.y, b.centers, b.class_weights, **kw),
}


def pull(b: Batch, k: int) -> Tensor:
    own = [b.centers[k] - x for x, y in zip(b.x, b.y, strict=True) if y == k]
    return sum(own, torch.zeros_like(b.centers[k])) / (1 + len(own))


def center_rule(b: Batch, alpha: float = 0.5) -> Tensor:
    return torch.stack([c - alpha * pull(b, k) for k, c in enumerate(b.centers)])


def island_rule(b: Batch, lambda1: float = 10.0, alpha: float = 0.5) -> Tensor:
    moved, count = [], len(b.centers)
    for j, c in enumerate(b.centers):
        repulsion = torch.zeros_like(c)
        for k, other in enumerate(b.centers):
            if k != j:  # the quotient rule on c·o / (‖c‖ ‖o‖)
                repulsion += other / (c.norm() * other.norm()) - (c @ other) * c / (c.norm() ** 3 * other.norm())
        moved.append(c - alpha * (pull(b, j) + lambda1 / (count - 1) * repulsion))
    return torch.stack(moved)


def variant_rule(
    b: Batch, lambda1: float = 0.4, lambda2: float = 0.6, eps1: float = 0.01, eps2: float = 0.01, alpha: float = 0.5
) -> Tensor:
    c, classes = b.centers, range(len(b.centers))
    spread = sum((c[m] - c[n]).square().sum() for m in classes for n in classes if n != m)
    moved = []
    for k in classes:
        push = torch.zeros_like(c[k])
        for x, y in zip(b.x, b.y.tolist(), strict=True):
            if y != k:
                anti = sum((x - c[j]).square().sum() for j in classes if j != y)
                push += (c[k] - x) / (eps1 + anti) ** 2
        apart = sum(c[k] - c[n] for n in classes if n != k) / (2 * (eps2 + spread) ** 2)
        moved.append(c[k] - alpha * (pull(b, k) - lambda1 * push - lambda2 * apart))
    return torch.stack(moved)


def weighted_cluster_rule(b: Batch, alpha: float = 1.0, gamma: float = 1.0) -> Tensor:
    moved = []
    for k, c in enumerate(b.centers):
        spread = sum((other - c).square().sum() for j, other in enumerate(b.centers) if j != k)
        rows = [x - c for x, y in zip(b.x, b.y, strict=True) if y == k]
        moved.append(c + gamma * b.class_weights[k] * sum(rows, torch.zeros_like(c)) / (spread + alpha))
    return torch.stack(moved)


RULES = {
    "center": (center_rule, ({}, {"alpha": 0.9})),
    "island": (island_rule, ({}, {"lambda1": 0.3, "alpha": 1.0})),
    "variant": (variant_rule, ({}, {"lambda1": 9.0, "lambda2": 80.0, "eps1": 0.4, "eps2": 0.3, "alpha": 0.1})),
    "weighted_cluster": (weighted_cluster_rule, ({}, {"alpha": 0.3, "gamma": 0.2})),
}


@pytest.mark.parametrize("name", RULES)
@given(batch=batches())
@repeatable
def test_update_equals_its_rule_in_loops(name: str, batch: Batch):
    rule, settings = RULES[name]
    for setting in settings:
        torch.testing.assert_close(UPDATES[name](batch, **setting), rule(batch, **setting), rtol=1e-10, atol=1e-12)


def gradient_of(loss: Callable[[Tensor], Tensor], centers: Tensor) -> Tensor:
    leaf = centers.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf)[0]


@given(batch=batches())
@repeatable
def test_center_direction_is_the_gradient_over_one_more_than_the_count(batch: Batch):
    x, y, centers = batch.x, batch.y, batch.centers
    gradient = gradient_of(lambda c: ref.center(x, y, c, reduction="sum"), centers)
    counts = torch.stack([(y == k).sum() for k in range(len(centers))])[:, None]
    torch.testing.assert_close(centers - ref.center_update(x, y, centers, alpha=1.0), gradient / (1 + counts))


@given(batch=batches())
@repeatable
def test_island_repels_along_half_the_gradient_of_its_second_term(batch: Batch):
    # Every unordered pair stands in the loss twice, in the rule once, over C - 1.
    x, y, centers = batch.x, batch.y, batch.centers
    both = gradient_of(lambda c: ref.island(x, y, c, 6.0) - ref.center(x, y, c), centers) / (2 * (len(centers) - 1))
    move = ref.center_update(x, y, centers) - ref.island_update(x, y, centers, 6.0)
    torch.testing.assert_close(move, 0.5 * both, rtol=1e-9, atol=1e-11)


@given(batch=batches())
@repeatable
def test_variant_direction_is_made_of_the_gradients_of_its_terms(batch: Batch):
    # Term by term: over 1 + n_k; as it is; an eighth (T holds every pair twice, and eq. 5 halves once more).
    x, y, centers = batch.x, batch.y, batch.centers
    nothing = {"lambda1": 0.0, "lambda2": 0.0}

    def term(**weights: float) -> Tensor:
        def of(c: Tensor, **kw: float) -> Tensor:
            return ref.variant(x, y, c, **(nothing | kw), eps1=0.2, eps2=0.3, reduction="sum")

        return gradient_of(lambda c: of(c, **weights) - of(c), centers)

    expected = term(lambda1=5.0) + term(lambda2=7.0) / 8
    settings = {"lambda1": 5.0, "lambda2": 7.0, "eps1": 0.2, "eps2": 0.3, "alpha": 1.0}
    move = ref.center_update(x, y, centers, alpha=1.0) - ref.variant_update(x, y, centers, **settings)
    torch.testing.assert_close(move, expected, rtol=1e-9, atol=1e-11)


@given(batch=batches())
@repeatable
def test_weighted_cluster_moves_each_center_by_its_samples_gradients(batch: Batch):
    # What pulls x_i to its center pulls the center to x_i: the scale is a constant of the rule.
    x = batch.x.clone().requires_grad_()
    arguments = (batch.y, batch.centers, batch.class_weights, 0.5)
    (gradient,) = torch.autograd.grad(ref.weighted_cluster(x, *arguments, reduction="sum"), x)
    expected = torch.stack([gradient[batch.y == k].sum(0) for k in range(len(batch.centers))])
    torch.testing.assert_close(ref.weighted_cluster_update(batch.x, *arguments) - batch.centers, expected)


@pytest.mark.parametrize(("name", "rate"), [("center", "alpha"), ("variant", "alpha"), ("weighted_cluster", "gamma")])
def test_a_small_step_descends(name: str, rate: str):
    # The rule of weighted-cluster loss holds the spread constant, so what falls is the distance it divides.
    batch = make_batch([0, 0, 1, 2, 2], num_classes=3)
    loss = ref.variant if name == "variant" else ref.center
    moved = UPDATES[name](batch, **{rate: 1e-2})
    assert loss(batch.x, batch.y, moved) < loss(batch.x, batch.y, batch.centers)


@pytest.mark.parametrize("name", ["center", "weighted_cluster"])
def test_absent_class_stays_to_the_bit(name: str):
    batch = make_batch([0, 2, 2], num_classes=4, dtype=torch.float32)
    moved = UPDATES[name](batch)
    assert torch.equal(moved[[1, 3]], batch.centers[[1, 3]])
    assert not torch.equal(moved[[0, 2]], batch.centers[[0, 2]])


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_update_keeps_the_dtype_of_the_centers_and_leaves_the_old_alone(name: str, dtype: torch.dtype):
    batch = make_batch([0, 0, 1], num_classes=3, dtype=dtype)
    before = batch.centers.clone()
    moved = UPDATES[name](batch)
    assert moved.dtype == dtype
    assert torch.equal(batch.centers, before)
    wide = UPDATES[name](batch.map(torch.Tensor.double))
    single = torch.finfo(torch.float32).eps * 100
    torch.testing.assert_close(moved.double(), wide, rtol=torch.finfo(dtype).eps / 2 + single, atol=single)


def test_single_class_has_no_other_to_move_from():
    batch = make_batch([0, 0], num_classes=1)
    plain = ref.center_update(batch.x, batch.y, batch.centers)
    torch.testing.assert_close(ref.island_update(batch.x, batch.y, batch.centers), plain)


@pytest.mark.parametrize("exponent", [-100, 100])
def test_island_repulsion_at_extreme_magnitudes(exponent: int):
    # cos does not depend on the length, so its gradient scales with 1 / length. No sample touches class 1.
    centers = torch.tensor([[1.0, 2.0, 3.0], [2.0, -1.0, 0.5]])
    scaled = centers * torch.tensor([[1.0], [2.0**exponent]])
    x, y = torch.zeros(1, 3), torch.tensor([0])
    move = ref.island_update(x, y, centers, alpha=1.0)[1] - centers[1]
    far = ref.island_update(x, y, scaled, alpha=1.0)[1] - scaled[1]
    expected = move * 2.0**-exponent
    torch.testing.assert_close(far, expected, rtol=1e-5, atol=float(scaled[1].abs().max()) * 1e-6)


def test_zero_center_neither_repels_nor_is_repelled():
    centers = torch.tensor([[1.0, 2.0], [0.0, 0.0], [2.0, -1.0]], dtype=torch.float64)
    x, y = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0])
    moved = ref.island_update(x, y, centers)
    assert torch.equal(moved[1], centers[1])
    without = ref.island_update(x, y, centers[[0, 2]], lambda1=5.0)  # λ₁ / (C-1) as with three
    torch.testing.assert_close(moved[[0, 2]], without)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("spec", [s for s in LOSSES.values() if s.family == "center"], ids=lambda s: s.name)
def test_a_spoiled_row_moves_no_center(spec: LossSpec, bad: float):
    # A gradient scaler skips the step whose rows overflowed; the centers that they would have moved must survive it.
    n, num_classes = 9, 4
    clean, options = make_inputs(spec, n, num_classes, 6, torch.float32)
    clean["y"] = torch.arange(n) % num_classes
    spoiled = clean | {"x": clean["x"].clone()}
    spoiled["x"][2, 1] = bad
    function, old = getattr(functional, spec.function), clean["centers"].clone()
    expected = call(spec.update, **clean)
    expected[2] = old[2]
    loss = function(**by_public_name(spoiled), **options, backend="reference")
    assert not loss.isfinite()
    # Every row pushes every center of the variant loss.
    assert torch.equal(spoiled["centers"], old if spec.name == "variant" else expected)
    assert expected[[0, 1, 3]].ne(old[[0, 1, 3]]).any(1).all()


def test_a_center_that_overflows_its_dtype_stays():
    centers = torch.tensor([[6e4, 1.0], [2.0, 3.0]], dtype=torch.float16)
    x = torch.tensor([[6e4, 0.0], [0.0, 0.0]], dtype=torch.float16)
    moved = ref.weighted_cluster_update(-x, torch.tensor([0, 1]), centers, torch.tensor([1e10, 0.0]))
    assert torch.equal(moved, centers)
