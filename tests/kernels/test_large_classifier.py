"""Classifiers of many classes: the kernels in the interpreter where there is no GPU."""

from itertools import pairwise

import pytest
import torch
from fer_fast.kernels.directions import launch as directions
from fer_fast.kernels.host.launch import gradient_dtype
from fer_fast.kernels.large_classifier import launch as engine

from cases import assert_within_budget
from fer_fast.terms import Classifier
from triton_cases import CLASSIFIERS, DTYPES, INTERPRETED, along_class_weights, double, expected, inputs, poisoned

INT64_MIN = torch.iinfo(torch.int64).min
PLAIN_DRAWS = 8  # of plain PyTorch, which by one may be lucky


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    for module in (engine, directions):
        monkeypatch.setattr(module, "_empty", poisoned)


@pytest.fixture
def many_chunks(monkeypatch):
    """A row of logits is more than a chunk may take: four rows at a time."""
    monkeypatch.setattr(engine, "chunk_bytes", lambda device: 1)
    monkeypatch.setattr(engine, "CHUNK_ROWS", 4)


def head_of(classifier: str, t: dict) -> Classifier:
    """What the launcher takes of a case."""
    name = "softmax" if classifier == "weighted" else classifier
    bias = t["bias"] if name == "softmax" else None
    class_weights = t["class_weights"] if classifier == "weighted" else None
    return Classifier(name, t["weight"], bias, class_weights, CLASSIFIERS[classifier])


def launch(classifier, t, reduction="mean", gradient=True, status=None) -> dict[str, torch.Tensor]:
    out = engine.Sweep(t["x"], t["y"], head_of(classifier, t), None, reduction, gradient, status).whole()
    return dict(zip(("loss", "dx", "dweight", "dbias"), out[:4], strict=True))


def check(classifier, make, reduction="mean", run=launch):
    """`make(seed)` draws inputs; the first is computed."""
    draws = [make(seed) for seed in range(PLAIN_DRAWS)]
    dtype = draws[0]["x"].dtype
    truth = [without_centers(expected(classifier, "", double(t), 1, reduction)) for t in draws]
    with torch.autocast(draws[0]["x"].device.type, dtype, enabled=dtype != torch.float32):
        plain = [expected(classifier, "", t, 1, reduction) for t in draws]
    got = run(classifier, draws[0], reduction)
    assert_within_budget([got], plain, truth)
    assert got["dx"].dtype == gradient_dtype(draws[0]["x"])
    assert got["loss"].dtype == torch.float32


def without_centers(result: dict) -> dict:
    return {name: value for name, value in result.items() if name != "centers"}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_every_loss(classifier, dtype, reduction):
    check(classifier, lambda seed: inputs(11, 65, 19, dtype, seed), reduction)


