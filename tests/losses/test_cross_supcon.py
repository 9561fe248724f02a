"""SupCon between two towers against its formula in float64: labels, dtypes, what is left out and what refused."""

import pytest
import torch
from torch import Tensor

from cases import assert_within_budget
from fer_fast import functional, reference
from fer_fast.blocked import contrastive

D = 7
LABELS = {
    "classes": lambda n, m: (torch.arange(n) % 4, torch.arange(m) % 5),
    "unique": lambda n, m: (torch.arange(n) * 2**40, torch.arange(m).flip(0) * 2**40),
    "left out": lambda n, m: (torch.arange(n) % 4 - 1, torch.arange(m) % 6 - 2),
    "int32": lambda n, m: ((torch.arange(n) % 3).int(), (torch.arange(m) % 3).short()),
}


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(contrastive, "ANCHORS", 16)
    monkeypatch.setattr(contrastive, "KEYS", 32)


def make(kind: str, seed: int, n: int = 37, m: int = 51) -> dict[str, Tensor]:
    y, ref_y = LABELS[kind](n, m)
    rows = torch.randn(n + m, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z, ref_z = torch.nn.functional.normalize(rows, dim=1).split([n, m])
    z, ref_z = z.clone(), ref_z.clone()
    z[y < 0], ref_z[ref_y < 0] = torch.nan, torch.inf
    return {"z": z, "y": y, "ref_z": ref_z, "ref_y": ref_y}


def evaluate(t: dict, dtype: torch.dtype, of, **how) -> dict[str, Tensor]:
    t = {name: v.detach().to(dtype).requires_grad_() if v.is_floating_point() else v for name, v in t.items()}
    leaves = {"z": t["z"], "ref_z": t["ref_z"]}
    how = {name: v.to(dtype) if isinstance(v, Tensor) else v for name, v in how.items()}
    if isinstance(how.get("temperature"), Tensor):
        leaves["temperature"] = how["temperature"] = how["temperature"].detach().requires_grad_()
    loss = of(**t, **how)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return {"loss": loss.detach()} | {f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("how", ["plain", "learnt", "weighted", "sum"])
@pytest.mark.parametrize("kind", LABELS)
def test_blocked_is_the_formula(kind, how, dtype):
    weights = torch.rand(37, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = {
        "plain": {"temperature": 0.05},
        "learnt": {"temperature": torch.tensor(0.2, dtype=torch.float64)},
        "weighted": {"sample_weights": weights, "temperature": torch.tensor(0.2)},
        "sum": {"reduction": "sum"},
    }[how]
    draws = [make(kind, seed) for seed in range(6)]
    rounded = [{k: v.to(dtype) if v.is_floating_point() else v for k, v in each.items()} for each in draws]
    given = {name: v.to(dtype).double() if isinstance(v, Tensor) else v for name, v in given.items()}
    truth = [evaluate(each, torch.float64, reference.cross_supcon, **given) for each in rounded]
    plain = [evaluate(each, dtype, reference.cross_supcon, **given) for each in rounded]
    actual = [evaluate(each, dtype, functional.cross_supcon_loss, backend="blocked", **given) for each in rounded]
    assert_within_budget(actual, plain, truth)
    for each, found in zip(draws, actual, strict=True):
        for rows, labels in (("dz", "y"), ("dref_z", "ref_y")):
            assert torch.equal(found[rows][each[labels] < 0], torch.zeros_like(found[rows][each[labels] < 0]))


def test_the_formula_by_hand():
    t = make("classes", 0, 5, 6)
    s = (t["z"] @ t["ref_z"].T / 0.5).tolist()
    total, anchors = 0.0, 0
    for i, label in enumerate(t["y"].tolist()):
        positives = [m for m, other in enumerate(t["ref_y"].tolist()) if other == label]
        if positives:
            anchors += 1
            total += torch.tensor(s[i]).double().logsumexp(0).item() - sum(s[i][m] for m in positives) / len(positives)
    assert reference.cross_supcon(**t, temperature=0.5).item() == pytest.approx(total / anchors)


def test_the_formula_is_differentiable():
    t = make("left out", 1, 5, 6)
    leaves = [t["z"].requires_grad_(), t["ref_z"].requires_grad_(), torch.tensor(0.5).double().requires_grad_()]

    def run(z, ref_z, temperature):
        return reference.cross_supcon(z, t["y"], ref_z, t["ref_y"], temperature)

    t["z"].data.nan_to_num_(0.5)
    t["ref_z"].data.nan_to_num_(0.5, 0.5, 0.5)
    assert torch.autograd.gradcheck(run, leaves)


def test_one_set_of_rows_is_supcon_with_itself_as_a_key():
    t = make("classes", 2)
    loss = functional.cross_supcon_loss(t["z"], t["y"], t["z"], t["y"], temperature=1.0)
    pairs = t["z"] @ t["z"].T
    same = (t["y"][:, None] == t["y"]).double()
    torch.testing.assert_close(loss, (pairs.logsumexp(1) - (pairs * same).sum(1) / same.sum(1)).mean())


def test_anchors_without_a_positive_lose_nothing():
    t = make("classes", 3)
    found = evaluate(t | {"ref_y": t["ref_y"] + 100}, torch.float32, functional.cross_supcon_loss)
    assert all(torch.equal(value, torch.zeros_like(value)) for value in found.values())


@pytest.mark.parametrize("backend", ["blocked", "reference"])
def test_what_is_not_finite_reaches_the_loss(backend):
    t = make("classes", 4)
    for name in ("z", "ref_z"):
        for value in (torch.inf, -torch.inf, torch.nan):
            bad = t[name].clone()
            bad[3, 2] = value
            assert not functional.cross_supcon_loss(**t | {name: bad}, backend=backend).isfinite()


def test_towers_of_other_dtypes_and_strides_and_no_buffer_of_pairs():
    t = make("classes", 5)
    exact = evaluate(t, torch.float64, reference.cross_supcon)
    half = t["z"].half().t().contiguous().t().requires_grad_()
    keys = t["ref_z"].float().repeat(1, 2)[:, :D].requires_grad_()
    loss = functional.cross_supcon_loss(half, t["y"], keys, t["ref_y"], normalize=True)
    gradients = torch.autograd.grad(loss, (half, keys))
    assert [g.dtype for g in gradients] == [torch.float16, torch.float32]
    torch.testing.assert_close(loss.double(), exact["loss"], rtol=1e-3, atol=1e-3)


def test_refused_by_name():
    t = make("classes", 6)
    for change, said in (
        ({"ref_z": t["ref_z"][:, 1:]}, r"reference embeddings: expected \(C, 7\)"),
        ({"ref_y": t["ref_y"][1:]}, "reference labels: expected shape"),
        ({"ref_z": t["ref_z"].int()}, "reference embeddings: expected a dtype"),
        ({"ref_z": t["ref_z"].to("meta")}, "reference embeddings: .*meta"),
        ({"sample_weights": torch.ones(3)}, "sample_weights: expected shape"),
        ({"temperature": -1.0}, "temperature: -1.0"),
        ({"reduction": "none"}, "reduction: 'none' given"),
    ):
        with pytest.raises(ValueError, match=said):
            functional.cross_supcon_loss(**t | change)
