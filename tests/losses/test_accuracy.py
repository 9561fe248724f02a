"""Where digits were lost: sums of rows nearly alike, a center or a class far from all others, thin products."""

import pytest
import torch
from torch import Tensor

from cases import assert_within_budget, double, evaluate, make_inputs, plain
from fer_fast import functional, reference
from fer_fast.dispatch import triton_runs_on
from fer_fast.registry import LOSSES

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FAST = ["blocked", *(["triton"] if triton_runs_on(DEVICE) else [])]
over_backends = pytest.mark.parametrize("backend", FAST)
DRAWS = 8


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def opposite_classes(n: int, seed: int, d: int = 64) -> dict[str, Tensor]:
    """Two classes of rows along one line, 1e-3 off it: every pair of NFD loses some 1e-6 of 1."""
    y = torch.arange(n) % 2
    return {
        "e": ((1 - 2 * y)[:, None] * normal(d, seed=seed) + 1e-3 * normal(n, d, seed=seed + 1))[None].float(),
        "y": y,
    }


@pytest.mark.parametrize(("n", "backend"), [(10_000, "blocked"), *((200, backend) for backend in FAST)])
def test_nfd_of_opposite_classes_is_not_its_rounding(n, backend):
    for seed in range(3):
        t = opposite_classes(n, seed)
        truth = evaluate(LOSSES["nfd"], double(t), {"num_classes": 2}, backend="blocked")["loss"].item()
        found = functional.nfd_loss(t["e"], t["y"], 2, backend=backend).item()
        # A kernel takes the length of a row, and so the 1 of a pair, in float32.
        assert abs(found - truth) <= (1e-5 * truth if backend == "blocked" else torch.finfo(torch.float32).eps)


def distances_of(x: Tensor, centers: Tensor, weigh: Tensor, backend: str) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    distances = functional.center_distances(x, centers, backend=backend)
    return {"value": distances.detach(), "dx": torch.autograd.grad((distances * weigh).sum(), x)[0]}


@over_backends
def test_gradients_of_distances_beside_a_center(backend):
    actual, simple, truth = [], [], []
    for seed in range(DRAWS):
        centers, y = normal(7, 512, seed=seed), torch.arange(40) % 7
        x = (centers[y] + 0.01 * normal(40, 512, seed=seed + 50)).float()
        centers, own = centers.float(), torch.nn.functional.one_hot(y, 7).float()
        actual.append(distances_of(x, centers, own, backend))
        simple.append(distances_of(x, centers, own, "reference"))
        truth.append(distances_of(x.double(), centers.double(), own.double(), "reference"))
    assert_within_budget(actual, simple, truth)


@pytest.mark.parametrize("far", [1e8, -1e12])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@over_backends
def test_anti_center_distances_leave_a_far_center_out(backend, dtype, place, far):
    centers = torch.tensor([0.0, 1.0], dtype=dtype)
    centers = torch.cat([centers[:place], torch.tensor([far], dtype=dtype), centers[place:]])[:, None]
    x = torch.tensor([[0.25]], dtype=dtype, requires_grad=True)
    s = functional.anti_center_distances(x, torch.tensor([place]), centers, backend=backend)
    assert s.item() == pytest.approx(0.25**2 + 0.75**2, rel=1e-7)
    assert torch.autograd.grad(s.sum(), x)[0].item() == pytest.approx(2 * (0.25 - 0.75), rel=1e-7)


@pytest.mark.parametrize("far", [1e4, 1e8])
@pytest.mark.parametrize("num_classes", [2, 3, 20])
@pytest.mark.parametrize("name", ["variant", "weighted-cluster"])
@over_backends
def test_losses_beside_a_far_center(backend, name, num_classes, far):
    actual, simple, truth = [], [], []
    for seed in range(DRAWS):
        tensors, options = make_inputs(LOSSES[name], 16, num_classes, 12, torch.float32, seed=seed)
        tensors["centers"][seed % num_classes] += far
        actual.append(evaluate(LOSSES[name], tensors, options, backend=backend))
        simple.append(plain(LOSSES[name], tensors, options))
        truth.append(evaluate(LOSSES[name], double(tensors), options, backend="reference"))
    assert_within_budget(actual, simple, truth)