@pytest.mark.parametrize(
    ("n", "num_classes", "d"), [(1, 65, 8), (5, 1000, 33), (3, 5000, 16), (6, 3, 2050), (2, 1, 2050)]
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_every_shape(classifier, dtype, n, num_classes, d):
    check(classifier, lambda seed: inputs(n, num_classes, d, dtype, seed))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_many_classes(classifier, dtype):
    check(classifier, lambda seed: inputs(2, 100_000, 8, dtype, seed))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_rows_in_chunks(classifier, dtype, many_chunks):
    check(classifier, lambda seed: inputs(14, 70, 19, dtype, seed))


def test_chunks_are_of_one_size_and_keep_below_their_limit(monkeypatch):
    t = inputs(700, 70, 8)
    monkeypatch.setattr(engine, "chunk_bytes", lambda device: 1)
    assert [rows.stop - rows.start for rows in sweep_of("softmax", t).chunks] == [128] * 5 + [60]
    monkeypatch.setattr(engine, "chunk_bytes", lambda device: 520 * 128 * 4)  # rows of 70 are padded to 128
    assert [rows.stop - rows.start for rows in sweep_of("softmax", t).chunks] == [384, 316]


def sweep_of(classifier, t, **shard):
    return engine.Sweep(t["x"], t["y"], head_of(classifier, t), None, "mean", True, shard=engine.Shard(**shard))


@pytest.mark.parametrize("label", ["one class", "int32"])
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_labels(classifier, label):
    def make(seed):
        t = inputs(10, 70, 19, torch.float16, seed)
        return t | {"y": torch.full_like(t["y"], 69) if label == "one class" else t["y"]}

    def run(classifier, t, reduction):
        return launch(classifier, t | {"y": t["y"].int()} if label == "int32" else t, reduction)

    check(classifier, make, run=run)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_confident_rows_keep_the_digits_of_a_small_loss(classifier, dtype):
    def make(seed):
        t = inputs(10, 80, 64, dtype, seed)
        return t | {"x": (0.3 * t["weight"][t["y"]]).to(dtype) + 0.01 * t["x"], "bias": 0.1 * t["bias"]}

    check(classifier, make)


@pytest.mark.parametrize("classifier", ["softmax", "weighted", "l-softmax"])
def test_a_small_loss_and_its_gradient_are_no_differences(classifier):
    t = inputs(4, 80, 64)
    t |= {"x": 1.5 * t["weight"][t["y"]], "bias": 0 * t["bias"]}
    truth, got = expected(classifier, "", double(t), 1, "mean"), launch(classifier, t)
    assert truth["loss"] < 1e-8
    for name in ("loss", "dx", "dweight"):
        torch.testing.assert_close(
            got[name].double(), truth[name], rtol=1e-3, atol=truth[name].abs().max().item() * 1e-4
        )


@pytest.mark.parametrize("magnitude", [1e-12, 1e11])
@pytest.mark.parametrize("classifier", ["lmcl", "a-softmax"])
def test_magnitudes(classifier, magnitude):
    def make(seed):
        t = inputs(9, 70, 20, seed=seed)
        return t | {"x": t["x"] * magnitude, "weight": t["weight"] / magnitude}

    check(classifier, make)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_zero_rows_and_zero_weights(classifier):
    def make(seed):
        t = inputs(9, 70, 20, seed=seed)
        t["x"][2], t["weight"][1], t["weight"][t["y"][4]] = 0, 0, 0
        return t

    check(classifier, make)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_along_their_class_weight_pass_a_finite_gradient(dtype):
    """The angle's slope is steepest there, and p is -1 beside classes as near."""
    t = along_class_weights(inputs(100, 70, 20, dtype))
    got = launch("arcface", t, "sum")
    turning = got["dx"].norm(dim=1) * t["x"].float().norm(dim=1)
    assert turning.max() < 128  # 2s
    assert got["dweight"].isfinite().all()


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_class_weights_of_any_size_in_half_precision(scale):
    def make(seed):
        t = inputs(10, 70, 19, torch.float16, seed)
        return t | {"class_weights": t["class_weights"] * scale}

    check("weighted", make)


def test_classes_that_weigh_nothing_lose_nothing():
    for dtype in DTYPES:
        t = inputs(10, 70, 19, dtype)
        got = launch("weighted", t | {"class_weights": torch.zeros_like(t["class_weights"])})
        assert all(torch.equal(value, torch.zeros_like(value)) for value in got.values())


def test_gradients_of_rare_probabilities_survive_in_half_precision():
    """Each of 100 000 classes has a p below what float16 tells from zero."""
    t = inputs(2, 100_000, 8, torch.float16)
    t |= {"weight": 0.01 * t["weight"], "bias": 0 * t["bias"] - 3 * (torch.arange(100_000, device=t["x"].device) > 9)}
    t["y"] = t["y"] % 9
    truth, got = expected("softmax", "", double(t), 1, "mean"), launch("softmax", t)
    rare = truth["dweight"][10:]
    assert rare.abs().max() < 2**-15
    assert (got["dweight"][10:].double() - rare).norm() < 2e-3 * rare.norm()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_shards_of_the_classes(classifier, dtype):
    """Three processes, in turns: what they exchange between survey and finish is all that passes between them."""
    bounds = (0, 24, 25, 70)

    def run(classifier, t, reduction):
        shards = []
        for first, last in pairwise(bounds):
            head = head_of(classifier, t)
            bias = None if head.bias is None else head.bias[first:last]
            head, shard = head._replace(weight=head.weight[first:last], bias=bias), engine.Shard(first, 70, 4)
            shards.append(engine.Sweep(t["x"], t["y"], head, None, reduction, True, shard=shard))
        for rows in shards[0].chunks:
            statistics = torch.stack([shard.survey(rows) for shard in shards])
            largest = statistics[:, 0].amax(0)
            total = (statistics[:, 1] * (statistics[:, 0] - largest).exp()).sum(0)
            combined = torch.stack([largest, total, statistics[:, 2].sum(0)])
            for shard in shards:
                shard.finish(rows, combined)
        losses, dx, dweight, dbias, _ = zip(*(shard.result() for shard in shards), strict=True)
        assert all(torch.equal(loss, losses[0]) for loss in losses)
        return {"loss": losses[0], "dx": sum(dx), "dweight": torch.cat(dweight), "dbias": torch.cat(dbias)}

    check(classifier, lambda seed: inputs(9, 70, 19, dtype, seed), run=run)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["x", "weight"])
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_what_is_not_finite_reaches_the_loss(classifier, where, value):
    t = inputs(6, 70, 8)
    t[where][1, 2] = value
    assert not torch.isfinite(launch(classifier, t)["loss"])


