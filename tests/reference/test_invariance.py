"""What must not change a loss, laws of scale, and the reduced forms the fast paths rest on, each on drawn batches."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fer_fast import reference as ref
from strategies import LOSSES, Batch, batches, having, make_batch, repeatable


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rotated(batch: Batch, seed: int) -> Batch:
    d = batch.x.shape[1]
    q, _ = torch.linalg.qr(torch.randn(d, d, generator=generator_of(seed), dtype=torch.float64))
    turn = {name: getattr(batch, name) @ q for name in ("x", "z", "centers", "weight", "bank_z")}
    return replace(batch, **turn)


def translated(batch: Batch, seed: int) -> Batch:
    offset = 3 * torch.randn(batch.x.shape[1], generator=generator_of(seed), dtype=torch.float64)
    return replace(batch, **{name: getattr(batch, name) + offset for name in ("x", "centers", "bank_z")})


def scaled(batch: Batch, seed: int) -> Batch:
    factor = 10 ** (4 * torch.rand((), generator=generator_of(seed), dtype=torch.float64) - 2)
    return replace(batch, **{name: getattr(batch, name) * factor for name in ("x", "e", "centers", "weight", "bank_z")})


def rows_scaled(batch: Batch, seed: int) -> Batch:
    factors = 10 ** (4 * torch.rand(*batch.e.shape[:2], 1, generator=generator_of(seed), dtype=torch.float64) - 2)
    return replace(batch, x=batch.x * factors[0], e=batch.e * factors)


def rows_shifted(batch: Batch, seed: int) -> Batch:
    return replace(batch, e=batch.e + torch.randn(*batch.e.shape[:2], 1, generator=generator_of(seed)).double())


def axes_permuted(batch: Batch, seed: int) -> Batch:
    return replace(batch, e=batch.e[..., torch.randperm(batch.e.shape[2], generator=generator_of(seed))])


TRANSFORMS: dict[str, Callable[[Batch, int], Batch]] = {
    "rotation": rotated,
    "translation": translated,
    "scale": scaled,
    "scale_rows": rows_scaled,
    "shift_rows": rows_shifted,
    "axes": axes_permuted,
}


def same_loss(name: str, one: Batch, other: Batch, **keywords) -> None:
    torch.testing.assert_close(LOSSES[name](one, **keywords), LOSSES[name](other, **keywords), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("symmetry", "name"), [(symmetry, name) for symmetry in TRANSFORMS for name in having(symmetry)]
)
@given(data=st.data(), seed=st.integers(0, 2**16))
@repeatable
def test_symmetry(symmetry: str, name: str, data: st.DataObject, seed: int):
    # Two features: below that every row is constant, or a direction is a sign.
    batch = data.draw(batches(min_d=3, even=name == "selfcon"))
    same_loss(name, batch, TRANSFORMS[symmetry](batch, seed))


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "selfcon"])
@given(data=st.data())
@repeatable
def test_order_of_the_samples_does_not_matter(name: str, data: st.DataObject):
    batch = data.draw(batches())
    order = torch.tensor(data.draw(st.permutations(range(len(batch.y)))))
    moved = replace(batch, y=batch.y[order], x=batch.x[order], z=batch.z[order], e=batch.e[:, order])
    value, (gradient, *_) = LOSSES[name].gradients(batch)
    moved_value, (moved_gradient, *_) = LOSSES[name].gradients(moved)
    torch.testing.assert_close(moved_value, value, rtol=1e-9, atol=1e-12)
    rows = -2  # of (n, d) and of (k, n, d) alike
    torch.testing.assert_close(moved_gradient, gradient.index_select(rows, order), rtol=1e-8, atol=1e-10)


@given(data=st.data())
@repeatable
def test_order_of_the_images_does_not_matter_to_selfcon(data: st.DataObject):
    batch = data.draw(batches(even=True))
    images = len(batch.z) // 2
    order = torch.tensor(data.draw(st.permutations(range(images))))
    same_loss("selfcon", batch, replace(batch, z=batch.z[torch.cat([order, order + images])]))
    same_loss("selfcon", batch, replace(batch, z=batch.z.roll(images, 0)))  # the two views change places


@pytest.mark.parametrize("name", LOSSES)
@given(data=st.data())
@repeatable
def test_names_of_the_classes_do_not_matter(name: str, data: st.DataObject):
    batch = data.draw(batches(even=name == "selfcon"))
    new = torch.tensor(data.draw(st.permutations(range(len(batch.centers)))))  # class k is now called new[k]
    old = new.argsort()
    tables = {f: getattr(batch, f)[old] for f in ("centers", "weight", "bias", "class_weights", "difficulty")}
    bank_y = new[batch.bank_y].where(batch.bank_y >= 0, batch.bank_y)
    same_loss(name, batch, replace(batch, y=new[batch.y], bank_y=bank_y, **tables))


@pytest.mark.parametrize("name", ["esc", "ensc"])
@given(data=st.data())
@repeatable
def test_order_of_the_bank_and_its_unfilled_rows_do_not_matter(name: str, data: st.DataObject):
    batch = data.draw(batches())
    order = torch.tensor(data.draw(st.permutations(range(len(batch.bank_y)))))
    same_loss(name, batch, replace(batch, bank_z=batch.bank_z[order], bank_y=batch.bank_y[order]))
    filled = batch.bank_y >= 0
    same_loss(name, batch, replace(batch, bank_z=batch.bank_z[filled], bank_y=batch.bank_y[filled]))


@given(batch=batches())
@repeatable
def test_esc_and_ensc_without_a_bank_are_supcon(batch: Batch):
    empty = replace(batch, bank_z=batch.bank_z[:0], bank_y=batch.bank_y[:0])
    expected = ref.supcon(batch.z, batch.y)
    for loss in (ref.esc, ref.ensc):
        torch.testing.assert_close(loss(batch.z, batch.y), expected)
        torch.testing.assert_close(loss(batch.z, batch.y, empty.bank_z, empty.bank_y), expected)


@given(batch=batches(), s=st.floats(0.1, 10))
@repeatable
def test_laws_of_scale(batch: Batch, s: float):
    # Lengths times s, squared lengths times s²: constants that are squared lengths go along, and so does the loss.
    x, y, c, w = batch.x, batch.y, batch.centers, batch.class_weights
    laws = [
        (ref.center(s * x, y, s * c), s**2 * ref.center(x, y, c)),
        (ref.island(s * x, y, s * c, 10 * s**2), s**2 * ref.island(x, y, c, 10)),
        (
            ref.variant(s * x, y, s * c, 0.4 * s**4, 0.6 * s**4, 0.01 * s**2, 0.01 * s**2),
            s**2 * ref.variant(x, y, c, 0.4, 0.6, 0.01, 0.01),
        ),
        (ref.weighted_cluster(s * x, y, s * c, w, s**2), ref.weighted_cluster(x, y, c, w, 1.0)),
        (ref.range_loss(s * x, y, margin=50 * s**2), s**2 * ref.range_loss(x, y, margin=50)),
        (ref.l_softmax(s * x, y, batch.weight / s), ref.l_softmax(x, y, batch.weight)),
        (ref.a_softmax(x, y, batch.weight * s), ref.a_softmax(x, y, batch.weight)),
        (ref.supcon(s * batch.z, y, 0.1 * s**2), ref.supcon(batch.z, y, 0.1)),
    ]
    for value, expected in laws:
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)


def directions(e: Tensor) -> Tensor:
    """Rows centred and normalised; a constant row becomes zero."""
    centred = e - e.mean(-1, keepdim=True)
    lengths = centred.norm(dim=-1, keepdim=True)
    return centred / lengths.where(lengths > 1e-12, torch.inf)


@pytest.mark.parametrize("constant_row", [False, True])
@given(batch=batches(min_d=3))
@repeatable
def test_fd_is_linear_in_the_correlations(constant_row: bool, batch: Batch):
    # Σ_{i≠j} Ω Φ u_i·u_j = 4 Σ_c w_c ‖s_c‖² - 2 W·U - 2 Σ_i w(y_i) ‖u_i‖², where ‖u_i‖ = 1 but for a constant row.
    e, y, w = batch.e.clone(), batch.y, batch.difficulty
    if constant_row:
        e[:, -1] = 2.5
    n, num_classes = len(y), len(w)
    u = directions(e)
    s = torch.stack([u[:, y == c].sum(1) for c in range(num_classes)], 1)  # (k, C, d)
    crossed = (torch.einsum("c,kcd->kd", w, s) * s.sum(1)).sum()
    diagonal = (w[y] * u.square().sum(-1)).sum()
    linear = 4 * (w * s.square().sum(-1)).sum() - 2 * crossed - 2 * diagonal
    weights = 2 * (n - 1) * w[y].sum() * len(e)  # Σ_{i≠j} Ω_ij for every embedding
    torch.testing.assert_close(ref.fd(e, y, w, "sum"), weights - linear, rtol=1e-12, atol=1e-12)


@given(batch=batches(min_d=3))
@repeatable
def test_md_and_ed_are_the_length_of_a_sum(batch: Batch):
    present = batch.y.unique()
    means = torch.stack([batch.e[:, batch.y == c].mean(1) for c in present], 1)  # (k, present, d)

    def pairs(v: Tensor) -> Tensor:
        count = v.shape[-2]
        sums = v.sum(-2).square().sum(-1) - v.square().sum((-2, -1))
        return (count * (count - 1) + sums).sum()

    md = ref.md(batch.e, batch.y, len(batch.centers), "sum")
    torch.testing.assert_close(md, pairs(directions(means)), rtol=1e-12, atol=1e-12)
    ed = ref.ed(batch.e, "sum")
    torch.testing.assert_close(ed, pairs(directions(batch.e).transpose(0, 1)), rtol=1e-12, atol=1e-12)


def check_mean_center(batch: Batch) -> None:
    """S_i = C‖x-c̄‖² + V - ‖x-c_y‖² and T = 2CV, with c̄ the mean center and V = Σ_j ‖c_j-c̄‖²."""
    x, y, c = batch.x, batch.y, batch.centers
    mean, count = c.mean(0), len(c)
    v = (c - mean).square().sum()
    anti = count * (x - mean).square().sum(-1) + v - (x - c[y]).square().sum(-1)
    torch.testing.assert_close(ref.anti_center_distances(x, y, c), anti, rtol=1e-12, atol=1e-12)
    # λ₁ = 0 and x = c_y leave λ₂ / (ε₂ + T).
    spread_term = ref.variant(c[y], y, c, lambda1=0.0, lambda2=1.0, eps2=1.0)
    torch.testing.assert_close(spread_term, 1 / (1 + 2 * count * v), rtol=1e-12, atol=0)


@given(batch=batches())
@repeatable
def test_anti_center_distances_by_the_mean_center(batch: Batch):
    check_mean_center(batch)


def test_anti_center_distances_by_the_mean_center_of_many_classes():
    check_mean_center(make_batch([0, 1999, 7, 7], num_classes=2000))
    # T needs every pair of centers, S does not.
    batch = make_batch([0, 99_999, 7, 7], num_classes=100_000)
    mean = batch.centers.mean(0)
    total = 100_000 * (batch.x - mean).square().sum(-1) + (batch.centers - mean).square().sum()
    own = (batch.x - batch.centers[batch.y]).square().sum(-1)
    torch.testing.assert_close(ref.anti_center_distances(batch.x, batch.y, batch.centers), total - own)