@pytest.mark.parametrize("num_classes", [1, 3])
@over_backends
def test_rows_of_one_class_push_its_center_nowhere(backend, num_classes):
    """Of variant loss: all pushes less its own would leave what a rounding of them is, 1e4 times one of the center."""
    tensors, _ = make_inputs(LOSSES["variant"], 16, num_classes, 5, torch.float64, "one", seed=1)
    tensors = {name: t if name == "y" else 1e-4 * t for name, t in tensors.items()}
    if backend == "triton":
        tensors = {name: t if name == "y" else t.float() for name, t in tensors.items()}
    options = {"update": True, "lambda2": 0.0}
    found = evaluate(LOSSES["variant"], tensors, options, backend=backend)["centers"][-1]
    alone = evaluate(LOSSES["center"], tensors, {"update": True}, backend=backend)["centers"][-1]
    torch.testing.assert_close(found, alone, rtol=4 * torch.finfo(found.dtype).eps, atol=0.0)


@pytest.mark.parametrize("what", ["class", "row"])
@over_backends
def test_range_loss_beside_a_far_class_or_row(backend, what):
    """The other class means are no farther apart than their rows, and the third widest pair of a class no wider."""
    options = {"k": 3, "alpha": 1.0, "beta": 0.0} if what == "row" else {"alpha": 0.0, "beta": 1.0, "margin": 1e3}
    for seed in range(20):
        y = torch.arange(14) % 4
        x = normal(14, 5, seed=seed)
        x[(y == seed % 4) if what == "class" else [0, 1]] += 1e9
        tensors = {"x": x.float(), "y": y}
        found = evaluate(LOSSES["range"], tensors, options, backend=backend)
        truth = evaluate(LOSSES["range"], double(tensors), options, backend="reference")
        torch.testing.assert_close(found["loss"].double(), truth["loss"], rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("name", ["softmax", "lmcl"])
def test_the_last_of_many_rows_keeps_its_digits(name):
    """129 rows of 100 000 classes go by in two blocks: one row by itself is a product of another kind."""
    tensors, options = make_inputs(LOSSES[name], 129, 100_000, 16, torch.float32)
    found = evaluate(LOSSES[name], tensors, options, backend="blocked")["dx"][-1].double()
    truth = evaluate(LOSSES[name], double(tensors), options, backend="blocked")["dx"][-1]
    assert (found - truth).norm() < 1e-6 * truth.norm()


@pytest.mark.parametrize("spacing", [1.0, 1e-3, 1e-5])
def test_the_papers_gradient_changes_no_value(spacing):
    x, y = normal(9, 8, seed=0).float(), torch.arange(9) % 5
    centers = spacing * normal(5, 8, seed=1).float()
    values = [reference.variant(x, y, centers, feature_gradient=how) for how in ("exact", "paper")]
    assert torch.equal(*values)


def test_the_spread_of_the_reference_is_the_sum_that_is_written():
    centers = normal(50, 7, seed=0)
    written = (centers[:, None] - centers).square().sum((1, 2))
    torch.testing.assert_close(reference.primitives.center_spread(centers), written)


@over_backends
@pytest.mark.parametrize("num_classes", [3, 70])
def test_the_weight_of_a_group_may_be_more_than_float32_holds(num_classes, backend):
    """α_v / σ² is no float32, the loss is."""
    generator = torch.Generator().manual_seed(0)
    x, centers = torch.zeros(4, 2), 1e-8 * torch.randn(num_classes, 2, generator=generator)
    y, groups = torch.arange(4) % 3, [(torch.randn(5, 2, generator=generator), torch.arange(5) % 3)]
    given = {"groups": groups, "sample_weights": torch.tensor([1.0, 0, 1, 1])}
    found = functional.mva_loss(x, y, centers, **given, backend=backend)
    given["groups"] = [(rows.double(), of) for rows, of in groups]
    exact = functional.mva_loss(x.double(), y, centers.double(), **given, backend="reference")
    assert exact > 1e28
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=0)
