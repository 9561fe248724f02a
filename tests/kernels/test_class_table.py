"""The class-table engine's kernels: in the interpreter where there is no GPU, and compiled for the chips there are."""

import itertools

import pytest
import torch
from fer_fast.kernels.class_table import launch as engine
from fer_fast.kernels.class_table import settings
from fer_fast.kernels.host.launch import gradient_dtype

from cases import assert_within_budget
from fer_fast.dispatch import triton_runs_on
from fer_fast.terms import CenterTerm, Classifier
from triton_cases import (
    AUXILIARIES,
    CLASSIFIERS,
    DTYPES,
    along_class_weights,
    double,
    engine_params,
    expected,
    inputs,
    poisoned,
)

SCALE = 0.3
INT64_MIN = torch.iinfo(torch.int64).min


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    monkeypatch.setattr(engine, "_empty", poisoned)


@pytest.fixture
def small_batch(monkeypatch):
    """So few rows are a small batch that some tiles of them are a large one."""
    monkeypatch.setattr(engine, "SMALL_BATCH", 32)


def launch(classifier, auxiliary, t, reduction="mean", update=True, gradient=True, status=None):
    """The engine's results by name; the centers given are left as they are."""
    centers = t["centers"].clone()
    name, rule = "softmax" if classifier == "weighted" else classifier, auxiliary.removesuffix("-paper")
    head, term = Classifier(), CenterTerm()
    if classifier:
        bias = t["bias"] if name == "softmax" else None
        weights = t["class_weights"] if classifier == "weighted" else None
        head = Classifier(name, t["weight"], bias, weights, CLASSIFIERS[classifier])
    if auxiliary:
        weights = t["center_weights"] if rule == "weighted-cluster" else None
        term = CenterTerm(rule, centers, weights, AUXILIARIES[auxiliary], SCALE)
    if rule == "mva":
        groups_x, groups_y = zip(*t["groups"], strict=True) if t["groups"] else ((), ())
        term = term._replace(groups_x=groups_x, groups_y=groups_y)
    out = engine.class_table(t["x"], t["y"], head, term, None, None, reduction, update, gradient, status)
    return dict(zip(("loss", "dx", "dweight", "dbias"), out[:4], strict=True)) | {"centers": centers}


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
@pytest.mark.parametrize(
    ("classifier", "auxiliary"),
    [("lmcl", "variant"), ("softmax", "island"), ("weighted", "mva"), ("a-softmax", "weighted-cluster")],
)
@pytest.mark.parametrize("shape", [(70, 5, 35), (70, 20, 35), (70, 40, 70), (50, 4, 300)])
def test_more_rows_than_one_program_takes(classifier, auxiliary, shape, dtype, small_batch):
    """Two programs of two tiles each, the last of them ragged."""
    first, *others = (inputs(*shape, dtype, seed) for seed in range(4))
    check(classifier, auxiliary, first, others=others)


@pytest.mark.parametrize("n", [20, 70])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("classifier", "auxiliary"), [("lmcl", "variant"), ("softmax", "center"), ("", "variant")])
def test_sums_that_are_not_held(classifier, auxiliary, dtype, n, monkeypatch, small_batch):
    monkeypatch.setattr(settings, "HELD_SUMS", 0)
    first, *others = (inputs(n, 5, 35, dtype, seed) for seed in range(4))
    check(classifier, auxiliary, first, others=others)


@pytest.mark.parametrize(("classifier", "auxiliary"), [("softmax", "center"), ("", "variant")])
def test_rows_of_the_greatest_width(classifier, auxiliary):
    first, *others = (inputs(20, 3, 2048, seed=seed) for seed in range(2))
    check(classifier, auxiliary, first, others=others)


@pytest.mark.parametrize(("classifier", "auxiliary"), [*ALONE, ("lmcl", "variant"), ("weighted", "mva")])
def test_a_small_batch_is_one_launch_and_a_large_one_at_most_four(classifier, auxiliary, monkeypatch):
    started = []
    monkeypatch.setattr(engine, "start", lambda launch: started.append(launch.kernel.__name__))
    launch(classifier, auxiliary, inputs(128, 8, 16))
    assert started == ["small"]
    started.clear()
    launch(classifier, auxiliary, inputs(129, 8, 16))
    assert started[-2:] == ["rows", "finish"]
    assert len(started) <= 3


@pytest.mark.parametrize(("classifier", "auxiliary"), [*ALONE, ("lmcl", "variant")])
def test_a_large_batch_reads_x_once_and_writes_its_gradient_once(classifier, auxiliary, monkeypatch):
    if not triton_runs_on("cpu"):
        pytest.skip("traffic is counted in Triton's interpreter")
    from fer_fast.bench.audit_traffic import count

    monkeypatch.setattr(engine, "processors", lambda device: 1)  # as many programs for both
    d = 64
    few, many = (inputs(n, 8, d) for n in (512, 1024))
    counts = [count(lambda t=t: launch(classifier, auxiliary, t)) for t in (few, many)]
    reads = 4 * d + few["y"][0].nbytes
    more = 1 + (auxiliary == "mva")  # α_v takes a read before
    assert sum(counts[0].streamed(counts[1], 512).values()) <= 1.05 * (more * reads + 4 * d)


