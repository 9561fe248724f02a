"""The operators inside PyTorch: opcheck, torch.compile, autocast, accumulation, no_grad, second derivatives."""

from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cases import evaluate, make_inputs
from fer_fast import functional, losses
from fer_fast.dispatch import triton_runs_on
from fer_fast.registry import LOSSES, by_public_name

C, D, N = 4, 16, 12
SPECS = [pytest.param(spec, id=name) for name, spec in LOSSES.items()]


class Recorded(TorchDispatchMode):
    """The calls of our operators made inside."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "fer_fast":
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


class Written(TorchDispatchMode):
    """The most bytes of one tensor that any operation inside returned new."""

    def __init__(self):
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in given:
            self.most = max(self.most, result.untyped_storage().nbytes())
        return result


def opcheck(func, args):
    args = [a.detach().clone().requires_grad_(a.requires_grad) if isinstance(a, torch.Tensor) else a for a in args]
    report = torch.library.opcheck(func, tuple(args))
    assert set(report.values()) == {"SUCCESS"}


@pytest.mark.parametrize("spec", SPECS)
def test_opcheck_of_losses(spec):
    tensors, options = make_inputs(spec, N, C, D, torch.float32)
    with Recorded() as recorded:
        evaluate(spec, tensors, options, backend="blocked")
    (func, args), *_ = recorded.calls
    assert any(isinstance(a, torch.Tensor) and a.requires_grad for a in args)
    opcheck(func, args)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("soft", [False, True])
def test_opcheck_of_options(soft, reduction):
    tensors, _ = make_inputs(LOSSES["lmcl"], N, C, D, torch.float32)
    tensors |= {"sample_weights": torch.rand(N), "s": torch.tensor(9.0, requires_grad=True)}
    tensors |= {"y": torch.rand(N, C).softmax(1)} if soft else {}
    tensors["x"].requires_grad_()
    with Recorded() as recorded:
        functional.lmcl_loss(**by_public_name(tensors), label_smoothing=0.1, reduction=reduction, backend="blocked")
    opcheck(*recorded.calls[0])


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_opcheck_of_weighted_embeddings(reduction):
    e = torch.randn(3, N, D, requires_grad=True)
    with Recorded() as recorded:
        functional.ed_loss(e, sample_weights=torch.rand(N), reduction=reduction, backend="blocked")
    opcheck(*recorded.calls[0])


@pytest.mark.parametrize("name", ["correlation_matrix", "center_distances", "anti_center_distances", "log_denominator"])
def test_opcheck_of_primitives(name):
    x, y, centers = torch.randn(N, D, requires_grad=True), torch.arange(N) % C, torch.randn(C, D)
    call = {
        "correlation_matrix": lambda **how: functional.correlation_matrix(x, **how),
        "center_distances": lambda **how: functional.center_distances(x, centers, **how),
        "anti_center_distances": lambda **how: functional.anti_center_distances(x, y, centers, **how),
        "log_denominator": lambda **how: functional.contrastive_log_denominator(
            x, y, centers, torch.arange(C), 0.5, "ensc", **how
        ),
    }[name]
    with Recorded() as recorded:
        result = call(backend="blocked")
    expected = call(backend="reference")
    torch.testing.assert_close(result, expected)
    cotangent = torch.randn_like(result)
    gradients = [torch.autograd.grad(r, x, cotangent)[0] for r in (result, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    opcheck(*recorded.calls[0])


@pytest.mark.parametrize("call", [functional.correlation_matrix, functional.contrastive_log_denominator])
def test_primitives_give_the_same_past_the_dispatcher_and_refuse_second_derivatives(call):
    x, y = torch.randn(N, D, requires_grad=True), torch.arange(N) % C
    given = (x,) if call is functional.correlation_matrix else (x, y)
    result = call(*given, backend="blocked")
    with Recorded() as recorded:
        seen = call(*given, backend="blocked")
    assert len(recorded.calls) == 1
    assert torch.equal(result, seen)
    gradients = [torch.autograd.grad(r.square().sum(), x, create_graph=True)[0] for r in (result, seen)]
    assert torch.equal(*gradients)
    with pytest.raises(RuntimeError, match=r'no second derivative; backend="reference" has'):
        gradients[0].sum().backward()


def networks():
    """One module per engine with its inputs: what a step of training does with it."""
    torch.manual_seed(0)
    x, y = torch.randn(N, D), torch.arange(N) % C
    z = torch.nn.functional.normalize(x, dim=1)
    bank = losses.MemoryBank(20, D)
    bank.enqueue(torch.nn.functional.normalize(torch.randn(20, D), dim=1), torch.arange(20) % C)
    return {
        "class_table": (losses.JointLoss(losses.SoftmaxLoss(C, D), losses.VariantLoss(C, D), 0.1), (x, y)),
        "ad_corre": (losses.AdCorreLoss(C), (torch.randn(3, N, D), y, y.flip(0))),
        "pairwise": (losses.MarginalLoss(), (x, y)),
        "range_loss": (losses.RangeLoss(), (x, y)),
        "contrastive": (losses.ENSCLoss(), (z, y, bank)),
    }


def step(loss_module, inputs, run):
    """Loss, gradient of the features and every buffer after one call of `run`."""
    features = inputs[0].clone().requires_grad_()
    loss = run(features, *inputs[1:])
    loss.backward()
    return [loss.detach(), features.grad, *(b.clone() for b in loss_module.buffers())]


@pytest.mark.parametrize("engine", networks())
def test_compiles_as_one_graph(engine):
    eager, inputs = networks()[engine]
    compiled, _ = networks()[engine]
    compiled.load_state_dict(eager.state_dict())
    run = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    for got, expected in zip(step(compiled, inputs, run), step(eager, inputs, eager), strict=True):
        torch.testing.assert_close(got, expected)


def test_compiles_with_inductor():
    head, (x, y) = networks()["class_table"]
    expected = head.eval()(x, y)
    run = torch.compile(lambda x, y: 2 * head(x.relu() - (-x).relu(), y), fullgraph=True)
    torch.testing.assert_close(run(x, y), 2 * expected)


@pytest.mark.parametrize("engine", networks())
def test_second_derivatives_are_refused(engine):
    loss_module, (features, *rest) = networks()[engine]
    features.requires_grad_()
    (gradient,) = torch.autograd.grad(loss_module(features, *rest), features, create_graph=True)
    with pytest.raises(RuntimeError, match=r'no second derivative; backend="reference" has'):
        gradient.sum().backward()


@pytest.mark.parametrize("engine", networks())
def test_backward_twice_scales_and_accumulates(engine):
    loss_module, (features, *rest) = networks()[engine]
    features.requires_grad_()
    loss_module.eval()
    loss = loss_module(features, *rest)
    once = torch.autograd.grad(loss, features, retain_graph=True)[0].clone()
    (3 * loss + loss_module(features, *rest)).backward()
    torch.testing.assert_close(features.grad, 4 * once)
    with torch.no_grad():
        torch.testing.assert_close(loss_module(features, *rest), loss)


def test_no_gradient_is_computed_when_none_can_be_asked_for():
    x, y = torch.randn(N, D), torch.arange(N) % C
    with Recorded() as recorded:
        functional.marginal_loss(x, y, backend="blocked")
        with torch.no_grad():
            functional.marginal_loss(x.requires_grad_(), y, backend="blocked")
        functional.marginal_loss(x, y, backend="blocked")
    assert [args[-2] for _, args in recorded.calls] == [False, False, True]


def values_and_gradients(call, *leaves):
    value = call()
    return [value, *torch.autograd.grad(value.sin().sum(), leaves)]


@pytest.mark.parametrize("spec", SPECS)
def test_autocast_rounds_nothing_of_float32_features(spec):
    tensors, options = make_inputs(spec, N, C, D, torch.float32)
    expected = evaluate(spec, tensors, options, backend="blocked")
    with torch.autocast("cpu", torch.bfloat16):
        for name, value in evaluate(spec, tensors, options, backend="blocked").items():
            assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("name", ["lmcl", "arcface", "a-softmax"])
def test_autocast_rounds_no_gradient_of_many_class_weights(name):
    tensors, options = make_inputs(LOSSES[name], 8, 20_000, 8, torch.float32)  # unit rows by the products' columns
    expected = evaluate(LOSSES[name], tensors, options, backend="blocked")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(evaluate(LOSSES[name], tensors, options, backend="blocked")["dweight"], expected["dweight"])


@pytest.mark.parametrize("name", ["correlation_matrix", "center_distances", "anti_center_distances", "log_denominator"])
def test_autocast_rounds_nothing_of_primitives(name):
    x, y, centers = torch.randn(N, D, requires_grad=True), torch.arange(N) % C, torch.randn(C, D)
    call = {
        "correlation_matrix": lambda: functional.correlation_matrix(x),
        "center_distances": lambda: functional.center_distances(x, centers),
        "anti_center_distances": lambda: functional.anti_center_distances(x, y, centers),
        "log_denominator": lambda: functional.contrastive_log_denominator(x, y, temperature=0.5),
    }[name]
    expected = values_and_gradients(call, x)
    with torch.autocast("cpu", torch.bfloat16):
        for value, exact in zip(values_and_gradients(call, x), expected, strict=True):
            assert torch.equal(value, exact)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_features_meet_float32_tables(dtype):
    joint, (x, y) = networks()["class_table"]
    layer = torch.nn.Linear(D, D)
    with torch.autocast("cpu", dtype):
        features = layer(x)
        assert features.dtype == dtype
        loss = joint(features, y)
    loss.backward()
    assert loss.dtype == torch.float32
    assert joint.classifier.weight.grad.dtype == torch.float32
    assert joint.auxiliary.centers.dtype == torch.float32
    assert torch.isfinite(layer.weight.grad).all()


def test_bad_labels_are_found_inside_a_compiled_graph():
    joint, (x, y) = networks()["class_table"]
    run = torch.compile(joint, fullgraph=True, backend="aot_eager")
    run(x, y)
    with pytest.raises(ValueError, match=rf"labels: class {C} is outside \[0, {C}\)"):
        run(x, torch.full_like(y, C))


def test_a_loss_scale_meets_float16_features():
    """GradScaler's 65 536 is infinite in float16, and a gradient below 6e-8 would be lost there before it comes."""
    torch.manual_seed(0)
    x, y = torch.randn(4096, D).half(), torch.arange(4096) % C
    joint = losses.JointLoss(losses.SoftmaxLoss(C, D), losses.CenterLoss(C, D), 1e-4).eval()
    with torch.no_grad():
        joint.classifier.weight.mul_(0.01)
    features = x.requires_grad_()
    (joint(features, y) * 65536).backward()
    exact = x.detach().double().requires_grad_()
    (joint.double()(exact, y) * 65536).backward()
    assert features.grad.dtype == torch.float16
    assert (features.grad.double() - exact.grad).norm() <= torch.finfo(torch.float16).eps * exact.grad.norm()


