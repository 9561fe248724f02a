"""What the blocked engines promise where no tolerance applies: dtypes, cancellation, ties, empty sets, NaN."""

import pytest
import torch
from torch import Tensor

from blocked_cases import (
    AUXILIARIES,
    FLOATS,
    cast,
    draw,
    run_class_table,
    small_tiles,  # noqa: F401
    with_bank,
    with_groups,
)
from fer_fast import reference
from fer_fast.blocked import ad_corre, class_table, contrastive, pairwise, primitives, range_loss, tiles
from fer_fast.terms import CenterTerm, Classifier, Setting

pytestmark = pytest.mark.usefixtures("small_tiles")


@pytest.mark.parametrize("dtype", FLOATS)
def test_dtypes_and_absent_gradients(dtype):
    t = cast({k: v for k, v in draw("ragged", 0).items() if isinstance(v, Tensor)}, dtype)
    x, y, w = t["x"], t["y"], t["class_weights"]
    terms = Classifier("softmax", t["weight"], t["bias"]), CenterTerm("center", t["centers"], None, [0.5])
    calls = (
        lambda wanted: class_table.class_table(x, y, *terms, None, None, "mean", False, wanted),
        lambda wanted: ad_corre.ad_corre(x.expand(2, -1, -1), y, w, len(w), 1.0, 1.0, 1.0, None, "mean", wanted),
        lambda wanted: pairwise.pairwise(x, y, None, "marginal", [1.2, 0.3], True, wanted),
        lambda wanted: range_loss.range_loss(x, y, 2, 1.0, 1.0, 1.0, wanted),
        lambda wanted: contrastive.contrastive(x, y, None, None, Setting(0.1), "supcon", None, "mean", wanted),
    )
    for call in calls:
        (loss, *gradients), (alone, *absent) = call(True), call(False)
        assert loss.dtype == alone.dtype == tiles.work_dtype(x)
        assert loss.shape == ()
        torch.testing.assert_close(alone, loss)
        assert all(none.shape == (0,) for none in absent)
        assert [g.dtype for g in gradients] == [none.dtype for none in absent]
        assert gradients[0].dtype == tiles.gradient_dtype(x)


def test_the_distance_from_other_centers_does_not_cancel():
    """Near the other of two centers, far from both, and with 100 000 centers: S as the sum over centers gives it."""
    generator = torch.Generator().manual_seed(0)
    for num_classes, offset, noise in ((2, 0.0, 1e-3), (2, 1e3, 1e-3), (3, 1e3, 1.0), (100_000, 10.0, 1.0)):
        centers = torch.randn(num_classes, 6, generator=generator) + offset
        y = torch.randint(num_classes, (9,), generator=generator)
        x = centers[(y + 1) % num_classes] + noise * torch.randn(9, 6, generator=generator)
        truth = reference.anti_center_distances(x.double(), y, centers.double())
        actual = primitives.anti_center_distances(x, y, centers)
        torch.testing.assert_close(actual.double(), truth, rtol=1e-6, atol=0.0)
        exact = primitives.anti_center_distances(x.double(), y, centers.double())
        torch.testing.assert_close(exact, truth, rtol=1e-9, atol=0.0)
    at_the_other = primitives.anti_center_distances(centers[:2], torch.tensor([1, 0]), centers[:2])
    assert (at_the_other < 1e-12).all()


@pytest.mark.parametrize("auxiliary", ["center", "weighted-cluster", "affinity", "mva"])
def test_a_class_absent_from_the_batch_keeps_its_center_to_the_bit(auxiliary):
    t = with_groups(draw("absent classes", 0))
    before, after = t["centers"], run_class_table(t, "", auxiliary, True)["centers"]
    absent = torch.ones(len(before), dtype=torch.bool).index_fill_(0, t["y"], False)
    assert absent.any()
    assert torch.equal(before[absent], after[absent])
    assert not torch.equal(before, after)
    assert torch.equal(before, run_class_table(t, "", auxiliary, True, update=False)["centers"])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("mode", ["esc", "ensc"])
