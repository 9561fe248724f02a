"""Inputs and the rule of the tests of the blocked engines: ragged and hostile, held against the float64 reference."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from cases import assert_within_budget
from fer_fast import reference
from fer_fast.blocked import class_table, classifiers, contrastive, pairwise, range_loss, tiles
from fer_fast.terms import CenterTerm, Classifier

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
DTYPES = [pytest.param(dtype, id=str(dtype)[6:]) for dtype in FLOATS]
# n, d, C and how labels fall: none of them a multiple of a tile.
SHAPES = {
    "ragged": (53, 19, 5, "random"),
    "one row": (1, 7, 3, "random"),
    "one class": (41, 16, 4, "one"),
    "absent classes": (30, 33, 90, "random"),
    "own classes": (26, 8, 26, "own"),
    "two classes": (34, 5, 2, "random"),
}
# What is done to features before the call; `big` and `small` are magnitudes whose squares the dtype still holds.
HOSTILE = {
    "plain": lambda x, big: x,
    "zero rows": lambda x, big: torch.cat([torch.zeros_like(x[..., ::3, :]), x], -2)[..., : x.shape[-2], :],
    "constant rows": lambda x, big: x[..., :1].expand(x.shape) + torch.zeros_like(x),
    "duplicate rows": lambda x, big: x[..., torch.arange(x.shape[-2]) // 3, :],
    "huge": lambda x, big: x * big,
    "tiny": lambda x, big: x / big,
    "expanded": lambda x, big: x[..., :1, :].expand(x.shape),
    "transposed": lambda x, big: x.mT.contiguous().mT,
}
BIG = {torch.float64: 1e60, torch.float32: 1e12, torch.float16: 100.0, torch.bfloat16: 1e12}
DRAWS = 3


def cast(tensors: dict, dtype: torch.dtype) -> dict:
    """Features and bank in `dtype`, tables in float32 at least, labels as they are."""
    table = torch.promote_types(dtype, torch.float32)
    return {
        name: t if not t.dtype.is_floating_point else t.to(dtype if name in ("x", "e", "z", "bank_z") else table)
        for name, t in tensors.items()
    }


def draw(shape: str, seed: int, kind: str = "plain", dtype: torch.dtype = torch.float64, leading: tuple = ()) -> dict:
    """Features x (*leading, n, d), labels y, and tables of every kind an engine may ask for."""
    n, d, num_classes, labels = SHAPES[shape]
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    x = HOSTILE[kind](normal(*leading, n, d).to(dtype).double(), BIG[dtype])
    random = torch.randint(num_classes, (n,), generator=generator)
    tables = {"weight": normal(num_classes, d), "bias": normal(num_classes), "centers": normal(num_classes, d)}
    if kind in ("huge", "tiny"):
        tables["centers"] *= x.abs().max()
    positive = {"class_weights": normal(num_classes).abs() + 0.1}
    y = {"random": random, "one": torch.full_like(random, 1), "own": torch.arange(n)}[labels]
    return {"x": x, "y": y, "num_classes": num_classes} | tables | positive


def held_to_reference(fast, slow, draws: list[dict], dtype: torch.dtype, cancelling: dict | None = None) -> None:
    """`fast` and `slow` map tensors to named results; the answer is the same on every run and within its budget.

    `cancelling`: see :func:`cases.assert_within_budget`.
    """
    given = [cast({k: v for k, v in each.items() if isinstance(v, Tensor)}, dtype) for each in draws]
    exact = [slow(cast(each, torch.float64)) for each in given]
    half = dtype in (torch.float16, torch.bfloat16)
    with torch.autocast("cpu", dtype) if half else nullcontext():
        simple = exact if dtype == torch.float64 else [slow(each) for each in given]
    actual, again = ([fast(each) for each in given] for _ in range(2))
    for first, second in zip(actual, again, strict=True):
        assert all(torch.equal(first[name].nan_to_num(7.0), second[name].nan_to_num(7.0)) for name in first)
    for name in exact[0]:
        assert all(each[name].isfinite().all() for each in exact), f"{name}: the inputs test nothing"
    assert_within_budget(actual, simple, exact, cancelling)


def turning(draws: list[dict], pull: Tensor | float, centred: bool) -> float:
    """The size of what a gradient through unit rows is the rest of: `pull` on each u_i, over the length of x_i.

    The part along u_i is taken out. Where rows are parallel that is all of it, and what is left is its rounding.
    """
    rows = torch.stack([each["x"] for each in draws])
    rows = rows - rows.mean(-1, keepdim=True) if centred else rows
    lengths = rows.norm(dim=-1)
    return (pull / lengths.where(lengths > 1e-6 * lengths.max(), torch.inf)).norm().item()


def by_autograd(function, tensors: dict, leaves: tuple[str, ...], weigh: Tensor | None = None) -> dict:
    """The value of function(**tensors) and its gradients, weighed where the value is not a scalar."""
    tensors = {name: t.detach().requires_grad_(name in leaves) for name, t in tensors.items()}
    value = function(tensors)
    total = value if weigh is None else (value * weigh.to(value)).sum()
    gradients = torch.autograd.grad(total, [tensors[name] for name in leaves])
    return {"value": value.detach()} | {f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}


CASES = [(shape, "plain") for shape in SHAPES] + [("ragged", kind) for kind in HOSTILE if kind != "plain"]
over_cases = pytest.mark.parametrize(("shape", "kind"), [pytest.param(*case, id="-".join(case)) for case in CASES])
over_dtypes = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles so small that a few dozen rows cross many of them and end in a ragged one."""
    monkeypatch.setattr(contrastive, "ANCHORS", 16)
    monkeypatch.setattr(contrastive, "KEYS", 32)
    monkeypatch.setattr(pairwise, "TILE", 16)
    monkeypatch.setattr(range_loss, "TILE", 16)
    monkeypatch.setattr(classifiers, "LOGITS", 64)
    for module in (classifiers, class_table):
        monkeypatch.setattr(module, "ROWS", 5)
    monkeypatch.setattr(tiles.rows_per_block, "__defaults__", (256,))
    monkeypatch.setattr(tiles.rows_per_sweep, "__defaults__", (32,))  # of which eight are taken by several threads