def test_one_launch_scales_every_gradient():
    if not triton_runs_on("cpu"):
        pytest.skip("Triton does not run here")
    from fer_fast.kernels.scale.launch import scale

    torch.manual_seed(0)
    gradients = [torch.randn(70, 33), torch.randn(3, 33), torch.randn(0)]
    dtypes = [torch.float16, torch.float32, torch.float32]
    scaled = scale(gradients, dtypes, torch.tensor(65536.0), in_place=False)
    assert [t.dtype for t in scaled] == dtypes
    for got, gradient, dtype in zip(scaled, gradients, dtypes, strict=True):
        assert torch.equal(got, (gradient * 65536).to(dtype))


@pytest.mark.parametrize("watched", [True, False])
def test_eager_calls_go_past_the_dispatcher_unless_someone_looks_on(watched):
    x, y, centers = torch.randn(N, D), torch.arange(N) % C, torch.randn(C, D)
    with torch.profiler.profile() as profile, Recorded() if watched else nullcontext():
        functional.center_loss(x, y, centers, backend="blocked")
    assert ("fer_fast::class_table" in {event.name for event in profile.events()}) == watched


@pytest.mark.parametrize("backend", ["blocked", *(["triton"] if triton_runs_on("cpu") else [])])
def test_a_tensor_marked_as_negated_is_negated(backend):
    x, y, centers = torch.randn(N, D), torch.arange(N) % C, torch.randn(C, D)
    marked = torch.complex(x, -x).conj().imag
    assert marked.is_neg()
    found, expected = (functional.center_loss(t, y, centers, backend=backend) for t in (marked, x))
    torch.testing.assert_close(found, expected)


def test_autograd_is_told_of_moved_centers():
    x, y, centers = torch.randn(N, D), torch.arange(N) % C, torch.randn(C, D)
    saved = (centers * torch.randn(C, D, requires_grad=True)).sum()
    functional.center_loss(x, y, centers, update=True, backend="blocked")
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        saved.backward()


@pytest.mark.parametrize("spec", SPECS)
def test_a_backward_from_one_writes_nothing(spec):
    # The gradients are there since the forward; autograd left alone would fill zeros as large as each of them first.
    tensors, options = make_inputs(spec, N, C, D, torch.float32)
    leaves = [tensors[name].requires_grad_() for name in ("x", "e", "z") if name in tensors]
    loss = getattr(functional, spec.function)(**by_public_name(tensors), **options, backend="blocked")
    with Written() as written:
        (gradient,) = torch.autograd.grad(loss, leaves)
    assert gradient.abs().sum() > 0
    assert written.most < gradient.nbytes
