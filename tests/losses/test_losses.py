"""The public losses: every row of the registry exists, keeps its promises, and refuses bad arguments by name."""

import inspect
import math
import pickle

import pytest
import torch

import fer_fast
from cases import double, evaluate, make_inputs
from fer_fast import functional, losses, reference
from fer_fast.dispatch import triton_runs_on
from fer_fast.registry import LOSSES, by_public_name, call
from loss_modules import C, D, N, batch, build

SPECS = [pytest.param(spec, id=name) for name, spec in LOSSES.items()]
CENTER_FAMILY = [pytest.param(spec, id=name) for name, spec in LOSSES.items() if spec.family == "center"]


@pytest.mark.parametrize("spec", SPECS)
def test_module_is_its_function(spec):
    loss_module = build(spec, backend="reference")
    features, labels = batch(spec)
    features.requires_grad_()
    tables = {name: t.clone() for name, t in [*loss_module.named_parameters(), *loss_module.named_buffers()]}
    options = loss_module.params._asdict()
    if spec.name in ("fd", "ad-corre"):
        options["class_difficulty"] = loss_module.class_difficulty
    if spec.name in ("nfd", "md"):
        options["num_classes"] = C
    for state in ("confusion", "steps"):
        tables.pop(state, None)
    expected = getattr(functional, spec.function)(features, labels, **tables, **options, backend="reference")
    value = loss_module(features, labels)
    assert value.ndim == 0
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)
    value.backward()
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("spec", SPECS)
def test_hyper_parameters_are_those_declared_beside_the_formula(spec):
    declared = spec.params._field_defaults

    def taken(function) -> dict:
        return {name: p.default for name, p in inspect.signature(function).parameters.items() if name in declared}

    assert tuple(declared) == spec.params._fields
    assert taken(getattr(functional, spec.function)) == declared
    assert taken(spec.reference) | (taken(spec.update) if spec.update else {}) == declared
    module = build(spec)
    if "lambda_" in declared:
        module.steps.fill_(10**9)  # λ has fallen to where it stays
    else:
        assert taken(type(module)) == declared
    assert module.params == spec.params()


def test_signatures_name_every_argument():
    group = "torch.distributed.distributed_c10d.ProcessGroup | str | None"
    shared = f"process_group: {group} = None, gradients: Literal['mean', 'sum'] = 'mean'"
    assert str(inspect.signature(losses.VariantLoss)) == (
        "(num_classes: int, feature_dim: int, lambda1: float = 0.4, lambda2: float = 0.6, eps1: float = 0.01, "
        "eps2: float = 0.01, alpha: float = 0.5, feature_gradient: Literal['exact', 'paper'] = 'exact', *, "
        "reduction: Literal['mean', 'sum', 'none'] = 'mean', "
        "backend: Literal['auto', 'triton', 'blocked', 'reference'] = 'auto', "
        f"empty: Literal['error', 'zero'] = 'error', {shared})"
    )
    assert str(inspect.signature(functional.lmcl_loss)) == (
        "(features: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, *, s: float | torch.Tensor = 30.0, "
        "m: float = 0.35, sample_weights: torch.Tensor | None = None, label_smoothing: float = 0.0, "
        "ignore_index: int | None = None, num_classes: int | None = None, "
        "reduction: Literal['mean', 'sum', 'none'] = 'mean', "
        f"backend: Literal['auto', 'triton', 'blocked', 'reference'] = 'auto', {shared}) -> torch.Tensor"
    )
    for cls in (losses.SoftmaxLoss, losses.ArcFaceLoss, losses.ASoftmaxLoss):
        assert str(inspect.signature(cls)).endswith(
            "*, label_smoothing: float = 0.0, ignore_index: int | None = None, "
            "sharded: bool = False, negative_share: float = 1.0, "
            "reduction: Literal['mean', 'sum', 'none'] = 'mean', "
            "backend: Literal['auto', 'triton', 'blocked', 'reference'] = 'auto', "
            f"empty: Literal['error', 'zero'] = 'error', {shared})"
        )
    by_place = losses.VariantLoss(C, D, 0.1, 0.2, 0.3, eps2=0.4, feature_gradient="paper")
    assert by_place.params == (0.1, 0.2, 0.3, 0.4, 0.5, "paper")