@pytest.mark.parametrize("label", [-1, 70, 2**40])
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_a_label_out_of_range_is_reported(classifier, label):
    t = inputs(10, 70, 8)
    status = torch.full((1,), INT64_MIN, device=t["x"].device)
    assert torch.isfinite(launch(classifier, t, status=status)["loss"])
    assert status.item() == INT64_MIN
    t["y"][7] = label
    got = launch(classifier, t, status=status)
    assert got["loss"].isnan()
    assert status.item() == label
    assert torch.isfinite(got["dweight"]).all()


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_same_bits_every_run_and_any_strides(classifier):
    t = inputs(10, 66, 18)
    first, again = launch(classifier, t), launch(classifier, t)
    assert all(torch.equal(first[name], again[name]) for name in first)
    spread = {name: t[name].repeat_interleave(2)[::2] for name in ("y", "bias", "class_weights")}
    strided = launch(classifier, t | spread | {name: t[name].T.contiguous().T for name in ("x", "weight")})
    assert all(torch.equal(first[name], strided[name]) for name in first)
    expanded = t["x"][:1].expand(10, 18)
    zero_stride, solid = (launch(classifier, t | {"x": x}) for x in (expanded, expanded.contiguous()))
    assert all(torch.equal(zero_stride[name], solid[name]) for name in solid)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_without_a_gradient_only_the_loss_is_found(classifier, dtype, monkeypatch):
    t = inputs(10, 70, 18, dtype)
    whole = launch(classifier, t)
    monkeypatch.setattr(engine.Sweep, "_row_gradients", None)
    value = launch(classifier, t, gradient=False)
    torch.testing.assert_close(value["loss"], whole["loss"], rtol=1e-6, atol=0)
    assert value["dx"].shape == value["dweight"].shape == value["dbias"].shape == (0,)


@pytest.mark.parametrize(
    ("dtype", "gradient", "reads", "writes"), [(torch.float16, True, 2, 1), (torch.float32, False, 1, 0)]
)
def test_logits_are_read_twice_and_written_once(dtype, gradient, reads, writes, monkeypatch):
    if not INTERPRETED:
        pytest.skip("traffic is counted in Triton's interpreter")
    from fer_fast.bench import audit_traffic
    from fer_fast.bench.audit_traffic import count

    monkeypatch.setattr(audit_traffic, "RECENT", 0)  # a row of 100 000 logits does not stay in the L1
    t = inputs(6, 5000, 8, dtype)
    found = count(lambda: launch("lmcl", t, gradient=gradient))
    row_bytes = 5056 * dtype.itemsize  # padded to whole cache lines
    assert found.loaded["logits"] == reads * 6 * row_bytes
    assert found.stored["logits"] == 6 * (writes * row_bytes + (1 + writes) * dtype.itemsize)  # the target's apart
    assert found.launches["softmax_rows"] == found.launches["target_rows"] == 1
    assert found.launches["row_gradients"] == 2 * gradient  # of the rows, and of the table


def test_rows_of_logits_beyond_32_bits():
    n, stride, t = 17, 2**27, inputs(17, 70, 8, torch.float16)  # the last row begins at 2³¹
    sweep = sweep_of("softmax", t)
    want = launch("softmax", t)
    sweep.logits = torch.empty((n, stride), dtype=torch.float16, device=t["x"].device)  # most of it is never touched
    sweep.shift = torch.nn.functional.pad(t["bias"], (0, 58))
    sweep.visit(slice(0, n))
    got = dict(zip(want, sweep.result()[:4], strict=True))
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_dtypes_of_gradients():
    t = inputs(4, 66, 8)
    t["weight"], t["bias"] = t["weight"].half(), t["bias"].bfloat16()
    got = launch("softmax", t)
    assert [got[name].dtype for name in ("dx", "dweight", "dbias")] == [torch.float32, torch.float32, torch.bfloat16]


def test_float64_is_refused():
    with pytest.raises(NotImplementedError):
        launch("softmax", double(inputs(4, 65, 8)))
