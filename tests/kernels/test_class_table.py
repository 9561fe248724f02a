"""The class-table engine's kernels: in the interpreter where there is no GPU, and compiled for the chips there are."""

import itertools
from collections import Counter
from unittest.mock import MagicMock

import pytest
import torch
from fer_fast.kernels.host.launch import gradient_dtype
from fer_fast.kernels.old_class_table import large
from fer_fast.kernels.old_class_table import launch as engine

from cases import assert_within_budget
from fer_fast.dispatch import triton_runs_on
from triton_cases import AUXILIARIES, CLASSIFIERS, DTYPES, INTERPRETED, double, expected, inputs, poisoned

SCALE = 0.3
INT64_MIN = torch.iinfo(torch.int64).min


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    monkeypatch.setattr(engine, "_empty", poisoned)


def launch(classifier, auxiliary, t, reduction="mean", update=True, gradient=True, status=None):
    """The engine's results by name; the centers given are left as they are."""
    centers = t["centers"].clone()
    name, rule = "softmax" if classifier == "weighted" else classifier, auxiliary.removesuffix("-paper")
    mva = rule == "mva"
    out = engine.class_table(
        t["x"],
        t["y"],
        t["weight"] if classifier else None,
        t["bias"] if name == "softmax" else None,
        t["class_weights"] if classifier == "weighted" else None,
        centers if auxiliary else None,
        t["center_weights"] if rule == "weighted-cluster" else None,
        [x for x, _ in t["groups"]] if mva else [],
        [y for _, y in t["groups"]] if mva else [],
        name,
        CLASSIFIERS.get(classifier, []),
        rule,
        AUXILIARIES.get(auxiliary, []),
        SCALE,
        reduction == "mean",
        update,
        gradient,
        status,
    )
    return dict(zip(("loss", "dx", "dweight", "dbias"), out, strict=True)) | {"centers": centers}


def check(classifier, auxiliary, t, reduction="mean", others=()):
    """`others` are further draws of the inputs, of which plain PyTorch may have its worst: by one it may be lucky."""
    dtype, draws = t["x"].dtype, (t, *others)
    truth = [expected(classifier, auxiliary, double(draw), SCALE, reduction) for draw in draws]
    with torch.autocast(t["x"].device.type, dtype, enabled=dtype != torch.float32):
        plain = [expected(classifier, auxiliary, draw, SCALE, reduction) for draw in draws]
    got = launch(classifier, auxiliary, t, reduction)
    assert_within_budget([got], plain, truth)
    assert got["dx"].dtype == gradient_dtype(t["x"])
    assert got["loss"].dtype == torch.float32


ALONE = [(c, "") for c in CLASSIFIERS] + [("", a) for a in AUXILIARIES]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("classifier", "auxiliary"), ALONE)
def test_every_loss(classifier, auxiliary, dtype, reduction):
    check(classifier, auxiliary, inputs(37, 5, 19, dtype), reduction)


@pytest.mark.parametrize(("classifier", "auxiliary"), itertools.product(CLASSIFIERS, AUXILIARIES))
def test_every_pair(classifier, auxiliary):
    check(classifier, auxiliary, inputs(21, 4, 18))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("classifier", "auxiliary"), [("lmcl", "variant"), ("softmax", "island"), ("weighted", "mva")])