@pytest.mark.parametrize("spec", SPECS)
def test_functions_and_modules_pickle(spec):
    function = getattr(functional, spec.function)
    assert pickle.loads(pickle.dumps(function)) is function
    module = build(spec)
    again = pickle.loads(pickle.dumps(module))
    assert repr(again) == repr(module)
    assert again.params == module.params
    assert function.__doc__


@pytest.mark.parametrize("spec", SPECS)
def test_unknown_keywords_are_named(spec):
    with pytest.raises(TypeError, match="unexpected keyword argument 'lamda'"):
        build(spec, lamda=1.0)
    tensors, options = make_inputs(spec, N, C, D, torch.float32)
    with pytest.raises(TypeError, match="unexpected keyword argument 'lamda'"):
        getattr(functional, spec.function)(**by_public_name(tensors), **options, lamda=1.0)


@pytest.mark.parametrize("spec", CENTER_FAMILY)
def test_centers_move_in_training_only(spec):
    loss_module = build(spec)
    x, y = batch(spec)
    old = loss_module.centers.clone()
    expected = call(spec.update, x=x, y=y, centers=old, **loss_module.params._asdict())
    loss_module.eval()
    loss_module(x, y)
    assert torch.equal(loss_module.centers, old)
    loss_module.train()
    with torch.no_grad():
        loss_module(x, y)
    torch.testing.assert_close(loss_module.centers, expected)
    assert not torch.equal(expected, old)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_bad_arguments_are_named(spec, backend):
    loss_module = build(spec, backend=backend)
    features, labels = batch(spec)
    with pytest.raises(ValueError, match=r"dtype.*int"):
        loss_module(features.long(), labels)
    with pytest.raises(ValueError, match="shape"):
        loss_module(features[..., 0], labels)
    with pytest.raises(ValueError, match="at least one row"):
        loss_module(features[..., :0, :], labels[:0])
    with pytest.raises(ValueError, match=r"labels: expected shape \(8,\)"):
        loss_module(features, labels[:-1])
    with pytest.raises(ValueError, match="integer dtype"):
        loss_module(features, labels.float())
    if spec.family in ("classifier", "center") or (spec.family == "correlation" and spec.name != "ed"):
        for bad in (-1, C):
            with pytest.raises(ValueError, match=rf"labels: class {bad} is outside \[0, {C}\)"):
                loss_module(features, torch.full_like(labels, bad))
    if spec.family in ("classifier", "center"):
        with pytest.raises(ValueError, match=rf"^features: expected \(n, {D}\) to match (weight|centers), got"):
            loss_module(features[:, :-1], labels)


