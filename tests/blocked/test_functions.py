"""The blocked engines against the float64 reference: every function x dtype, over ragged and hostile inputs."""

import pytest
import torch

from blocked_cases import (
    AUXILIARIES,
    CLASSIFIERS,
    DRAWS,
    GROUPS,
    PARALLEL,
    SHAPES,
    TERMS,
    by_autograd,
    draw,
    held_to_reference,
    over_cases,
    over_dtypes,
    pairwise_pull,
    run_class_table,
    small_tiles,  # noqa: F401
    turning,
    with_groups,
)
from fer_fast import reference
from fer_fast.blocked import ad_corre, pairwise, primitives, range_loss

pytestmark = pytest.mark.usefixtures("small_tiles")


@over_dtypes
@over_cases
@pytest.mark.parametrize(("classifier", "auxiliary"), TERMS)
def test_class_table(classifier, auxiliary, shape, kind, dtype):
    hold_class_table(classifier, auxiliary, shape, kind, dtype)


@over_dtypes
@pytest.mark.parametrize(
    ("classifier", "auxiliary"), [("softmax", "variant"), ("lmcl", "island"), ("a-softmax", "mva")]
)
def test_class_table_of_two_terms(classifier, auxiliary, dtype):
    hold_class_table(classifier, auxiliary, "ragged", "plain", dtype)


def hold_class_table(classifier, auxiliary, shape, kind, dtype):
    draws = [with_groups(draw(shape, seed, kind, dtype)) for seed in range(DRAWS)]
    for mean in (True, False):
        held_to_reference(
            lambda t, mean=mean: run_class_table(t, classifier, auxiliary, mean),
            lambda t, mean=mean: refer_class_table(t, classifier, auxiliary, mean),
            draws,
            dtype,
        )


def refer_class_table(t: dict, classifier: str, auxiliary: str, mean: bool) -> dict:
    how = {"reduction": "mean" if mean else "sum"}
    extra = {"class_weights": t["class_weights"]} if auxiliary == "weighted-cluster" else {}
    groups = {"groups": list(zip(t["groups_x"].split(GROUPS), t["groups_y"].split(GROUPS), strict=True))}

    def loss(t):
        total = CLASSIFIERS[classifier][1](t, **how) if classifier else 0
        if auxiliary:
            more = extra | how | (groups if auxiliary == "mva" else {})
            total = total + 0.3 * AUXILIARIES[auxiliary][1](t["x"], t["y"], t["centers"], **more)
        return total

    leaves = {"": ("x",), "softmax": ("x", "weight", "bias")}.get(classifier, ("x", "weight"))
    result = by_autograd(loss, t, leaves)
    if auxiliary:
        result["centers"] = AUXILIARIES[auxiliary][2](t["x"], t["y"], t["centers"], **extra)
    return result


@over_dtypes
@over_cases
@pytest.mark.parametrize("term", ["fd", "md", "ed", "all"])
def test_ad_corre(term, shape, kind, dtype):
    draws = [draw(shape, seed, kind, dtype, leading=(3,)) for seed in range(DRAWS)]
    num_classes = SHAPES[shape][2]
    weights = {name: 0.7 if term in (name, "all") else 0.0 for name in ("fd", "md", "ed")}

    def fast(t, mean):
        args = (t["x"], t["y"], t["class_weights"] if weights["fd"] else None, num_classes)
        how = None, "mean" if mean else "sum", True
        return dict(zip(("value", "dx"), ad_corre.ad_corre(*args, *weights.values(), *how), strict=True))

    def slow(t, mean):
        how = {"reduction": "mean" if mean else "sum"}
        terms = {
            "fd": lambda t: reference.fd(t["x"], t["y"], t["class_weights"], **how),
            "md": lambda t: reference.md(t["x"], t["y"], num_classes, **how),
            "ed": lambda t: reference.ed(t["x"], **how),
        }
        return by_autograd(lambda t: sum(w * terms[name](t) for name, w in weights.items() if w), t, ("x",))

    for mean in (True, False):
        cancelling = {"dx": turning(draws, pairwise_pull(shape, mean), centred=True)} if kind in PARALLEL else None
        held_to_reference(lambda t, m=mean: fast(t, m), lambda t, m=mean: slow(t, m), draws, dtype, cancelling)


