"""Sample weights, label smoothing, soft labels, losses of single rows: against PyTorch, and against their meaning."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from fer_fast import reference as ref
from strategies import LOSSES, make_batch

BATCH = make_batch([0, 2, 1, 1, 3, 0, 2], 4, seed=3)
CLASSIFIERS = ["softmax", "weighted_softmax", "lmcl", "arcface", "a_softmax", "l_softmax"]
CENTERS = {
    "center": ref.center_update,
    "island": ref.island_update,
    "variant": ref.variant_update,
    "weighted_cluster": ref.weighted_cluster_update,
    "affinity": ref.center_update,
    "mva": ref.center_update,
}
BY_ROW = [*CLASSIFIERS, "center", "weighted_cluster", "affinity", "ed"]
WEIGHTS = torch.tensor([1.0, 2.0, 0.0, 3.0, 1.0, 0.0, 2.0], dtype=torch.float64)
reductions = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def shares(n: int, num_classes: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, num_classes, generator=generator, dtype=torch.float64).softmax(1)


@reductions
@pytest.mark.parametrize("class_weights", [None, BATCH.class_weights])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("y", [BATCH.y, shares(7, 4)], ids=["hard", "soft"])
def test_softmax_is_pytorchs_cross_entropy(y, label_smoothing, class_weights, reduction):
    logits = torch.nn.functional.linear(BATCH.x, BATCH.weight, BATCH.bias)
    expected = cross_entropy(logits, y, class_weights, label_smoothing=label_smoothing, reduction=reduction)
    given = BATCH.x, y, BATCH.weight, BATCH.bias, class_weights, reduction
    torch.testing.assert_close(ref.softmax(*given, label_smoothing=label_smoothing), expected)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_shares_of_one_class_are_that_class(name, label_smoothing):
    soft = replace(BATCH, y=one_hot(BATCH.y, 4).double())
    how = {"reduction": "sum", "label_smoothing": label_smoothing}
    for a, b in zip(*(flat(LOSSES[name].gradients(batch, **how)) for batch in (BATCH, soft)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["lmcl", "arcface", "a_softmax", "l_softmax"])
def test_mixed_labels_have_no_margin(name):
    mixed = shares(7, 4)
    logits = {"lmcl": ref.lmcl_logits, "arcface": partial(ref.lmcl_logits, s=64.0), "a_softmax": ref.a_softmax_logits}
    logits = logits.get(name, ref.softmax_logits)(BATCH.x, BATCH.weight)
    loss = getattr(ref, name)(BATCH.x, mixed, BATCH.weight)
    torch.testing.assert_close(loss, cross_entropy(logits, mixed))


def repeated(batch, weights):
    """A batch whose rows stand as often as they weigh."""
    places = torch.arange(len(batch.y)).repeat_interleave(weights.long())
    return replace(batch, x=batch.x[places], e=batch.e[:, places], y=batch.y[places]), places


def flat(result) -> list:
    loss, gradients = result
    return [loss, *gradients]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", [*CLASSIFIERS, *CENTERS, "ed"])
def test_a_row_counts_as_often_as_it_weighs(name, reduction):
    loss, absent = LOSSES[name], (WEIGHTS == 0)[:, None]
    many, places = repeated(BATCH, WEIGHTS)
    spoilt = replace(BATCH, x=BATCH.x.masked_fill(absent, torch.nan), e=BATCH.e.masked_fill(absent, torch.nan))
    value, gradients = loss.gradients(spoilt, reduction=reduction, sample_weights=WEIGHTS)
    expected, of_many = loss.gradients(many, reduction=reduction)
    dx = torch.zeros_like(gradients[0]).index_add_(-2, places, of_many[0])
    for a, b in zip((value, *gradients), (expected, dx, *of_many[1:]), strict=True):
        torch.testing.assert_close(a, b)
    if update := CENTERS.get(name):
        moved = update(spoilt.x, BATCH.y, BATCH.centers, sample_weights=WEIGHTS)
        torch.testing.assert_close(moved, update(many.x, many.y, BATCH.centers))


@pytest.mark.parametrize("name", BY_ROW)
def test_losses_of_single_rows_add_up(name):
    loss, how = LOSSES[name], {"sample_weights": WEIGHTS}
    rows = loss(BATCH, reduction="none", **how)
    assert rows.shape == (7,)
    assert rows[WEIGHTS == 0].eq(0).all()
    torch.testing.assert_close(rows.sum(), loss(BATCH, reduction="sum", **how))


@pytest.mark.parametrize("name", [*CLASSIFIERS, *CENTERS, "ed"])
def test_where_nothing_weighs_anything_the_mean_over_rows_is_zero(name):
    with_rows = LOSSES[name].gradients(BATCH, sample_weights=torch.zeros(7))
    assert all(g.eq(0).all() for g in with_rows[1])
    if name not in ("island", "variant"):  # which have a term over centers alone
        assert with_rows[0] == 0


@pytest.mark.parametrize("how", [{"label_smoothing": 0.2}, {"sample_weights": WEIGHTS}, {"reduction": "none"}])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_gradients_of_options(name, how):
    def value(x, weight):
        return LOSSES[name](replace(BATCH, x=x, weight=weight), **how)

    torch.autograd.gradcheck(value, (BATCH.x.clone().requires_grad_(), BATCH.weight.clone().requires_grad_()))


@pytest.mark.parametrize("how", [{"sample_weights": WEIGHTS}, {"reduction": "none"}])
def test_gradients_of_embeddings(how):
    assert torch.autograd.gradcheck(lambda e: ref.ed(e, **how), (BATCH.e.clone().requires_grad_(),))


def test_losses_of_rows_of_embeddings_have_no_divisor():
    rows = ref.ed(BATCH.e, "none")
    alone = [ref.ed(BATCH.e[:, i : i + 1], "sum") for i in range(7)]
    torch.testing.assert_close(rows, torch.stack(alone))
    torch.testing.assert_close(ref.ed(BATCH.e), rows.mean() / len(BATCH.e) ** 2)


@pytest.mark.parametrize("loss", [ref.lmcl, ref.arcface])
def test_a_scale_that_is_learnt(loss):
    s = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda s: loss(BATCH.x, BATCH.y, BATCH.weight, s, label_smoothing=0.1), (s,))
