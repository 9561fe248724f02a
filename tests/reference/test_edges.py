"""The reference on hostile inputs: nothing to compare, no direction, duplicates, extreme or broken numbers, strides."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fer_fast import reference as ref
from strategies import LOSSES, Batch, batches, combinations, make_batch, repeatable

CORRELATION = ("nfd", "fd", "md", "ed", "ad_corre")
PAIRWISE = [name for name, loss in LOSSES.items() if loss.pairwise]
TWO_ROWS = {"selfcon"}  # one image, two views
OF_X = [name for name, loss in LOSSES.items() if loss.features == "x"]


def finite(name: str, batch: Batch, **keywords) -> tuple[Tensor, Tensor]:
    value, (gradient, *others) = LOSSES[name].gradients(batch, **keywords)
    assert value.isfinite(), value
    assert all(g.isfinite().all() for g in (gradient, *others))
    return value, gradient


@pytest.mark.parametrize(("name", "keywords"), combinations())
def test_one_sample(name: str, keywords: dict):
    batch = make_batch([1] * (2 if name in TWO_ROWS else 1), num_classes=3, k=1 if name == "ed" else 2)
    value, gradient = finite(name, batch, **keywords)
    if LOSSES[name].pairwise or name == "ed":
        assert value == 0
        assert gradient.eq(0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_one_class_of_one(name: str):
    loss = LOSSES[name]
    finite(name, make_batch([0] * 4, num_classes=loss.min_classes))


@pytest.mark.parametrize("name", ["supcon", "esc", "ensc"])
@pytest.mark.parametrize("keywords", [{"reduction": "mean"}, {"reduction": "sum"}])
def test_no_anchor_has_a_positive(name: str, keywords: dict):
    value, gradient = finite(name, make_batch([0, 1, 2, 3], num_classes=4), **keywords)
    assert value == 0
    assert gradient.eq(0).all()


def test_nothing_within_or_between_the_classes_of_range_loss():
    x = torch.randn(4, 3, requires_grad=True)
    within = ref.range_loss(x, torch.zeros(4, dtype=torch.long), beta=1e6)
    between = ref.range_loss(x, torch.arange(4), alpha=1e6)
    assert within == ref.range_loss(x, torch.zeros(4, dtype=torch.long), beta=0.0)
    assert between == ref.range_loss(x, torch.arange(4), alpha=0.0)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_anchors_without_a_positive_are_not_counted(reduction: str):
    z = torch.nn.functional.normalize(
        torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), dim=1
    )
    y = torch.tensor([0, 0, 1])
    log_d = ref.contrastive_log_denominator(z, y, None, None, 0.1, "supcon")
    anchors = (log_d[:2] - (z[0] @ z[1]) / 0.1).sum()
    expected = anchors / 2 if reduction == "mean" else anchors
    torch.testing.assert_close(ref.supcon(z, y, 0.1, reduction), expected)


@pytest.mark.parametrize("name", LOSSES)
@given(data=st.data())
@repeatable
def test_duplicate_rows_are_finite(name: str, data: st.DataObject):
    batch = data.draw(batches(even=name in TWO_ROWS, dtype=data.draw(st.sampled_from([torch.float32, torch.float64]))))
    again = torch.tensor(
        data.draw(st.lists(st.integers(0, len(batch.y) - 1), min_size=len(batch.y), max_size=len(batch.y)))
    )
    finite(name, replace(batch, x=batch.x[again], z=batch.z[again], e=batch.e[:, again]))


def test_a_duplicate_pair_among_the_widest_adds_nothing_to_range_loss():
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0], [4.0, 6.0]], requires_grad=True)
    value = ref.range_loss(x, torch.zeros(3, dtype=torch.long), k=3, alpha=1.0)
    value.backward()
    assert value == 0
    assert x.grad.eq(0).all()
    # Of the two widest, both 25, none is the duplicate.
    assert ref.range_loss(x, torch.zeros(3, dtype=torch.long), k=2, alpha=1.0).item() == pytest.approx(25)


@pytest.mark.parametrize("exponent", [-60, -40, 40, 60])
def test_range_loss_of_near_and_far_points(exponent: int):
    # 1/D and 1/D² of float32 overflow long before D is 0. The loss goes with the square of the scale.
    x, y = make_batch([0, 0, 0, 1, 1, 1, 1], 2, dtype=torch.float32).x, torch.tensor([0, 0, 0, 1, 1, 1, 1])

    def of(x: Tensor) -> tuple[Tensor, Tensor]:
        leaf = x.clone().requires_grad_()
        value = ref.range_loss(leaf, y, k=3, alpha=1.0, beta=0.0)
        return value.detach(), torch.autograd.grad(value, leaf)[0]

    value, gradient = of(x)
    scaled_value, scaled_gradient = of(x * 2.0**exponent)
    torch.testing.assert_close(scaled_value * 2.0**-exponent * 2.0**-exponent, value, rtol=1e-6, atol=0)
    torch.testing.assert_close(scaled_gradient * 2.0**-exponent, gradient, rtol=1e-5, atol=1e-6)


def test_zero_rows_have_no_direction():
    batch = make_batch([0, 1, 1, 2], num_classes=3)
    batch.x[1] = 0
    for name in ("lmcl", "arcface", "marginal"):
        _, gradient = finite(name, batch)
        assert gradient[1].eq(0).all()
        assert gradient[0].ne(0).any()
    for name in OF_X:
        finite(name, batch)
    # Its cosines are 0: logits -s·m and, for each other class, 0.
    value = ref.lmcl(batch.x[1:2], batch.y[1:2], batch.weight, s=10.0, m=0.3)
    assert value.item() == pytest.approx(math.log(1 + 2 * math.exp(3.0)), rel=1e-12)
    # ‖x̂‖² = 0: at squared distance 1 from any direction, so .3 - (1.2 - 1) = .1 from its own class.
    pair = batch.x[1:3], torch.tensor([1, 1])
    assert ref.marginal(*pair).item() == pytest.approx(0.1, rel=1e-12)


def test_zero_weights_have_no_direction():
    batch = make_batch([0, 1, 1, 2], num_classes=3)
    batch.weight[2] = 0
    for name in ("lmcl", "arcface", "a_softmax"):
        loss = LOSSES[name]
        _, (_, gradient) = loss.gradients(batch)
        assert gradient[2].eq(0).all()
    for name in ("softmax", "weighted_softmax", "l_softmax"):
        finite(name, batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [2.0, -2.0])
def test_rows_along_their_class_weight_pass_a_finite_gradient(dtype: torch.dtype, length: float):
    batch = make_batch([0, 1, 2] * 20, num_classes=3, dtype=dtype)
    _, gradient = finite("arcface", replace(batch, x=length * batch.weight[batch.y]), reduction="sum")
    assert gradient.abs().max() < 128  # 2s


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("constant", [0.0, 0.1, -1e30])
def test_constant_rows_correlate_with_nothing(dtype: torch.dtype, constant: float):
    # Seven of them: their mean is rounded away from 0.1 and -1e30, so a row less its mean is not 0.
    batch = make_batch([0, 0, 1, 2], num_classes=3, d=7, dtype=dtype)
    batch.e[:, 1] = constant
    matrix = ref.correlation_matrix(batch.e[0])
    assert matrix[1].eq(0).all()
    assert matrix[:, 1].eq(0).all()
    torch.testing.assert_close(matrix[[0, 2, 3], [0, 2, 3]], torch.ones(3, dtype=dtype))
    for name in CORRELATION:
        _, gradient = finite(name, batch)
        if name in ("nfd", "fd", "ed"):
            assert gradient[:, 1].eq(0).all()
            assert gradient[:, 0].ne(0).any()


def test_one_feature_is_a_constant_row():
    batch = make_batch([0, 0, 1], num_classes=2, d=1, k=1)
    value, gradient = finite("nfd", batch, reduction="sum")
    assert value == 6  # |±1 - 0| for each of six ordered pairs
    assert gradient.eq(0).all()


def test_a_large_offset_costs_correlation_no_digits():
    x = 4 * make_batch([0] * 6, 1, d=9, dtype=torch.float32).x + 2**20  # in steps of an eighth
    torch.testing.assert_close(
        ref.correlation_matrix(x).double(), ref.correlation_matrix(x.double()), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("name", ["lmcl", "arcface", "marginal", *CORRELATION])
@pytest.mark.parametrize("exponent", [-100, 100])  # 8e-31, 1e30
def test_extreme_magnitudes_change_nothing(name: str, exponent: int):
    batch = make_batch([0, 1, 0, 2, 2], num_classes=4, dtype=torch.float32)
    s = 2.0**exponent
    value, (gradient, *_) = LOSSES[name].gradients(batch)
    far, (far_gradient, *_) = LOSSES[name].gradients(
        replace(batch, x=s * batch.x, e=s * batch.e, weight=s * batch.weight)
    )
    assert torch.equal(far, value)  # a power of two rounds nothing
    torch.testing.assert_close(far_gradient * s, gradient, rtol=1e-5, atol=1e-7)


def test_extreme_magnitudes_in_one_batch():
    magnitudes = torch.tensor([1e30, 1e-30, 1.0, 1e15, 1e-15])[:, None]
    batch = make_batch([0, 1, 0, 2, 2], num_classes=3, dtype=torch.float32)
    batch = replace(batch, x=batch.x * magnitudes, e=batch.e * magnitudes)
    wide = batch.map(torch.Tensor.double)
    for name in ("lmcl", "arcface", "marginal", "nfd", "fd"):
        value, _ = finite(name, batch)
        torch.testing.assert_close(value.double(), LOSSES[name](wide), rtol=1e-5, atol=1e-5)
    row = torch.tensor([[1e30, 1e-30, 3.0], [1.0, 2.0, 4.0]])  # one row spans every magnitude
    torch.testing.assert_close(
        ref.correlation_matrix(row).double(), ref.correlation_matrix(row.double()), rtol=0, atol=1e-6
    )


# Squared distances and their quotients: an infinite row is infinitely far, and the formula says so.
INFINITE = {"center", "island", "variant", "weighted_cluster", "affinity"}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("row", range(6))
@pytest.mark.parametrize("whole", [True, False], ids=["row", "entry"])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_broken_row_reaches_the_loss(name: str, row: int, whole: bool, broken: float):
    loss = LOSSES[name]
    batch = make_batch([0, 1, 2, 0, 1, 2], num_classes=4, dtype=torch.float32)  # every row has a positive
    features = getattr(batch, loss.features)
    rows = features[0] if features.ndim == 3 else features
    rows[row, slice(None) if whole else 1] = broken
    for keywords in ({"reduction": reduction} for reduction in loss.reductions):
        value = loss(batch, **keywords)
        assert value == math.inf if name in INFINITE and math.isinf(broken) else value.isnan(), value


@pytest.mark.parametrize("name", LOSSES)
def test_nan_row_alone_in_its_class_reaches_the_loss(name: str):
    batch = make_batch([0, 1, 1, 2, 2, 3], num_classes=4, dtype=torch.float32)
    batch.x[0] = batch.z[0] = batch.e[:, 0] = math.nan
    assert LOSSES[name](batch).isnan()


@pytest.mark.parametrize("name", ["supcon", "esc", "ensc"])
def test_infinite_key_cannot_hide_behind_a_logit_of_minus_infinity(name: str):
    batch = make_batch([0, 1, 1, 2, 2], num_classes=3)
    z = batch.z.abs()
    z[0, 0] = -math.inf  # e^{-inf} would leave it out of every denominator but its own
    assert LOSSES[name](replace(batch, z=z)).isnan()


@pytest.mark.parametrize("name", [name for name in OF_X if name not in PAIRWISE])
def test_broken_parameters_reach_the_loss(name: str):
    batch = make_batch([0, 1, 1], num_classes=3, dtype=torch.float32)
    table = batch.weight if "weight" in LOSSES[name].differentiable else batch.centers
    table[1, 0] = math.nan
    assert LOSSES[name](batch).isnan()


def test_infinite_row_cannot_hide_in_range_loss():
    # Alone in its class, or one of three distances of which two are infinite: the others would give a finite loss.
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    x[0] = math.inf
    assert ref.range_loss(x, torch.tensor([0, 1, 1, 2, 2])).isnan()
    assert ref.range_loss(x, torch.tensor([0, 0, 0, 1, 2]), k=3).isnan()


@pytest.mark.parametrize("name", LOSSES)
def test_strides_do_not_matter(name: str):
    loss = LOSSES[name]
    batch = make_batch([0, 1, 0, 2, 1, 1], num_classes=3)
    value, gradients = loss.gradients(batch)

    def strided(t: Tensor) -> Tensor:
        return torch.stack([t, t], -1)[..., 0].mT.contiguous().mT if t.ndim > 1 else torch.stack([t, t], -1)[..., 0]

    other = replace(batch.map(strided), y=strided(batch.y), bank_y=strided(batch.bank_y))
    other_value, other_gradients = loss.gradients(other)
    torch.testing.assert_close(other_value, value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(other_gradients, gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_expanded_rows_are_rows(name: str):
    batch = make_batch([0, 1, 0, 0], num_classes=2, k=3)
    same = {"x": batch.x[:1].expand(4, -1), "z": batch.z[:1].expand(4, -1), "e": batch.e[:, :1].expand(-1, 4, -1)}
    expanded = replace(batch, **same, y=torch.zeros((), dtype=torch.long).expand(4))
    torch.testing.assert_close(LOSSES[name](expanded), LOSSES[name](expanded.map(Tensor.contiguous)), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "keywords"), combinations())
def test_loss_is_a_scalar_of_the_accumulating_dtype(name: str, keywords: dict):
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        batch = make_batch([0, 1, 0, 2, 1, 1], num_classes=3, dtype=dtype)
        value, gradients = LOSSES[name].gradients(batch, **keywords)
        assert value.shape == ()
        assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert all(gradient.dtype == dtype for gradient in gradients)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_close_to_float64_of_the_same_inputs(name: str, dtype: torch.dtype):
    batch = make_batch([0, 1, 0, 2, 1, 1], num_classes=3, d=16, dtype=dtype)
    wide = batch.map(Tensor.double)
    # Inputs are widened before any arithmetic, but for the products of matrices that give logits: they round to the
    # inputs' dtype, and a cross-entropy moves by at most twice what its largest logit was rounded by.
    largest = 0.0
    if name in ("softmax", "weighted_softmax", "softmax_no_bias"):
        largest = ref.softmax_logits(wide.x, wide.weight, wide.bias).abs().max().item()
    elif LOSSES[name].features == "z":
        largest = 1 / 0.1  # unit rows over τ
    rounding = 2 * largest * torch.finfo(dtype).eps / 2
    value, expected = LOSSES[name](batch).double(), LOSSES[name](wide)
    torch.testing.assert_close(value, expected, rtol=2e-6, atol=1e-6 + rounding)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_keeps_the_loss_in_float32(name: str, dtype: torch.dtype):
    batch = make_batch([0, 1, 0, 2, 1, 1], num_classes=3, dtype=torch.float32)
    with torch.autocast("cpu", dtype):
        value, gradients = LOSSES[name].gradients(batch)
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)
