"""The Ad-Corre engine's kernels against the printed pairwise form."""

import pytest
import torch
from fer_fast.kernels.ad_corre import launch as engine

from fer_fast import reference
from triton_cases import DEVICE, DTYPES, errors, poisoned

TERMS = {"all": (1.0, 1.0, 1.0), "fd": (0.5, 0.0, 0.0), "md": (0.0, 2.0, 0.0), "ed": (0.0, 0.0, 0.5)}
# k, n, C, d and what is special about the rows.
SHAPES = {
    "ragged": (3, 34, 5, 19, ""),
    "one embedding": (1, 2, 3, 8, ""),
    "seven embeddings": (7, 13, 7, 40, ""),
    "one class": (2, 18, 4, 33, "one class"),
    "one row": (3, 1, 2, 5, ""),
    "constant rows": (3, 20, 4, 17, "constant"),
    "clusters": (2, 100, 3, 16, "clusters"),
    "chunks of columns": (2, 20, 3, 300, ""),
}


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    monkeypatch.setattr(engine, "_empty", poisoned)


def inputs(k, n, num_classes, d, kind, dtype):
    g = torch.Generator().manual_seed(0)
    y = torch.randint(num_classes, (n,), generator=g)
    e = torch.randn(k, n, d, generator=g)
    if kind == "one class":
        y = torch.full_like(y, num_classes - 1)
    if kind == "constant":
        e[:, 3], e[0, 5] = 0.1, 0.0  # a sum of 0.1 rounds, and so would a mean of it
        e[1] *= 1e-3
        e[2] += 3
    if kind == "clusters":
        e = (torch.randn(1, num_classes, d, generator=g)[:, y] + 1e-3 * e[:1]).expand(k, n, d)
    return e.to(DEVICE, dtype), y.to(DEVICE), torch.rand(num_classes, generator=g).to(DEVICE)


def expected(e, y, w, terms, reduction):
    fd, md, ed = terms
    e = e.detach().clone().requires_grad_()
    loss = fd * reference.fd(e, y, w, reduction) if fd else 0
    loss = loss + md * reference.md(e, y, len(w), reduction) if md else loss
    loss = loss + ed * reference.ed(e, reduction) if ed else loss
    loss.backward()
    return {"loss": loss.detach(), "de": e.grad}


def launch(e, y, w, terms, reduction="mean", gradient=True, status=None, weights=None):
    out = engine.ad_corre(e, y, w if terms[0] else None, len(w), *terms, weights, reduction, gradient, status)
    return dict(zip(("loss", "de"), out, strict=True))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("terms", TERMS)
def test_against_the_pairwise_form(terms, shape, dtype, reduction):
    e, y, w = inputs(*SHAPES[shape], dtype)
    truth = expected(e.double(), y, w.double(), TERMS[terms], reduction)
    with torch.autocast(DEVICE, dtype, enabled=dtype != torch.float32):
        plain = expected(e, y, w, TERMS[terms], reduction)
    assert not errors(launch(e, y, w, TERMS[terms], reduction), plain, truth)


@pytest.mark.parametrize(("dtype", "offset"), [(torch.float32, 1000), (torch.float16, 30)])
def test_a_large_offset_costs_no_digits(dtype, offset):
    e, y, w = inputs(2, 20, 3, 24, "", dtype)
    e += offset
    truth = expected(e.double(), y, w.double(), TERMS["all"], "mean")
    assert not errors(launch(e, y, w, TERMS["all"]), expected(e, y, w, TERMS["all"], "mean"), truth)


@pytest.mark.parametrize("length", [1e-12, 1e12])
@pytest.mark.parametrize("terms", TERMS)
def test_rows_of_extreme_length(terms, length):
    e, y, w = inputs(3, 20, 3, 24, "", torch.float32)
    e *= length / 24**0.5
    truth = expected(e.double(), y, w.double(), TERMS[terms], "mean")
    assert not errors(launch(e, y, w, TERMS[terms]), expected(e, y, w, TERMS[terms], "mean"), truth)


def test_rows_too_long_to_square_make_the_loss_nan():
    e, y, w = inputs(3, 20, 3, 24, "", torch.float32)
    e[1, 4] *= 1e20
    assert launch(e, y, w, TERMS["all"])["loss"].isnan()


