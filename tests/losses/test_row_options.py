"""Sample weights, ignored and soft labels, smoothing, losses of rows, a learnt scale: every backend against float64."""

from contextlib import nullcontext
from functools import lru_cache

import pytest
import torch
from torch import Tensor

import cases
from cases import assert_within_budget, double, make_inputs
from fer_fast import functional, losses
from fer_fast.dispatch import triton_runs_on
from fer_fast.registry import LOSSES, by_public_name

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CLASSIFIERS = [spec for spec in LOSSES.values() if spec.family == "classifier"]
CENTERS = [spec for spec in LOSSES.values() if spec.family == "center"]
ED = LOSSES["ed"]
FEATURES = ("x", "e")  # by argument name
SHAPES = {"ragged": (34, 5, 19), "many rows": (131, 4, 20), "many classes": (9, 70, 16)}
DTYPES = {"blocked": (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
if triton_runs_on(DEVICE):
    DTYPES["triton"] = DTYPES["blocked"][1 : 4 if DEVICE == "cuda" else 3]  # the interpreter multiplies no bfloat16
RUNS = [(backend, dtype, "ragged") for backend, dtypes in DTYPES.items() for dtype in dtypes]
# What is expected is remembered for the backend that asks for it next.
RUNS.sort(key=lambda run: DTYPES["blocked"].index(run[1]))
LARGER = [(backend, torch.float32, shape) for backend in DTYPES for shape in ("many rows", "many classes")]
LARGER += [(backend, torch.float16, "many classes") for backend in DTYPES]
LARGER.sort(key=lambda run: (run[2], DTYPES["blocked"].index(run[1])))
BACKENDS = ["reference", *DTYPES]
PLAIN_DRAWS = 8
backends = pytest.mark.parametrize("backend", BACKENDS)


def weigh(tensors: dict, seed: int) -> None:
    """Weights of rows, some of them 0, whose rows then hold what nothing may see."""
    generator = torch.Generator().manual_seed(seed)
    n = len(tensors["y"])
    weights = torch.rand(n, generator=generator) * 3
    weights[::4] = 0
    features = next(tensors[name] for name in FEATURES if name in tensors)
    features[..., ::8, :], features[..., 4::8, :] = torch.nan, torch.inf
    tensors["sample_weights"] = weights


def soften(tensors: dict, seed: int) -> None:
    """Mixed labels, every third of one class."""
    generator = torch.Generator().manual_seed(seed)
    hard = torch.nn.functional.one_hot(tensors["y"], len(tensors["weight"])).float()
    share = torch.rand(len(hard), 1, generator=generator)
    share[::3] = 1
    tensors["y"] = share * hard + (1 - share) * hard.flip(0)


OPTIONS = {
    "weights": ([weigh], {}),
    "weights summed": ([weigh], {"reduction": "sum"}),
    "ignored": ([], {"ignore_index": 2}),
    "smoothed": ([], {"label_smoothing": 0.1}),
    "smoothed and weighed": ([weigh], {"label_smoothing": 0.3}),
    "soft": ([soften], {}),
    "soft, smoothed and weighed": ([soften, weigh], {"label_smoothing": 0.1}),
    "rows": ([weigh], {"reduction": "none"}),
    "rows of smoothed labels": ([], {"reduction": "none", "label_smoothing": 0.1}),
    "scale": ([], {"s": 20.0}),
    "scale of smoothed and weighed rows": ([weigh], {"s": 20.0, "label_smoothing": 0.1}),
}


def takes(spec, how: dict) -> bool:
    return ("s" not in how or "s" in spec.params._fields) and (
        how.get("reduction") in spec.reductions or "reduction" not in how
    )


FOR_CENTERS = ("weights", "weights summed", "rows")
CASES = [(spec, name) for spec in CLASSIFIERS for name, (_, how) in OPTIONS.items() if takes(spec, how)]
CASES += [(spec, name) for spec in [*CENTERS, ED] for name in FOR_CENTERS if takes(spec, OPTIONS[name][1])]
MOST = ("weights", "soft, smoothed and weighed", "scale of smoothed and weighed rows")  # has everything
CASES = [(*case, *run) for case in CASES for run in [*RUNS, *(LARGER if case[1] in MOST else ())]]


def evaluate(spec, tensors: dict, options: dict, how: dict, backend: str) -> dict[str, Tensor]:
    """Loss, gradients by argument, that of a scale s among them, and moved centers."""
    how = dict(how)
    if "s" in how:
        wide = torch.promote_types(tensors["x"].dtype, torch.float32)
        tensors = tensors | {"s": torch.tensor(how.pop("s"), dtype=wide)}
    return cases.evaluate(spec, tensors, options, **how, backend=backend)


def draw(spec, shape: str, option: str, dtype: torch.dtype, seed: int) -> tuple[dict, dict]:
    n, num_classes, d = SHAPES[shape]
    tensors, options = make_inputs(spec, n, num_classes, d, dtype, seed=seed)
    for change in OPTIONS[option][0]:
        change(tensors, seed)
    return tensors, options


def in_double(options: dict) -> dict:
    return options | ({"groups": [(x.double(), y) for x, y in options["groups"]]} if "groups" in options else {})


@pytest.mark.parametrize(
    ("spec", "option", "backend", "dtype", "shape"),
    [pytest.param(*case, id="-".join((case[0].name, *map(str, case[1:])))) for case in CASES],
)
def test_parity(spec, option, backend, dtype, shape):
    given, plain, truth = known(spec, option, dtype, shape)
    assert_within_budget([evaluate(spec, *given, OPTIONS[option][1], backend)], plain, truth)


@lru_cache(maxsize=1)
def known(spec, option, dtype, shape) -> tuple[tuple, list, list]:
    """Inputs, what plain PyTorch finds of them and of others, and the truth."""
    how, half = OPTIONS[option][1], dtype in (torch.float16, torch.bfloat16)
    draws = [draw(spec, shape, option, dtype, seed) for seed in range(PLAIN_DRAWS)]
    truth = [evaluate(spec, double(t), in_double(options), how, "reference") for t, options in draws]
    with torch.autocast("cpu", dtype) if half else nullcontext():
        plain = truth if dtype == torch.float64 else [evaluate(spec, *given, how, "reference") for given in draws]
    return draws[0], plain, truth


@backends
@pytest.mark.parametrize("option", ["weights", "ignored", "smoothed", "soft"])
def test_modules_and_joint_losses_are_their_functions(option, backend):
    how = OPTIONS[option][1]
    tensors, _ = draw(LOSSES["softmax"], "ragged", option, torch.float32, 0)
    x, y, weights = tensors["x"], tensors["y"], {k: t for k, t in tensors.items() if k == "sample_weights"}
    head = losses.SoftmaxLoss(5, 19, class_weights=[1, 2, 3, 4, 5], backend=backend, **how)
    center = losses.CenterLoss(5, 19, backend=backend).eval()
    tables = {"weight": head.weight, "bias": head.bias, "class_weights": head.class_weights}
    expected = functional.softmax_loss(x, y, **tables, **weights, **how, backend="reference")
    torch.testing.assert_close(head(x, y, **weights), expected)
    joint = losses.JointLoss(head, center, 0.5)
    if option == "soft":
        with pytest.raises(
            ValueError, match=r"^labels: expected classes \(n,\), for center loss takes one class a row"
        ):
            joint(x, y)
        return
    absent = weights.get("sample_weights", torch.ones(len(y)))
    if option == "ignored":
        absent = (y != 2).float()
    expected = expected + 0.5 * functional.center_loss(x, y, center.centers, sample_weights=absent, backend="reference")
    torch.testing.assert_close(joint(x, y, **weights), expected)
    apart = losses.JointLoss(head, losses.CenterLoss(5, 19, reduction="sum", backend=backend).eval(), 0.5)
    apart.auxiliary.centers.copy_(center.centers)
    total = absent.sum()
    torch.testing.assert_close(
        apart(x, y, **weights) - head(x, y, **weights), (expected - head(x, y, **weights)) * total
    )


@backends
def test_weights_beside_a_loss_that_is_no_sum_over_rows_are_refused(backend):
    joint = losses.JointLoss(losses.SoftmaxLoss(4, 8, backend=backend), losses.RangeLoss(backend=backend), 1.0)
    with pytest.raises(ValueError, match=r"^sample_weights: RangeLoss does not sum over rows"):
        joint(torch.randn(12, 8), torch.arange(12) % 4, sample_weights=torch.ones(12))


@backends
@pytest.mark.parametrize("spec", CLASSIFIERS, ids=lambda spec: spec.name)
def test_a_batch_of_absent_rows_loses_nothing(spec, backend):
    tensors, options = make_inputs(spec, 6, 4, 8, torch.float32)
    tensors["x"][:] = torch.nan
    tensors["y"][:] = -100
    for reduction in ("mean", "sum", "none"):
        result = evaluate(spec, tensors, options, {"ignore_index": -100, "reduction": reduction}, backend)
        assert all(value.eq(0).all() for value in result.values())
    with pytest.raises(ValueError, match=r"^labels: class -100 is outside \[0, "):
        evaluate(spec, tensors, options, {}, backend)


@backends
@pytest.mark.parametrize("num_classes", [4, 70])
@pytest.mark.parametrize("spec", CLASSIFIERS, ids=lambda spec: spec.name)
def test_a_class_weight_that_is_not_finite_spoils_the_rows_of_its_class_too(spec, num_classes, backend):
    tensors, options = make_inputs(spec, 3, num_classes, 8, torch.float32, "one")
    tensors["weight"][-1, 0] = torch.nan
    assert evaluate(spec, tensors, options, {"reduction": "none"}, backend)["loss"].isnan().all()


@backends
@pytest.mark.parametrize("d", [8, 2100])  # of a small table and a large one
@pytest.mark.parametrize(
    ("spec", "option"),
    [
        pytest.param(spec, name, id=f"{spec.name}-{name}")
        for spec in CLASSIFIERS
        for name, (_, how) in OPTIONS.items()
        if "label_smoothing" in how and takes(spec, how)
    ],
)
def test_a_single_class_has_nothing_to_smooth(spec, option, d, backend):
    changes, how = OPTIONS[option]
    tensors, options = make_inputs(spec, 6, 1, d, torch.float32)
    for change in changes:
        change(tensors, 0)
    result = evaluate(spec, tensors, options, how, backend)
    assert all(value.eq(0).all() for value in result.values())


@backends
@pytest.mark.parametrize("spec", CENTERS, ids=lambda spec: spec.name)
def test_centers_of_absent_rows_stay(spec, backend):
    tensors, options = make_inputs(spec, 6, 4, 8, torch.float32)
    tensors["x"][:] = torch.nan
    result = evaluate(spec, tensors, options, {"sample_weights": torch.zeros(6)}, backend)
    assert result["dx"].eq(0).all()
    assert result["loss"].isfinite()
    if spec.name not in ("island", "variant"):  # whose centers move by themselves
        assert torch.equal(result["centers"], tensors["centers"])


@backends
@pytest.mark.parametrize("reduction", ED.reductions)
def test_embeddings_of_absent_rows_lose_nothing(reduction, backend):
    tensors = {"e": torch.full((3, 6, 8), torch.nan), "y": torch.arange(6)}
    result = evaluate(ED, tensors, {}, {"reduction": reduction, "sample_weights": torch.zeros(6)}, backend)
    assert all(value.eq(0).all() for value in result.values())


@backends
@pytest.mark.parametrize("reduction", ED.reductions)
def test_embeddings_of_rows_that_all_weigh_one_are_as_without_weights(reduction, backend):
    tensors, _ = make_inputs(ED, 34, 5, 19, torch.float32)
    plain, weighed = (
        evaluate(ED, tensors, {}, {"reduction": reduction, **how}, backend)
        for how in ({}, {"sample_weights": torch.ones(34)})
    )
    assert all(torch.equal(plain[name], weighed[name]) for name in plain)


@backends
@pytest.mark.parametrize("reduction", ED.reductions)
def test_a_single_embedding_has_no_pair(reduction, backend):
    tensors = {"e": make_inputs(ED, 34, 5, 19, torch.float32)[0]["e"][:1], "y": torch.arange(34)}
    for how in ({}, {"sample_weights": torch.rand(34)}):
        result = evaluate(ED, tensors, {}, {"reduction": reduction, **how}, backend)
        assert result["loss"].shape == ((34,) if reduction == "none" else ())
        assert all(value.eq(0).all() for value in result.values())


@backends
@pytest.mark.parametrize("spec", [*CLASSIFIERS, *CENTERS, ED], ids=lambda spec: spec.name)
def test_what_gets_no_gradient_is_refused_by_name(spec, backend):
    tensors, options = make_inputs(spec, 6, 4, 8, torch.float32)
    call = getattr(functional, spec.function)
    for name in ("sample_weights", "centers", "class_weights"):
        if name in tensors or name == "sample_weights":
            given = tensors | {name: tensors.get(name, torch.ones(6)).clone().requires_grad_()}
            with pytest.raises(ValueError, match=f"^{name}: requires a gradient"):
                call(**by_public_name(given), **options, backend=backend)
    numbers = {"lambda_", "alpha", "lambda1", "" if "softmax" in spec.name else "m"}
    for name in numbers & set(spec.params._fields):
        with pytest.raises(ValueError, match=f"^{name}: a tensor that requires a gradient"):
            call(**by_public_name(tensors), **options, **{name: torch.tensor(0.5, requires_grad=True)}, backend=backend)
    if spec.family == "classifier":
        soft = torch.rand(6, 4, requires_grad=True)
        with pytest.raises(ValueError, match=r"^labels: requires a gradient"):
            call(**by_public_name(tensors) | {"labels": soft}, **options, backend=backend)


BAD = {
    "sample_weights": [
        (torch.ones(5), r"expected shape \(6,\), got \(5,\)"),
        (torch.ones(6, dtype=torch.int64), "dtype of"),
        (torch.ones(6, device="meta"), "meta device"),
        (-torch.ones(6), "-1 given; allowed are finite values >= 0"),
        (torch.full((6,), torch.nan), "nan given; allowed are finite"),
        (torch.full((6,), torch.inf), "inf given; allowed are finite"),
    ],
    "label_smoothing": [(-0.1, "allowed are values from 0 to 1"), (1.5, "allowed are values from 0 to 1")],
    "s": [
        (torch.ones(2), r"a number or a tensor of shape \(\), got \(2,\)"),
        (torch.tensor(-1.0), "allowed are finite values > 0"),
        (torch.tensor(3), "dtype of"),
    ],
}


@backends
def test_bad_options_are_named(backend):
    tensors, options = make_inputs(LOSSES["lmcl"], 6, 4, 8, torch.float32)
    tensors = by_public_name(tensors)
    for name, bad in BAD.items():
        for value, said in bad:
            with pytest.raises(ValueError, match=f"^{name}: .*{said}"):
                functional.lmcl_loss(**tensors, **options, **{name: value}, backend=backend)
    with pytest.raises(ValueError, match=r"^weight: expected a tensor \(C, d\), got NoneType"):
        functional.lmcl_loss(**tensors | {"weight": None}, label_smoothing=0.1, backend=backend)
    for labels, said in (
        (torch.ones(6, 3), r"\(6, 4\) of soft labels, got \(6, 3\)"),
        (torch.ones(6), "integer dtype"),
    ):
        with pytest.raises(ValueError, match=f"^labels: expected .*{said}"):
            functional.lmcl_loss(**tensors | {"labels": labels}, backend=backend)
    with pytest.raises(ValueError, match=r"^labels: .*ignore_index is of hard labels; got soft labels \(6, 4\)"):
        functional.lmcl_loss(**tensors | {"labels": torch.ones(6, 4)}, ignore_index=-100, backend=backend)


@backends
@pytest.mark.parametrize("name", ["nfd", "fd", "md", "ad-corre", "marginal", "range"])
def test_losses_that_compare_rows_refuse_weights_of_them(name, backend):
    spec = LOSSES[name]
    tensors, options = make_inputs(spec, 6, 4, 8, torch.float32)
    features = next(iter(tensors.values()))
    loss = getattr(losses, spec.cls)(*(4,) * (spec.family == "correlation"), backend=backend)
    with pytest.raises(ValueError, match=f"^sample_weights: {spec.cls} does not sum over rows and takes none"):
        loss(features, tensors["y"], sample_weights=torch.ones(6))
    with pytest.raises(TypeError, match=rf"^{spec.function}\(\) got an unexpected keyword argument 'sample_weights'"):
        getattr(functional, spec.function)(
            **by_public_name(tensors), **options, sample_weights=torch.ones(6), backend=backend
        )
    with pytest.raises(ValueError, match=r"^reduction: 'none' given; allowed are mean, sum"):
        getattr(functional, spec.function)(**by_public_name(tensors), **options, reduction="none", backend=backend)


@pytest.mark.parametrize("spec", LOSSES.values(), ids=lambda spec: spec.name)
def test_only_sums_over_rows_have_losses_of_rows(spec):
    sums = ("center", "weighted-cluster", "affinity", "ed")
    taken = spec.family in ("classifier", "contrastive") or spec.name in sums
    assert ("none" in spec.reductions) == taken
    if spec.family == "center" and not taken:
        with pytest.raises(ValueError, match=r"^reduction: 'none' given; allowed are mean, sum"):
            getattr(losses, spec.cls)(4, 8, reduction="none")
        tensors, options = make_inputs(spec, 6, 4, 8, torch.float32)
        with pytest.raises(ValueError, match=r"^reduction: 'none' given; allowed are mean, sum"):
            getattr(functional, spec.function)(**by_public_name(tensors), **options, reduction="none")


def test_joint_losses_of_rows_are_of_both():
    head = losses.SoftmaxLoss(4, 8, reduction="none")
    with pytest.raises(ValueError, match=r"^reduction: 'none' beside 'mean'"):
        losses.JointLoss(head, losses.IslandLoss(4, 8), 0.1)
    joint = losses.JointLoss(head, losses.CenterLoss(4, 8, reduction="none"), 0.1)
    assert joint(torch.randn(6, 8), torch.arange(6) % 4).shape == (6,)


@pytest.mark.parametrize("cls", [losses.LMCLLoss, losses.ArcFaceLoss])
def test_a_scale_is_a_parameter_a_buffer_or_a_number(cls):
    learnt = cls(4, 8, s=torch.nn.Parameter(torch.tensor(16.0)))
    assert {name for name, _ in learnt.named_parameters()} == {"weight", "s"}
    learnt(torch.randn(6, 8), torch.arange(6) % 4).backward()
    assert learnt.s.grad.shape == ()
    assert learnt.s.grad != 0
    assert [name for name, _ in cls(4, 8, s=torch.tensor(16.0)).named_buffers()] == ["s"]
    assert cls(4, 8, s=16.0).state_dict().keys() == {"weight"}


@backends
def test_one_call_says_nothing_of_the_next_with_other_options(backend):
    """Plans are remembered by kinds of calls."""
    tensors, _ = make_inputs(LOSSES["lmcl"], 40, 4, 8, torch.float32)
    soft = torch.rand(40, 4).softmax(1)
    kinds = [{}, {"label_smoothing": 0.2}, {"sample_weights": torch.rand(40)}, {"labels": soft}, {"reduction": "none"}]
    kinds += [{"ignore_index": 1}, {"s": torch.tensor(9.0)}, {"s": torch.tensor(9.0, requires_grad=True)}, {}]
    for how in kinds:
        given = by_public_name(tensors) | how
        expected = functional.lmcl_loss(**given, backend="reference")
        torch.testing.assert_close(functional.lmcl_loss(**given, backend=backend), expected)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_weights_of_embeddings_compile_as_one_graph(reduction):
    tensors, _ = draw(ED, "ragged", "weights", torch.float32, 0)
    loss, gradients = losses.EDLoss(reduction=reduction), []
    for run in (torch.compile(loss, fullgraph=True, backend="aot_eager"), loss):
        e = tensors["e"].clone().requires_grad_()
        run(e, sample_weights=tensors["sample_weights"]).sum().backward()
        gradients.append(e.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_options_compile_as_one_graph(reduction):
    tensors, _ = draw(LOSSES["lmcl"], "ragged", "weights", torch.float32, 0)
    x, y, weights = tensors["x"].nan_to_num(), tensors["y"], tensors["sample_weights"]
    how = {"label_smoothing": 0.1, "ignore_index": 2, "reduction": reduction}
    head = losses.LMCLLoss(5, 19, s=torch.nn.Parameter(torch.tensor(9.0)), **how)
    joint = losses.JointLoss(head, losses.CenterLoss(5, 19, reduction=reduction), 0.5)
    joint.train(reduction != "none")  # losses of rows are compiled where centers stay
    results = []
    for run in (torch.compile(joint, fullgraph=True, backend="aot_eager"), joint):
        joint.auxiliary.centers.copy_(torch.ones(5, 19))
        joint.zero_grad()
        run(x, y, sample_weights=weights).sum().backward()
        results.append([head.weight.grad.clone(), head.s.grad.clone(), joint.auxiliary.centers.clone()])
    for compiled, eager in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)


def test_losses_of_rows_have_no_second_derivative():
    x, head = torch.randn(6, 8, requires_grad=True), losses.SoftmaxLoss(4, 8, reduction="none")
    (gradient,) = torch.autograd.grad(head(x, torch.arange(6) % 4).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r'no second derivative; backend="reference" has'):
        gradient.sum().backward()