@pytest.mark.parametrize("cls", [losses.SoftmaxLoss, losses.WeightedClusterLoss])
@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0, math.nan, 1.0, 1.0], "nan for class 1"), ([1.0, 1.0, -2.0, 1.0], "-2 for class 2"), ([1.0], "expected")],
)
def test_bad_class_weights_are_named(cls, weights, message):
    with pytest.raises(ValueError, match=f"class_weights: .*{message}"):
        cls(C, D, class_weights=weights)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.CenterLoss(0, D), "num_classes: 0 given"),
        (lambda: losses.AffinityLoss(1, D), "num_classes: 1 given"),
        (lambda: losses.SoftmaxLoss(C, 1.5), "feature_dim: 1.5 given"),
        (lambda: losses.SupConLoss(temperature=0), "temperature: 0 given"),
        (lambda: losses.SupConLoss(temperature=math.nan), "temperature: nan given"),
        (lambda: losses.CenterLoss(C, D, reduction="total"), "reduction: 'total' given"),
        (lambda: losses.CenterLoss(C, D, backend="trition"), 'did you mean "triton"'),
        (lambda: losses.VariantLoss(C, D, feature_gradient="exakt"), 'did you mean "exact"'),
        (lambda: losses.VariantLoss(C, D, 0.4, -1.0), "lambda2: -1.0 given"),
        (lambda: losses.WeightedClusterLoss(C, D, alpha=0), "alpha: 0 given"),
        (lambda: losses.LMCLLoss(C, D, 0.0), "s: 0.0 given"),
        (lambda: losses.LSoftmaxLoss(C, D, 2.5), "m: 2.5 given"),
        (lambda: functional.lmcl_loss(*torch.eye(3), s=math.inf), "s: inf given"),
        (lambda: functional.range_loss(*torch.eye(2), k=0), "k: 0 given"),
        (lambda: losses.JointLoss(losses.CenterLoss(C, D), losses.CenterLoss(C, D), 1.0), "classifier: CenterLoss"),
        (lambda: losses.MemoryBank(0, D), "capacity: 0 given"),
        (lambda: losses.MemoryBank(3, D, torch.int8), "dtype: .*torch.int8"),
        (lambda: losses.SelfConLoss()(torch.randn(3, D)), "an even number"),
        (
            lambda: functional.contrastive_log_denominator(torch.randn(2, D), torch.zeros(2).long(), mode="all"),
            "mode: 'all'",
        ),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("auxiliary", [s.values[0] for s in CENTER_FAMILY], ids=lambda s: s.name)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_joint_is_the_weighted_sum(auxiliary, backend):
    torch.manual_seed(0)
    classifier, extra = losses.SoftmaxLoss(C, D), build(auxiliary)
    joint = losses.JointLoss(classifier, extra, 0.3)
    x, y = batch(auxiliary)
    old = extra.centers.clone()
    with fer_fast.backend(backend):
        x.requires_grad_()
        together = joint(x, y)
        moved = extra.centers.clone()
        extra.centers.copy_(old)
        apart = classifier(x, y) + 0.3 * extra(x, y)
        torch.testing.assert_close(together, apart)
        torch.testing.assert_close(moved, extra.centers)
        of = [x, classifier.weight, classifier.bias]
        for got, expected in zip(torch.autograd.grad(together, of), torch.autograd.grad(apart, of), strict=True):
            torch.testing.assert_close(got, expected)


def test_joint_passes_the_bank_on():
    bank = losses.MemoryBank(16, D)
    bank.enqueue(torch.randn(5, D), torch.arange(5) % C)
    mva = losses.MVALoss(C, D).eval()
    joint = losses.JointLoss(losses.SoftmaxLoss(C, D), mva, 2.0)
    x, y = torch.randn(N, D), torch.arange(N) % C
    assert joint(x, y, bank=bank) != joint(x, y)
    torch.testing.assert_close(joint(x, y, bank=bank), joint.classifier(x, y) + 2 * mva(x, y, bank=bank))


def test_joint_of_what_cannot_share_a_pass():
    joint = losses.JointLoss(losses.SoftmaxLoss(C, D), losses.MarginalLoss(), 0.5)
    x, y = torch.randn(N, D), torch.arange(N) % C
    torch.testing.assert_close(joint(x, y), joint.classifier(x, y) + 0.5 * joint.auxiliary(x, y))


def test_lambda_falls_and_is_kept():
    head = losses.ASoftmaxLoss(C, D)
    x, y = torch.randn(N, D), torch.arange(N) % C
    assert head.lambda_ == 1000
    for _ in range(3):
        head(x, y)
    assert head.lambda_ == pytest.approx(1000 / (1 + 0.12 * 3))
    head.eval()
    head(x, y)
    other = losses.ASoftmaxLoss(C, D)
    other.load_state_dict(head.state_dict())
    assert other.lambda_ == head.lambda_
    other.steps.fill_(10**6)
    assert other.lambda_ == 5.0