PARALLEL = ("constant rows", "expanded")


def pairwise_pull(shape: str, mean: bool) -> float:
    """Of n - 1 pairs, each counted from both ends, with weights and slopes of size 1: on one unit row."""
    n = SHAPES[shape][0]
    return 4 * (n - 1) / (n**2 if mean else 1)


BANK_ROWS = {"ragged": 71, "one row": 20, "one class": 1, "absent classes": 45, "own classes": 33, "two classes": 40}


def with_bank(tensors: dict, shape: str, seed: int) -> dict:
    """Unit rows and a bank of unit rows, some places of which are not filled and hold NaN."""
    _, d, num_classes, _ = SHAPES[shape]
    generator = torch.Generator().manual_seed(seed + 100)
    rows = BANK_ROWS[shape]
    bank_z = torch.nn.functional.normalize(torch.randn(rows, d, generator=generator, dtype=torch.float64), dim=1)
    bank_y = torch.randint(-1, num_classes + 2, (rows,), generator=generator)
    bank_z[bank_y < 0] = torch.nan
    z = torch.nn.functional.normalize(tensors["x"], dim=1)
    return {"z": z, "y": tensors["y"], "bank_z": bank_z, "bank_y": bank_y}


GROUPS = (7, 4)
CLASSIFIERS = {
    "": ([], None),
    "softmax": (
        [],
        lambda t, **how: reference.softmax(t["x"], t["y"], t["weight"], t["bias"], t["class_weights"], **how),
    ),
    "lmcl": ([30.0, 0.35], lambda t, **how: reference.lmcl(t["x"], t["y"], t["weight"], **how)),
    "arcface": ([64.0, 0.5], lambda t, **how: reference.arcface(t["x"], t["y"], t["weight"], **how)),
    "a-softmax": ([4.0, 5.0], lambda t, **how: reference.a_softmax(t["x"], t["y"], t["weight"], **how)),
    "l-softmax": ([3.0, 1.0], lambda t, **how: reference.l_softmax(t["x"], t["y"], t["weight"], 3, 1.0, **how)),
}
AUXILIARIES = {
    "": ([], None, None),
    "center": ([0.5], reference.center, reference.center_update),
    "island": ([10.0, 0.5], reference.island, reference.island_update),
    "variant": ([0.4, 0.6, 0.01, 0.01, 0.5, 0.0], reference.variant, reference.variant_update),
    "weighted-cluster": ([1.0, 1.0], reference.weighted_cluster, reference.weighted_cluster_update),
    "affinity": ([0.5], reference.affinity, reference.center_update),
    "mva": ([0.5], reference.mva, reference.center_update),
}
TERMS = [(name, "") for name in CLASSIFIERS if name] + [("", name) for name in AUXILIARIES if name]


def with_groups(tensors: dict) -> dict:
    rows, labels = tensors["x"].flip(0), tensors["y"].flip(0)
    repeats = sum(GROUPS) // len(rows) + 1
    return tensors | {
        "groups_x": rows.repeat(repeats, 1)[: sum(GROUPS)] * 0.5,
        "groups_y": labels.repeat(repeats)[: sum(GROUPS)],
    }


def run_class_table(t: dict, classifier: str, auxiliary: str, mean: bool, update: bool = True) -> dict:
    centers = t["centers"].clone()
    head, term = Classifier(), CenterTerm()
    if classifier:
        softmax = (t["bias"], t["class_weights"]) if classifier == "softmax" else (None, None)
        head = Classifier(classifier, t["weight"], *softmax, CLASSIFIERS[classifier][0])
    if auxiliary:
        weights = t["class_weights"] if auxiliary == "weighted-cluster" else None
        term = CenterTerm(auxiliary, centers, weights, AUXILIARIES[auxiliary][0], 0.3)
    if auxiliary == "mva":
        term = term._replace(groups_x=t["groups_x"].split(GROUPS), groups_y=t["groups_y"].split(GROUPS))
    reduction, update = "mean" if mean else "sum", update and bool(auxiliary)
    loss, dx, dweight, dbias, _ = class_table.class_table(
        t["x"], t["y"], head, term, None, None, reduction, update, True
    )
    result = {"value": loss, "dx": dx}
    result |= {"dweight": dweight} if classifier else {}
    result |= {"dbias": dbias} if classifier == "softmax" else {}
    return result | ({"centers": centers} if auxiliary else {})
