"""Centers of many classes, or of wide features: the kernels in the interpreter where there is no GPU."""

from collections import Counter

import pytest
import torch
from fer_fast.kernels.host.launch import gradient_dtype, start
from fer_fast.kernels.large_centers import launch as engine
from fer_fast.reference import VariantParams, anti_center_distances

from cases import assert_within_budget
from fer_fast.terms import CenterTerm
from triton_cases import AUXILIARIES, DTYPES, INTERPRETED, double, expected, inputs, poisoned

SCALE = 0.3
INT64_MIN = torch.iinfo(torch.int64).min
PLAIN_DRAWS = 4  # of plain PyTorch, which by one may be lucky


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    monkeypatch.setattr(engine, "_empty", poisoned)


def launch(auxiliary, t, reduction="mean", update=True, gradient=True, status=None, run=start) -> dict:
    """The engine's results by name; the centers given are left as they are."""
    centers, mva = t["centers"].clone(), auxiliary == "mva"
    name, groups = auxiliary.removesuffix("-paper"), t["groups"] if mva else []
    term = CenterTerm(
        name,
        centers,
        t["center_weights"] if name == "weighted-cluster" else None,
        AUXILIARIES[auxiliary],
        SCALE,
        [x for x, _ in groups],
        [y for _, y in groups],
    )
    loss, dx = engine.large_centers(t["x"], t["y"], term, None, reduction, update, gradient, status, run)
    return {"loss": loss, "dx": dx, "centers": centers}


def check(auxiliary, make, reduction="mean"):
    """`make(seed)` draws inputs; the first is computed."""
    draws = [make(seed) for seed in range(PLAIN_DRAWS)]
    dtype = draws[0]["x"].dtype
    truth = [expected("", auxiliary, double(t), SCALE, reduction) for t in draws]
    with torch.autocast(draws[0]["x"].device.type, dtype, enabled=dtype != torch.float32):
        plain = [expected("", auxiliary, t, SCALE, reduction) for t in draws]
    got = launch(auxiliary, draws[0], reduction)
    assert_within_budget([got], plain, truth)
    assert got["dx"].dtype == gradient_dtype(draws[0]["x"])
    assert got["loss"].dtype == torch.float32


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("auxiliary", AUXILIARIES)
def test_every_loss(auxiliary, dtype, reduction):
    check(auxiliary, lambda seed: inputs(37, 70, 19, dtype, seed), reduction)


@pytest.mark.parametrize(("n", "num_classes"), [(1, 3), (4, 2), (1, 1), (9, 3)])
@pytest.mark.parametrize("auxiliary", ["center", "island", "variant-paper"])
def test_one_row_and_few_classes(auxiliary, n, num_classes):
    if (auxiliary, num_classes) == ("island", 1):
        pytest.skip("one center has no others")
    check(auxiliary, lambda seed: inputs(n, num_classes, 8, seed=seed))