def test_sums_in_a_second_launch(classifier, auxiliary, dtype, monkeypatch):
    small = {size: config._replace(block_d=16, accumulators=0) for size, config in engine.CLASS_TILES.items()}
    monkeypatch.setattr(engine, "CLASS_TILES", small)
    monkeypatch.setattr(engine, "plan_of", engine.plan_of.__wrapped__)  # plans are remembered
    check(classifier, auxiliary, inputs(70, 20, 35, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("classifier", "auxiliary"), [("lmcl", "island"), ("softmax", "affinity"), ("a-softmax", "center")]
)
def test_sums_in_slabs(classifier, auxiliary, dtype, monkeypatch):
    small = {size: config._replace(block_d=16, accumulators=0) for size, config in engine.CLASS_TILES.items()}
    monkeypatch.setattr(engine, "CLASS_TILES", small)
    monkeypatch.setattr(engine, "plan_of", engine.plan_of.__wrapped__)  # plans are remembered
    monkeypatch.setattr(engine, "max_programs", lambda device: 3)
    monkeypatch.setattr(engine, "_sum_rows", None)  # one launch
    check(classifier, auxiliary, inputs(16 * 7 + 3, 5, 35, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_a_classifier_beside_a_loss_that_pushes_reads_wide_rows_once(classifier, dtype, monkeypatch):
    if not triton_runs_on("cpu"):
        pytest.skip("traffic is counted in Triton's interpreter")
    from fer_fast.bench.audit_traffic import count

    monkeypatch.setattr(engine, "max_programs", lambda device: 1)  # what a program holds does not grow with the rows
    small, more = (inputs(n, 8, 1024, dtype) for n in (16, 32))
    check(classifier, "variant", more)
    counts = [count(lambda t=t: launch(classifier, "variant", t)) for t in (small, more)]
    assert counts[1].launches["class_table_rows"] == 1
    assert counts[1].launches["class_table_sums"] == 0
    a_row = more["x"][0].nbytes + 1024 * gradient_dtype(more["x"]).itemsize + more["y"][0].nbytes
    assert sum(counts[0].streamed(counts[1], 16).values()) <= 1.05 * a_row


@pytest.mark.parametrize("programs", [2, 40])
def test_two_levels_of_sums(programs, monkeypatch):
    monkeypatch.setattr(engine, "max_programs", lambda device: programs)
    first, *others = (inputs(16 * 36 + 3, 3, 16, seed=seed) for seed in range(8))
    check("softmax", "variant", first, others=others)


@pytest.mark.parametrize(("n", "num_classes"), [(1, 3), (6, 11), (4, 2), (1, 1), (35, 40)])
@pytest.mark.parametrize(("classifier", "auxiliary"), [("softmax", "variant"), ("lmcl", "island"), ("", "center")])
def test_one_row_and_absent_classes(classifier, auxiliary, n, num_classes):
    check(classifier, auxiliary, inputs(n, num_classes, 8))


def test_two_classes_with_rows_beside_the_other_center():
    t = inputs(12, 2, 24)
    t["x"] = t["centers"][1 - t["y"]] + 1e-3 * t["x"]
    check("", "variant", t)


def test_an_offset_common_to_all_costs_no_digits():
    t = inputs(12, 5, 24)
    t["x"], t["centers"] = t["x"] * 0.01 + 1000, t["centers"] * 0.01 + 1000
    for auxiliary in ("variant", "weighted-cluster", "affinity"):
        check("", auxiliary, t)


def test_one_center_far_from_all_others():
    t = inputs(20, 3, 24)
    t["centers"][2] += 300
    t["x"] = t["centers"][0] + 0.1 * t["x"]
    check("", "variant", t)


@pytest.mark.parametrize("magnitude", [1e-25, 1e18])
def test_magnitudes_that_overflow_squares(magnitude):
    t = inputs(9, 4, 20)
    t["x"], t["weight"] = t["x"] * magnitude, t["weight"] / magnitude
    for classifier in ("lmcl", "a-softmax"):
        check(classifier, "", t)


def test_zero_rows_and_zero_weights():
    t = inputs(9, 4, 20)
    t["x"][2] = 0
    t["weight"][1] = 0
    t["centers"][3] = 0
    for classifier in ("lmcl", "a-softmax", "l-softmax"):
        check(classifier, "island", t)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("classifier", "auxiliary"), ALONE)
def test_a_bad_row_reaches_the_loss(classifier, auxiliary, value):
    t = inputs(6, 3, 8)
    t["x"][1, 2] = value
    assert not torch.isfinite(launch(classifier, auxiliary, t)["loss"])


def test_a_bad_row_spoils_no_other_center():
    t = inputs(12, 3, 8)
    t["x"][1, 2] = float("nan")
    truth = expected("", "center", t, SCALE, "mean")["centers"]
    moved = launch("", "center", t)["centers"]
    others = torch.arange(3, device=moved.device) != t["y"][1]
    torch.testing.assert_close(moved[others], truth[others])
    assert moved[~others].isnan().any()


@pytest.mark.parametrize("label", [-1, 3, 2**40])
@pytest.mark.parametrize(
    ("classifier", "auxiliary"), [("softmax", ""), ("", "center"), ("lmcl", "variant"), ("", "mva")]
)
def test_a_label_out_of_range_is_reported(classifier, auxiliary, label):
    t = inputs(20, 3, 8)
    status = torch.full((1,), INT64_MIN)
    assert torch.isfinite(launch(classifier, auxiliary, t, status=status)["loss"])
    assert status.item() == INT64_MIN
    t["y"][17] = label
    assert launch(classifier, auxiliary, t, status=status)["loss"].isnan()
    assert status.item() == label


@pytest.mark.parametrize(("classifier", "auxiliary"), [("softmax", "variant"), ("lmcl", "mva")])
def test_same_bits_every_run_and_any_strides(classifier, auxiliary):
    t = inputs(70, 4, 18)
    first, again = launch(classifier, auxiliary, t), launch(classifier, auxiliary, t)
    assert all(torch.equal(first[name], again[name]) for name in first)
    transposed = launch(classifier, auxiliary, t | {"x": t["x"].T.contiguous().T})
    assert all(torch.equal(first[name], transposed[name]) for name in first)
    expanded = t["x"][:1].expand(70, 18)
    zero_stride = launch(classifier, auxiliary, t | {"x": expanded})
    solid = launch(classifier, auxiliary, t | {"x": expanded.contiguous()})
    assert all(torch.equal(zero_stride[name], solid[name]) for name in solid)


@pytest.mark.parametrize(("classifier", "auxiliary"), [("softmax", "variant"), ("", "weighted-cluster")])
def test_what_is_not_asked_for_is_not_done(classifier, auxiliary):
    t = inputs(20, 4, 18)
    whole = launch(classifier, auxiliary, t)
    still = launch(classifier, auxiliary, t, update=False)
    assert torch.equal(still["centers"], t["centers"])
    assert torch.equal(still["dx"], whole["dx"])
    value = launch(classifier, auxiliary, t, gradient=False)
    assert torch.equal(value["loss"], whole["loss"])
    assert torch.equal(value["centers"], whole["centers"])
    assert value["dx"].shape == value["dweight"].shape == value["dbias"].shape == (0,)


def test_centers_that_are_not_contiguous_move_in_place():
    t = inputs(20, 4, 18)
    moved = launch("", "center", t)["centers"]
    spread = torch.zeros(18, 4, device=moved.device).T
    spread.copy_(t["centers"])
    none = [None] * 3
    engine.class_table(
        t["x"], t["y"], *none, spread, None, [], [], "", [], "center", [0.5], SCALE, True, True, True
    )  # fmt: skip
    assert torch.equal(spread, moved)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("auxiliary", [name for name in AUXILIARIES if name != "mva"])
def test_many_classes(auxiliary, dtype, reduction, monkeypatch):
    monkeypatch.setattr(large, "_empty", poisoned)
    check("", auxiliary, inputs(37, 70, 19, dtype), reduction)


@pytest.mark.parametrize("auxiliary", ["center", "island", "variant", "weighted-cluster"])
def test_many_classes_few_of_them_there(auxiliary, monkeypatch):
    monkeypatch.setattr(large, "SUMMARY_BLOCK", 512)
    t = inputs(40, 66, 18)
    t["y"] = t["y"] % 2
    t["centers"][5] += 300
    check("", auxiliary, t)
    t["y"][7] = 66
    status = torch.full((1,), INT64_MIN)
    assert launch("", auxiliary, t, status=status)["loss"].isnan()
    assert status.item() == 66


def skewed(n: int, num_classes: int, share: float) -> torch.Tensor:
    """Labels of which a share are those of one class; the others, and no label of class 1, lie between them."""
    y = torch.arange(n) * 7 % num_classes
    y[torch.randperm(n, generator=torch.Generator().manual_seed(0))[: round(share * n)]] = 3
    return torch.where(y == 1, 2, y)


@pytest.mark.parametrize("share", [0.9, 1.0])
@pytest.mark.parametrize("auxiliary", [name for name in AUXILIARIES if name != "mva"])
def test_many_classes_of_which_one_has_most_rows(auxiliary, share, monkeypatch):
    monkeypatch.setattr(large, "_empty", poisoned)
    t = inputs(150, 65, 19)
    t["y"] = skewed(150, 65, share).to(t["y"].device)
    check("", auxiliary, t)
    first, again = launch("", auxiliary, t), launch("", auxiliary, t)
    assert all(torch.equal(first[name], again[name]) for name in first)


def longest_programs(y: torch.Tensor, num_classes: int) -> int:
    """Tiles that one program loads after the other to move the centers, of the longest program of each launch."""
    from triton.runtime.interpreter import InterpreterBuilder as Builder

    loaded, load = Counter(), Builder.create_masked_load

    def counting_load(self, ptrs, *rest):
        loaded[self.grid_dim, self.grid_idx] += ptrs.data.ndim == 2
        return load(self, ptrs, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Builder, "create_masked_load", counting_load)
        patch.setattr(large, "row_kernel", MagicMock())
        launch("", "center", inputs(len(y), num_classes, 16) | {"y": y})
    launches = {grid for grid, _ in loaded}
    return sum(max(tiles for (of, _), tiles in loaded.items() if of == grid) for grid in launches)


def test_no_program_visits_all_rows_of_a_large_class():
    if not INTERPRETED:
        pytest.skip("tiles are counted in Triton's interpreter")
    n, num_classes = 4096, 65
    even = longest_programs(torch.arange(n) % num_classes, num_classes)
    assert longest_programs(skewed(n, num_classes, 0.9), num_classes) <= 2 * even


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_classes", [20, 70])
def test_rows_too_wide_to_hold(num_classes, dtype, monkeypatch):
    monkeypatch.setattr(large, "_empty", poisoned)
    check("", "variant", inputs(19, num_classes, 1030, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("classifier", "auxiliary"), [("softmax", "center"), ("lmcl", "variant"), ("l-softmax", "island")]
)
def test_many_classes_of_a_classifier_beside_centers(classifier, auxiliary, dtype):
    draws = [inputs(20, 70, 19, dtype, seed) for seed in range(4)]
    check(classifier, auxiliary, draws[0], others=draws[1:])


def test_wide_features_of_a_classifier():
    check("softmax", "", inputs(6, 5, 2050))


def test_what_no_kernel_takes_is_refused():
    for classifier, auxiliary, t in (
        ("softmax", "", double(inputs(4, 3, 8))),
        ("softmax", "", double(inputs(4, 65, 8))),
        ("lmcl", "mva", inputs(4, 65, 8)),
        ("softmax", "center", inputs(4, 3, 2050)),
    ):
        with pytest.raises(NotImplementedError):
            launch(classifier, auxiliary, t)