@pytest.mark.parametrize("size", [1e-12, 1e12])
def test_lengths_at_the_ends_of_their_range(size):
    t = inputs(9, 4, 20)
    t["x"], t["weight"] = (size * torch.nn.functional.normalize(t[name], dim=1) for name in ("x", "weight"))
    for classifier in ("lmcl", "a-softmax"):
        check(classifier, "", t)


@pytest.mark.parametrize("n", [12, 150])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("auxiliary", AUXILIARIES)
def test_a_class_with_a_row_that_is_not_finite_keeps_its_center(auxiliary, value, n):
    t = inputs(n, 4, 8)
    t["y"][t["y"] == 3] = 2
    clean = launch("", auxiliary, t)["centers"]
    t["x"] = t["x"].clone()
    t["x"][1, 2] = value
    spoilt = launch("", auxiliary, t)["centers"]
    own = torch.arange(4, device=spoilt.device) == t["y"][1]
    kept = torch.ones_like(own) if auxiliary.startswith("variant") else own  # every row pushes the centers of others
    assert torch.equal(spoilt[kept], t["centers"][kept])
    if auxiliary not in ("mva", "variant", "variant-paper"):
        torch.testing.assert_close(spoilt[~kept], clean[~kept])


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


def test_zero_rows_and_zero_weights():
    t = inputs(9, 4, 20)
    t["x"][2] = 0
    t["weight"][1] = 0
    t["centers"][3] = 0
    for classifier in ("lmcl", "arcface", "a-softmax", "l-softmax"):
        check(classifier, "island", t)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_class_weights_of_any_size_in_half_precision(scale):
    draws = [inputs(10, 5, 19, torch.float16, seed) for seed in range(4)]
    draws = [t | {"class_weights": t["class_weights"] * scale} for t in draws]
    check("weighted", "", draws[0], others=draws[1:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classifier", ["a-softmax", "l-softmax"])
def test_the_weight_gradient_of_a_steep_margin(classifier, dtype, monkeypatch):
    """The own class's part, in float32 under autocast, is up to m² = 64 times that of the others."""
    monkeypatch.setitem(CLASSIFIERS, classifier, engine_params(classifier, m=8, lambda_=0.0))
    first, *others = (inputs(100, 2, 4, dtype, seed) for seed in range(4))
    check(classifier, "", first, others=others)
    check(classifier, "center", first, others=others)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_along_their_class_weight_pass_a_finite_gradient(dtype):
    """The angle's slope is steepest there, and p is -1 beside classes as near."""
    t = along_class_weights(inputs(100, 4, 20, dtype))
    got = launch("arcface", "", t, "sum")
    turning = got["dx"].norm(dim=1) * t["x"].float().norm(dim=1)
    assert turning.max() < 128  # 2s
    assert got["dweight"].isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("classifier", "auxiliary"), ALONE)
def test_a_bad_row_reaches_the_loss(classifier, auxiliary, value):
    t = inputs(6, 3, 8)
    t["x"][1, 2] = value
    assert not torch.isfinite(launch(classifier, auxiliary, t)["loss"])


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
    term = CenterTerm("center", spread, None, [0.5], SCALE)
    engine.class_table(t["x"], t["y"], Classifier(), term, None, None, "mean", True, True)
    assert torch.equal(spread, moved)


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
        ("", "center", double(inputs(4, 65, 8))),
    ):
        with pytest.raises(NotImplementedError):
            launch(classifier, auxiliary, t)


@pytest.mark.parametrize("n", [3, 131])
@pytest.mark.parametrize(("classifier", "auxiliary"), [("softmax", "center"), ("", "variant"), ("lmcl", "variant")])
def test_as_many_classes_as_a_tile_has(classifier, auxiliary, n):
    for num_classes in (8, 16, 64):  # a row past the last of the batch is in no class, nor in the last
        first, *others = (inputs(n, num_classes, 10, seed=seed) for seed in range(4))
        check(classifier, auxiliary, first, others=others)


@pytest.mark.parametrize("label", [-1, 8, 9, 16, 2**40])
@pytest.mark.parametrize("n", [20, 150])
def test_a_label_out_of_range_moves_no_center(n, label):
    t = inputs(n, 8, 10)
    keep = torch.arange(n) != 3
    clean = t | {"x": t["x"][keep], "y": t["y"][keep]}
    t["y"][3] = label
    moved = launch("", "center", t, status=torch.zeros(1, dtype=torch.int64))["centers"]
    torch.testing.assert_close(moved, launch("", "center", clean)["centers"])