# The interpreter takes half a millisecond a class that may move.
@pytest.mark.parametrize(("num_classes", "update"), [(10_000, True), (1_000_000, False)])
def test_very_many_classes(num_classes, update):
    draws = [inputs(16, num_classes, 8, seed=seed) for seed in range(PLAIN_DRAWS)]
    names = ["loss", "dx", "centers"] if update else ["loss", "dx"]
    plain, truth = (
        [{name: expected("", "center", of(t), SCALE, "mean")[name] for name in names} for t in draws]
        for of in (dict, double)
    )
    got = launch("center", draws[0], update=update)
    assert_within_budget([{name: got[name] for name in names}], plain, truth)
    assert update or torch.equal(got["centers"], draws[0]["centers"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_classes", [3, 70])
@pytest.mark.parametrize("auxiliary", ["variant-paper", "island"])
def test_rows_too_wide_to_hold(auxiliary, num_classes, dtype):
    check(auxiliary, lambda seed: inputs(19, num_classes, 2100, dtype, seed))


@pytest.mark.parametrize("auxiliary", AUXILIARIES)
def test_few_classes_are_there_and_one_center_is_far_out(auxiliary):
    def make(seed):
        t = inputs(40, 66, 18, seed=seed)
        t["centers"][5] += 300
        return t | {"y": t["y"] % 2}

    check(auxiliary, make)


@pytest.mark.parametrize("num_classes", [3, 66])
@pytest.mark.parametrize("outlier", [0, 2])
def test_rows_of_a_center_far_out_lie_beside_the_others(num_classes, outlier):
    def make(seed):
        t = inputs(20, num_classes, 24, seed=seed)
        t["centers"][outlier] += 300
        t["x"] = t["centers"][1] + 0.1 * t["x"]
        return t

    check("variant-paper", make)


def test_two_classes_with_rows_beside_the_other_center():
    def make(seed):
        t = inputs(12, 2, 24, seed=seed)
        return t | {"x": t["centers"][1 - t["y"]] + 1e-3 * t["x"]}

    check("variant", make)


@pytest.mark.parametrize("auxiliary", ["center", "variant", "variant-paper", "weighted-cluster", "affinity", "mva"])
def test_an_offset_common_to_all_costs_no_digits(auxiliary):
    def make(seed):
        t = inputs(40, 66, 18, seed=seed)
        t["groups"] = [(x * 0.01 + 1000, y) for x, y in t["groups"]]
        return t | {name: t[name] * 0.01 + 1000 for name in ("x", "centers")}

    check(auxiliary, make)


def test_a_center_far_out_whose_rows_push_the_others_is_within_its_limit():
    """Its push is all less its own: off by roundings of what is taken off, as the engine's docstring says."""
    t = inputs(24, 70, 16)
    t |= {"x": 1e-4 * t["x"], "y": torch.arange(24, device=t["x"].device) % 3, "centers": 1e-4 * t["centers"]}
    t["centers"][0] *= 1e9
    truth, plain = (expected("", "variant", of, SCALE, "mean")["centers"] for of in (double(t), t))
    got = launch("variant", t)["centers"]
    x, y, centers = t["x"].double(), t["y"], t["centers"].double()
    p = (VariantParams().eps1 + anti_center_distances(x, y, centers)).pow(-2)
    taken_off = p[y == 0].sum() * (centers[0] - centers[1:].mean(0)).norm()
    limit = VariantParams().alpha * VariantParams().lambda1 * taken_off
    eps = torch.finfo(torch.float32).eps
    assert (got[0] - truth[0]).norm() < 2 * eps * (limit + truth[0].norm())
    assert_within_budget([{"others": got[1:]}], [{"others": plain[1:]}], [{"others": truth[1:]}])


def test_zero_centers():
    def make(seed):
        t = inputs(9, 66, 20, seed=seed)
        t["centers"][t["y"][0]] = 0
        return t

    check("island", make)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("auxiliary", AUXILIARIES)
def test_a_bad_row_keeps_the_center_of_its_class(auxiliary, value):
    t = inputs(300, 65, 19)
    t["y"] = skewed(300, 65, 0.5).to(t["y"].device)
    t["x"][torch.nonzero(t["y"] == 3)[5], 2] = value
    t["x"][torch.nonzero(t["y"] == 4)[0], 18] = value
    got = launch(auxiliary, t)
    assert not torch.isfinite(got["loss"])
    expected_centers = expected("", auxiliary, t, SCALE, "mean")["centers"]
    torch.testing.assert_close(got["centers"], expected_centers)
    kept = (got["centers"] == t["centers"]).all(1)
    assert kept.all() if auxiliary.startswith("variant") else kept[[3, 4]].all() and not kept[[2, 5]].any()


@pytest.mark.parametrize("label", [-1, 66, 2**40])
@pytest.mark.parametrize("auxiliary", AUXILIARIES)
def test_a_label_out_of_range_is_reported(auxiliary, label):
    t = inputs(60, 66, 8)
    status = torch.full((1,), INT64_MIN)
    assert torch.isfinite(launch(auxiliary, t, status=status)["loss"])
    assert status.item() == INT64_MIN
    t["y"][17:57] = label
    assert launch(auxiliary, t, status=status)["loss"].isnan()
    assert status.item() == label


@pytest.mark.parametrize("auxiliary", ["center", "variant", "island", "mva"])
def test_same_bits_every_run_any_strides_and_under_autocast(auxiliary):
    t = inputs(70, 66, 18)
    first, again = launch(auxiliary, t), launch(auxiliary, t)
    assert all(torch.equal(first[name], again[name]) for name in first)
    transposed = launch(auxiliary, t | {"x": t["x"].T.contiguous().T})
    assert all(torch.equal(first[name], transposed[name]) for name in first)
    expanded = t["x"][:1].expand(70, 18)
    zero_stride = launch(auxiliary, t | {"x": expanded})
    solid = launch(auxiliary, t | {"x": expanded.contiguous()})
    assert all(torch.equal(zero_stride[name], solid[name]) for name in solid)
    short = launch(auxiliary, t | {"y": t["y"].int(), "groups": [(x, y.int()) for x, y in t["groups"]]})
    assert all(torch.equal(first[name], short[name]) for name in first)
    with torch.autocast(t["x"].device.type, torch.bfloat16):
        cast = launch(auxiliary, t)
    assert all(torch.equal(first[name], cast[name]) for name in first)


@pytest.mark.parametrize("auxiliary", ["variant", "weighted-cluster"])
def test_what_is_not_asked_for_is_not_done(auxiliary):
    t = inputs(20, 66, 18)
    whole, still = launch(auxiliary, t), launch(auxiliary, t, update=False)
    assert torch.equal(still["centers"], t["centers"])
    assert torch.equal(still["dx"], whole["dx"])
    value = launch(auxiliary, t, gradient=False)
    assert torch.equal(value["loss"], whole["loss"])
    assert torch.equal(value["centers"], whole["centers"])
    assert value["dx"].shape == (0,)


def skewed(n: int, num_classes: int, share: float) -> torch.Tensor:
    """Labels of which a share are those of one class; the others, and no label of class 1, lie between them."""
    y = torch.arange(n) * 7 % num_classes
    y[torch.randperm(n, generator=torch.Generator().manual_seed(0))[: round(share * n)]] = 3
    return torch.where(y == 1, 2, y)


@pytest.mark.parametrize("share", [0.9, 1.0])
@pytest.mark.parametrize("auxiliary", AUXILIARIES)
def test_one_class_has_most_rows(auxiliary, share):
    y = skewed(150, 65, share)
    check(auxiliary, lambda seed: (t := inputs(150, 65, 19, seed=seed)) | {"y": y.to(t["y"].device)})


def longest_programs(y: torch.Tensor, num_classes: int) -> int:
    """Tiles that one program loads after the other to move the centers, of the longest program of each launch."""
    from triton.runtime.interpreter import InterpreterBuilder as Builder

    loaded, load = Counter(), Builder.create_masked_load

    def counting_load(self, ptrs, *rest):
        loaded[self.grid_dim, self.grid_idx] += ptrs.data.ndim == 2
        return load(self, ptrs, *rest)

    def count(of):
        if of.kernel is not engine.rows:
            start(of)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Builder, "create_masked_load", counting_load)
        launch("center", inputs(len(y), num_classes, 16) | {"y": y}, run=count)
    launches = {grid for grid, _ in loaded}
    return sum(max(tiles for (of, _), tiles in loaded.items() if of == grid) for grid in launches)


def test_no_program_visits_all_rows_of_a_large_class():
    if not INTERPRETED:
        pytest.skip("tiles are counted in Triton's interpreter")
    n, num_classes = 4096, 65
    even = longest_programs(torch.arange(n) % num_classes, num_classes)
    assert longest_programs(skewed(n, num_classes, 0.9), num_classes) <= 2 * even