def test_a_bad_bank_row_is_never_a_finite_loss(mode, value):
    t = with_bank(draw("ragged", 0), "ragged", 0)
    t["bank_z"][t["bank_y"] >= 0] = t["bank_z"][t["bank_y"] >= 0].index_fill(0, torch.tensor([3]), value)
    loss, *_ = contrastive.contrastive(t["z"], t["y"], t["bank_z"], t["bank_y"], Setting(0.1), mode, None, "mean", True)
    assert not loss.isfinite()


def test_a_row_alone_has_an_empty_denominator():
    z, y = torch.ones(1, 3), torch.zeros(1, dtype=torch.int64)
    unfilled = (torch.full((5, 3), torch.nan), torch.full((5,), -1))
    for bank in ((None, None), (z[:0], y[:0]), unfilled, (z.expand(4, 3), y.expand(4))):
        log_denominator = contrastive.log_denominator(z, y, *bank, Setting(0.1), "ensc")
        assert torch.equal(log_denominator, torch.tensor([-torch.inf]))
        loss, dz, _ = contrastive.contrastive(z, y, *bank, Setting(0.1), "ensc", None, "mean", True)
        assert loss == 0
        assert torch.equal(dz, torch.zeros(1, 3))


def test_of_equal_distances_the_first_pair_counts():
    """A square and its center twice: both diagonals are widest; with k = 1 the gradient belongs to rows 0 and 3."""
    x = torch.tensor([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 2.0], [1.0, 1.0], [1.0, 1.0]])
    y = torch.zeros(6, dtype=torch.int64)
    _, dx = range_loss.range_loss(x, y, 1, 1.0, 0.0, 0.0, True)
    assert torch.equal(dx.abs().sum(1) > 0, torch.tensor([True, False, False, True, False, False]))


@pytest.mark.parametrize("shape", ["ragged", "absent classes"])
@pytest.mark.parametrize(
    ("dtype", "factor"), [(torch.float32, torch.nan), (torch.float32, torch.inf), (torch.float16, 1e6)]
)
@pytest.mark.parametrize("auxiliary", [name for name in AUXILIARIES if name])
def test_a_class_whose_sums_are_not_finite_keeps_its_center(auxiliary, dtype, factor, shape):
    """NaN, inf, and what overflowed in float16, in a row: its class stays, to the bit, and others move as without it.

    The variant loss pushes every center by every row: there all of them stay.
    """
    t = cast({k: v for k, v in with_groups(draw(shape, 0)).items() if isinstance(v, Tensor)}, dtype)
    clean = run_class_table(t, "", auxiliary, True)["centers"]
    spoilt = t | {"x": t["x"].clone()}
    spoilt["x"][4] *= factor
    assert not spoilt["x"][4].isfinite().all()
    result = run_class_table(spoilt, "", auxiliary, True)
    stays = (torch.arange(len(clean)) == t["y"][4]) | (auxiliary == "variant")
    assert torch.equal(result["centers"], torch.where(stays[:, None], t["centers"], clean))
    assert not torch.equal(clean[stays], t["centers"][stays])
    assert not result["value"].isfinite()


@pytest.mark.parametrize("length", [1.0, -1.0])
@pytest.mark.parametrize("dtype", FLOATS)
def test_rows_along_their_class_weight_pass_a_finite_gradient(dtype, length):
    t = with_groups(cast({k: v for k, v in draw("ragged", 0).items() if isinstance(v, Tensor)}, dtype))
    steps = length * torch.arange(1, len(t["y"]) + 1).to(t["weight"])[:, None]  # each length is rounded in its own way
    weight = t["weight"][:1].expand_as(t["weight"])  # other classes are as near
    t |= {"weight": weight, "x": (steps * weight[t["y"]]).to(dtype)}
    got = run_class_table(t, "arcface", "", mean=False)
    turning = (got["dx"].double() * t["x"].double().norm(dim=1, keepdim=True)).norm(dim=1)
    assert turning.max() < 128  # 2s
    assert got["dweight"].isfinite().all()
