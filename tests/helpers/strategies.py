"""Batches to try the losses on, and one table of the reference's losses with what each depends on.

A batch carries everything any loss takes, so that one property can be stated once and held against every row of the
table. Numbers come from a seeded generator, sizes and labels from hypothesis, which can then shrink them.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from fer_fast import reference as ref

repeatable = settings(max_examples=25, deadline=None, derandomize=True, database=None)


@dataclass(frozen=True)
class Batch:
    """Inputs of every loss at once. C classes, n samples, k embeddings of each, M bank rows, two groups for MVA."""

    y: Tensor  # (n,)
    x: Tensor  # (n, d)
    z: Tensor  # (n, d) of length one
    e: Tensor  # (k, n, d)
    centers: Tensor  # (C, d)
    weight: Tensor  # (C, d)
    bias: Tensor  # (C,)
    class_weights: Tensor  # (C,) in (0, 1]
    difficulty: Tensor  # (C,)
    bank_z: Tensor  # (M, d) of length one
    bank_y: Tensor  # (M,), negative where the bank is not yet filled

    @property
    def groups(self) -> list[tuple[Tensor, Tensor]]:
        """Two groups of earlier features, taken from the filled rows of the bank."""
        features, labels = self.bank_z[self.bank_y >= 0], self.bank_y[self.bank_y >= 0]
        return list(zip(features.chunk(2), labels.chunk(2), strict=True))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with `change` applied to every floating-point field."""
        floats = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name).is_floating_point()}
        return replace(self, **{name: change(value) for name, value in floats.items()})


