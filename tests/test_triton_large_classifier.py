"""Classifiers of many classes: the kernels in the interpreter where there is no GPU."""

import pytest
import torch
from fer_fast.kernels.directions import launch as directions
from fer_fast.kernels.host.launch import gradient_dtype
from fer_fast.kernels.large_classifier import launch as engine

from cases import assert_within_budget
from triton_cases import CLASSIFIERS, DTYPES, double, expected, inputs, poisoned

INT64_MIN = torch.iinfo(torch.int64).min
PLAIN_DRAWS = 8  # of plain PyTorch, which by one may be lucky


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    for module in (engine, directions):
        monkeypatch.setattr(module, "_empty", poisoned)


@pytest.fixture
def many_chunks(monkeypatch):
    """A row of logits is more than a chunk may take: 128 rows at a time."""
    monkeypatch.setattr(engine, "chunk_bytes", lambda device: 1)


def arguments(classifier: str, t: dict, reduction: str = "mean") -> tuple:
    """What the launcher takes of a case, up to `mean`."""
    name = "softmax" if classifier == "weighted" else classifier
    bias = t["bias"] if name == "softmax" else None
    class_weights = t["class_weights"] if classifier == "weighted" else None
    return t["x"], t["y"], t["weight"], bias, class_weights, name, CLASSIFIERS[classifier], reduction == "mean"


def launch(classifier, t, reduction="mean", gradient=True, status=None) -> dict[str, torch.Tensor]:
    out = engine.large_classifier(*arguments(classifier, t, reduction), gradient, status)
    return dict(zip(("loss", "dx", "dweight", "dbias"), out, strict=True))


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
    check(classifier, lambda seed: inputs(37, 65, 19, dtype, seed), reduction)


@pytest.mark.parametrize(
    ("n", "num_classes", "d"), [(1, 65, 8), (5, 1000, 33), (3, 5000, 16), (6, 3, 2050), (2, 1, 2050)]
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_every_shape(classifier, dtype, n, num_classes, d):
    check(classifier, lambda seed: inputs(n, num_classes, d, dtype, seed))