@over_dtypes
@over_cases
@pytest.mark.parametrize("epilogue", ["marginal", "fd"])
def test_pairwise(epilogue, shape, kind, dtype):
    draws = [draw(shape, seed, kind, dtype, leading=(2,) if epilogue == "fd" else ()) for seed in range(DRAWS)]
    params = [1.1, 0.2] if epilogue == "marginal" else []

    def fast(t, mean):
        weights = t["class_weights"] if epilogue == "fd" else None
        result = pairwise.pairwise(t["x"], t["y"], weights, epilogue, params, mean, True)
        return dict(zip(("value", "dx"), result, strict=True))

    def slow(t, mean):
        extra = params if epilogue == "marginal" else [t["class_weights"]]
        how = {"reduction": "mean" if mean else "sum"}
        return by_autograd(lambda t: getattr(reference, epilogue)(t["x"], t["y"], *extra, **how), t, ("x",))

    for mean in (True, False):
        pull = turning(draws, pairwise_pull(shape, mean), centred=epilogue == "fd")
        cancelling = {"dx": pull} if kind in PARALLEL else None
        held_to_reference(lambda t, m=mean: fast(t, m), lambda t, m=mean: slow(t, m), draws, dtype, cancelling)


@over_dtypes
@over_cases
@pytest.mark.parametrize(("k", "margin"), [(2, 2e4), (5, 1e-3), (60, 1.0)])
def test_range_loss(k, margin, shape, kind, dtype):
    draws = [draw(shape, seed, kind, dtype) for seed in range(DRAWS)]
    for each in draws:
        each["y"] = each["y"] * 10**12 + 7  # any integers from 0 on are labels here

    def fast(t):
        return dict(zip(("value", "dx"), range_loss.range_loss(t["x"], t["y"], k, 0.3, 0.2, margin, True), strict=True))

    def slow(t):
        return by_autograd(lambda t: reference.range_loss(t["x"], t["y"], k, 0.3, 0.2, margin), t, ("x",))

    held_to_reference(fast, slow, draws, dtype)


PRIMITIVES = {
    "correlation_matrix": ("x",),
    "center_distances": ("x", "centers"),
    "anti_center_distances": ("x", "y", "centers"),
}


@over_dtypes
@over_cases
@pytest.mark.parametrize("name", PRIMITIVES)
def test_primitives(name, shape, kind, dtype):
    n, _, num_classes, _ = SHAPES[shape]
    size = {"correlation_matrix": (n, n), "center_distances": (n, num_classes), "anti_center_distances": (n,)}[name]
    draws = [draw(shape, seed, kind, dtype) for seed in range(DRAWS)]
    for seed, each in enumerate(draws):
        each["weigh"] = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def fast(t):
        args = [t[a] for a in PRIMITIVES[name]]
        value = getattr(primitives, name)(*args)
        return {"value": value, "dx": getattr(primitives, f"{name}_backward")(t["weigh"].to(value), *args)}

    def slow(t):
        return by_autograd(lambda t: getattr(reference, name)(*(t[a] for a in PRIMITIVES[name])), t, ("x",), t["weigh"])

    cancelling = None
    if name == "correlation_matrix" and (kind in PARALLEL or shape == "one row"):
        pull = torch.stack([each["weigh"].abs().sum(0) + each["weigh"].abs().sum(1) for each in draws])
        # Of parallel rows plain float16 gives 1 without any error; each correlation here has a rounding of two lengths.
        cancelling = {"dx": turning(draws, pull, centred=True), "value": 2.0 * n}
    held_to_reference(fast, slow, draws, dtype, cancelling)