def make_batch(
    y: list[int],
    num_classes: int,
    d: int = 4,
    k: int = 2,
    bank: int = 6,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Batch:
    """A batch with the labels `y` and normal features; the bank's last row is unfilled and poisoned with NaN."""
    generator = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    uniform = partial(torch.rand, generator=generator, dtype=torch.float64)
    n = len(y)
    bank_z = torch.nn.functional.normalize(normal(bank, d), dim=1)
    bank_y = torch.randint(num_classes, (bank,), generator=generator)
    bank_z[-1], bank_y[-1] = torch.nan, -1
    batch = Batch(
        y=torch.tensor(y),
        x=normal(n, d),
        z=torch.nn.functional.normalize(normal(n, d), dim=1),
        e=normal(k, n, d),
        centers=normal(num_classes, d),
        weight=normal(num_classes, d),
        bias=normal(num_classes),
        class_weights=0.05 + 0.95 * uniform(num_classes),
        difficulty=uniform(num_classes),
        bank_z=bank_z,
        bank_y=bank_y,
    )
    return batch.map(lambda value: value.to(dtype))


@st.composite
def batches(draw: st.DrawFn, min_classes: int = 2, min_d: int = 2, even: bool = False, dtype=torch.float64) -> Batch:
    """One to nine rows of two to seven features over up to six classes, any of which may be absent."""
    num_classes = draw(st.integers(min_classes, 6), label="classes")
    n = draw(st.integers(1, 4), label="images") * 2 if even else draw(st.integers(1, 9), label="rows")
    y = draw(st.lists(st.integers(0, num_classes - 1), min_size=n, max_size=n), label="labels")
    d = draw(st.integers(min_d, 7), label="features")
    k = draw(st.integers(1, 3), label="embeddings")
    return make_batch(y, num_classes, d, k, seed=draw(st.integers(0, 2**16), label="seed"), dtype=dtype)


@dataclass(frozen=True)
class Loss:
    """A loss of the reference, called on a batch; `differentiable` names the fields its gradient reaches."""

    call: Callable[..., Tensor]
    differentiable: tuple[str, ...] = ("x",)
    symmetries: frozenset[str] = frozenset()
    settings: tuple[dict, ...] = ({},)
    reductions: tuple[str, ...] = ("mean", "sum")
    pairwise: bool = False  # exactly 0 where there is no pair to compare
    min_rows: int = 1
    min_classes: int = 1

    @property
    def features(self) -> str:
        """The field that holds the samples' features."""
        return self.differentiable[0]

    def __call__(self, batch: Batch, **kwargs) -> Tensor:
        return self.call(batch, **kwargs)

    def gradients(self, batch: Batch, **kwargs) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss and its gradient with respect to each differentiable field."""
        leaves = {name: getattr(batch, name).detach().clone().requires_grad_() for name in self.differentiable}
        loss = self(replace(batch, **leaves), **kwargs)
        return loss.detach(), torch.autograd.grad(loss, tuple(leaves.values()))


def _loss(call: Callable[..., Tensor], differentiable: str = "x", symmetries: str = "", **kwargs) -> Loss:
    return Loss(call, tuple(differentiable.split()), frozenset(symmetries.split()), **kwargs)


CORRELATION = "scale shift_rows axes"
TEMPERATURES = ({}, {"temperature": 1.0})
ANGULAR_SETTINGS = ({}, *({"m": m, "lambda_": lambda_} for m, lambda_ in ((1, 0.0), (2, 0.0), (3, 1.5), (4, 0.0))))

LOSSES = {
    "softmax": _loss(lambda b, **kw: ref.softmax(b.x, b.y, b.weight, b.bias, **kw), "x weight bias", "rotation"),
    "weighted_softmax": _loss(
        lambda b, **kw: ref.softmax(b.x, b.y, b.weight, b.bias, b.class_weights, **kw), "x weight bias", "rotation"
    ),
    "softmax_no_bias": _loss(lambda b, **kw: ref.softmax(b.x, b.y, b.weight, **kw), "x weight", "rotation"),
    "lmcl": _loss(
        lambda b, **kw: ref.lmcl(b.x, b.y, b.weight, **kw),
        "x weight",
        "rotation scale scale_rows",
        settings=({}, {"s": 8.0, "m": 0.1}),
    ),
    "arcface": _loss(
        lambda b, **kw: ref.arcface(b.x, b.y, b.weight, **kw),
        "x weight",
        "rotation scale scale_rows",
        settings=({}, {"s": 8.0, "m": 1.4}),
    ),
    "a_softmax": _loss(
        lambda b, **kw: ref.a_softmax(b.x, b.y, b.weight, **kw), "x weight", "rotation", settings=ANGULAR_SETTINGS
    ),
    "l_softmax": _loss(
        lambda b, **kw: ref.l_softmax(b.x, b.y, b.weight, **kw), "x weight", "rotation", settings=ANGULAR_SETTINGS
    ),
    "center": _loss(lambda b, **kw: ref.center(b.x, b.y, b.centers, **kw), "x", "rotation translation"),
    "island": _loss(
        lambda b, **kw: ref.island(b.x, b.y, b.centers, **kw), "x", "rotation", settings=({}, {"lambda1": 0.5})
    ),
    "variant": _loss(
        lambda b, **kw: ref.variant(b.x, b.y, b.centers, **kw),
        "x",
        "rotation translation",
        settings=({}, {"lambda1": 30.0, "lambda2": 2.0, "eps1": 0.5, "eps2": 0.1}),
    ),
    "weighted_cluster": _loss(
        lambda b, **kw: ref.weighted_cluster(b.x, b.y, b.centers, b.class_weights, **kw),
        "x",
        "rotation translation",
        settings=({}, {"alpha": 0.2}),
    ),
    "affinity": _loss(
        lambda b, **kw: ref.affinity(b.x, b.y, b.centers, **kw), "x", "rotation translation scale", min_classes=2
    ),
    "mva": _loss(
        lambda b, **kw: ref.mva(b.x, b.y, b.centers, b.groups, **kw), "x", "rotation translation scale", min_classes=2
    ),
    "nfd": _loss(lambda b, **kw: ref.nfd(b.e, b.y, **kw), "e", f"{CORRELATION} scale_rows", pairwise=True),
    "fd": _loss(
        lambda b, **kw: ref.fd(b.e, b.y, b.difficulty, **kw),
        "e",
        f"{CORRELATION} scale_rows",
        pairwise=True,
    ),
    "md": _loss(lambda b, **kw: ref.md(b.e, b.y, len(b.centers), **kw), "e", CORRELATION, pairwise=True),
    "ed": _loss(lambda b, **kw: ref.ed(b.e, **kw), "e", f"{CORRELATION} scale_rows"),
    "ad_corre": _loss(lambda b, **kw: ref.ad_corre(b.e, b.y, b.difficulty, **kw), "e", CORRELATION),
    "marginal": _loss(
        lambda b, **kw: ref.marginal(b.x, b.y, **kw),
        "x",
        "rotation scale scale_rows",
        settings=({}, {"theta": 2.0, "xi": 1.0}),
        pairwise=True,
    ),
    "range": _loss(
        lambda b, **kw: ref.range_loss(b.x, b.y, **kw),
        "x",
        "rotation translation",
        settings=({}, {"k": 1, "margin": 0.0}, {"k": 3, "alpha": 2.0, "beta": 0.5, "margin": 30.0}),
        reductions=(),
        pairwise=True,
    ),
    "selfcon": _loss(lambda b, **kw: ref.selfcon(b.z, **kw), "z", "rotation", settings=TEMPERATURES, min_rows=2),
    "supcon": _loss(
        lambda b, **kw: ref.supcon(b.z, b.y, **kw),
        "z",
        "rotation",
        settings=TEMPERATURES,
        pairwise=True,
    ),
    "esc": _loss(
        lambda b, **kw: ref.esc(b.z, b.y, b.bank_z, b.bank_y, **kw),
        "z",
        "rotation",
        settings=TEMPERATURES,
        pairwise=True,
    ),
    "ensc": _loss(
        lambda b, **kw: ref.ensc(b.z, b.y, b.bank_z, b.bank_y, **kw),
        "z",
        "rotation",
        settings=TEMPERATURES,
        pairwise=True,
    ),
}


def having(symmetry: str) -> list[str]:
    """The losses that `symmetry` leaves as they are."""
    return [name for name, loss in LOSSES.items() if symmetry in loss.symmetries]


def combinations() -> list[tuple[str, dict]]:
    """Every loss with each of its settings and reductions, as (name, keywords)."""
    return [
        (name, setting | ({"reduction": reduction} if reduction else {}))
        for name, loss in LOSSES.items()
        for setting in loss.settings
        for reduction in loss.reductions or (None,)
    ]