@pytest.mark.parametrize("terms", TERMS)
def test_sums_of_many_programs(terms, monkeypatch):
    monkeypatch.setattr(engine, "max_programs", lambda device: 40)
    e, y, w = inputs(2, 16 * 80 + 5, 3, 16, "", torch.float32)
    truth = expected(e.double(), y, w.double(), TERMS[terms], "mean")
    found, again = (launch(e, y, w, TERMS[terms]) for _ in range(2))
    assert not errors(found, expected(e, y, w, TERMS[terms], "mean"), truth)
    assert all(torch.equal(found[name], again[name]) for name in found)


@pytest.mark.parametrize("terms", TERMS)
def test_the_value_alone(terms):
    e, y, w = inputs(3, 34, 5, 19, "", torch.float32)
    value = launch(e, y, w, TERMS[terms], gradient=False)
    assert torch.equal(value["loss"], launch(e, y, w, TERMS[terms])["loss"])
    assert value["de"].shape == (0,)


@pytest.mark.parametrize("label", [-1, 5, 2**40])
@pytest.mark.parametrize("terms", ["all", "fd", "md"])
def test_a_label_out_of_range_is_reported(terms, label):
    e, y, w = inputs(3, 34, 5, 19, "", torch.float32)
    status = torch.full((1,), torch.iinfo(torch.int64).min)
    y[20] = label
    assert launch(e, y, w, TERMS[terms], status=status)["loss"].isnan()
    assert status.item() == label


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("terms", TERMS)
def test_a_bad_row_reaches_the_loss(terms, value):
    e, y, w = inputs(3, 10, 5, 19, "", torch.float32)
    e[1, 4, 2] = value
    assert not torch.isfinite(launch(e, y, w, TERMS[terms])["loss"])


def test_same_bits_every_run_and_any_strides():
    e, y, w = inputs(3, 70, 5, 19, "", torch.float32)
    first = launch(e, y, w, TERMS["all"])
    for same in (e, e.mT.contiguous().mT, e.transpose(0, 1).contiguous().transpose(0, 1)):
        again = launch(same, y, w, TERMS["all"])
        assert all(torch.equal(first[name], again[name]) for name in first)
    expanded = e[:, :1].expand(e.shape)
    zero_stride, solid = launch(expanded, y, w, TERMS["all"]), launch(expanded.contiguous(), y, w, TERMS["all"])
    assert all(torch.equal(zero_stride[name], solid[name]) for name in solid)


def test_labels_of_32_bits():
    e, y, w = inputs(3, 34, 5, 19, "", torch.float32)
    wide, narrow = launch(e, y, w, TERMS["all"]), launch(e, y.int(), w, TERMS["all"])
    assert all(torch.equal(wide[name], narrow[name]) for name in wide)


@pytest.mark.parametrize("programs", [1, 4])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", ["ragged", "seven embeddings", "one row", "constant rows"])
def test_weights_of_rows(shape, reduction, programs, monkeypatch):
    monkeypatch.setattr(engine, "max_programs", lambda device: programs)
    e, y, w = inputs(*SHAPES[shape], torch.float32)
    weights = (torch.arange(len(y), device=DEVICE) + 1) % 3 / 2
    e[:, weights == 0] = torch.nan

    def formula(e):
        e = e.clone().requires_grad_()
        loss = reference.ed(e, reduction, weights.to(e))
        return {"loss": loss.detach(), "de": torch.autograd.grad(loss.sum(), e)[0]}

    got = launch(e, y, w, (0.0, 0.0, 1.0), reduction, weights=weights)
    assert not errors(got, formula(e), formula(e.double()))


def test_what_does_not_fit_one_program_is_refused():
    with pytest.raises(NotImplementedError):
        launch(torch.zeros(2, 3, 2048), torch.zeros(3, dtype=torch.int64), torch.ones(7), TERMS["all"])
    with pytest.raises(NotImplementedError):
        launch(torch.zeros(2, 3, 8).double(), torch.zeros(3, dtype=torch.int64), torch.ones(7), TERMS["all"])
    with pytest.raises(NotImplementedError):
        launch(torch.zeros(17, 3, 8), torch.zeros(3, dtype=torch.int64), torch.ones(7), TERMS["all"])