def test_confusion_window_follows_the_loss():
    fd = losses.FDLoss(2, history=2)
    e, y = torch.randn(3, 4, D), torch.tensor([0, 0, 1, 1])
    before = fd.class_difficulty
    first = fd(e, y, predictions=torch.tensor([0, 1, 1, 1]))
    torch.testing.assert_close(first, functional.fd_loss(e, y, before))
    # Class 0 was right once in two, class 1 always.
    torch.testing.assert_close(fd.class_difficulty, torch.tensor([0.5, 0.0]) + 1e-6)
    for _ in range(2):
        fd(e, y, predictions=y)
    torch.testing.assert_close(fd.class_difficulty, torch.full((2,), 1e-6))  # the first batch has left the window
    fd.eval()
    fd(e, y, predictions=1 - y)
    torch.testing.assert_close(fd.class_difficulty, torch.full((2,), 1e-6))
    with pytest.raises(ValueError, match=r"predictions: class 7 is outside \[0, 2\)"):
        fd.train()(e, y, predictions=torch.full((4,), 7))


@pytest.mark.parametrize("spec", [s for s in SPECS if s.values[0].family == "classifier"])
def test_logits_are_scores_without_a_margin(spec):
    head = build(spec)
    x, _ = batch(spec)
    logits = head.logits(x)
    assert logits.shape == (len(x), C)
    if spec.cls == "SoftmaxLoss":
        torch.testing.assert_close(logits, x @ head.weight.T + head.bias)
    if spec.name == "lmcl":
        assert logits.abs().max() <= 30.001


def test_backend_context_and_argument():
    spec = LOSSES["center"]
    tensors, options = make_inputs(spec, N, C, D, torch.float64)
    with fer_fast.backend("reference"):
        inside = evaluate(spec, tensors, options)
    assert torch.equal(inside["loss"], evaluate(spec, tensors, options, backend="reference")["loss"])
    with pytest.raises(ValueError, match="backend: 'cuda' is not one of"), fer_fast.backend("cuda"):
        pass


def test_available_names_every_loss_of_the_command_line():
    names = (
        "softmax weighted-softmax lmcl arcface a-softmax l-softmax center island variant weighted-cluster affinity mva "
        "nfd fd md ed ad-corre marginal range selfcon supcon esc ensc"
    )
    assert [spec.name for spec in losses.available()] == names.split()
    for spec in losses.available():
        assert issubclass(getattr(losses, spec.cls), torch.nn.Module)
        assert callable(getattr(functional, spec.function))
        assert spec.family
        assert spec.paper
        assert "reference" in spec.backends


def test_paper_gradient_is_a_switch():
    x, y = torch.randn(N, D, requires_grad=True), torch.arange(N) % C
    exact, paper = losses.VariantLoss(C, D), losses.VariantLoss(C, D, feature_gradient="paper")
    paper.centers.copy_(exact.centers)
    values = [exact.eval()(x, y), paper.eval()(x, y)]
    torch.testing.assert_close(*values)
    difference = torch.autograd.grad(values[1], x)[0] - torch.autograd.grad(values[0], x)[0]
    spread = reference.primitives.center_spread(exact.centers).sum()
    printed = -0.6 * 2 * (C * exact.centers - exact.centers.sum(0)) / (0.01 + spread) ** 2
    torch.testing.assert_close(difference, printed[y] / N, rtol=1e-2, atol=1e-8)


@pytest.mark.parametrize("backend", ["blocked", "triton"])
def test_float64_stays_float64(backend):
    if backend == "triton" and not triton_runs_on("cpu"):
        pytest.skip("Triton does not run here")
    for spec in LOSSES.values():
        tensors, options = make_inputs(spec, N, C, D, torch.float64)
        result = evaluate(spec, double(tensors), options, backend=backend)
        assert {t.dtype for t in result.values()} == {torch.float64}, spec.name
