"""What a backward does with the gradients the forward left: in place and once, and right when it is asked again."""

import copy

import pytest
import torch
from fer_fast.bench.measure import peak_bytes
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fer_fast import functional, losses
from fer_fast.dispatch import triton_runs_on
from fer_fast.ops import autograd
from triton_hostile import DEVICE

C, D, N = 4, 16, 12
FACTORS = [1.0, 0.5, 0.0, 65536.0, float("inf"), float("nan")]
BACKENDS = ["blocked", *(["triton"] if triton_runs_on(DEVICE) else [])]
over_backends = pytest.mark.parametrize("backend", BACKENDS)


def heads(backend: str, dtype: torch.dtype = torch.float32):
    """A loss with gradients of three tensors, one with gradients of one, and the leaves of each."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N, D, generator=g).to(DEVICE, dtype)
    weight, bias = torch.randn(C, D, generator=g).to(DEVICE), torch.randn(C, generator=g).to(DEVICE)
    y = torch.arange(N, device=DEVICE) % C
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    return {
        "softmax": (lambda: functional.softmax_loss(x, y, weight, bias, backend=backend), leaves),
        "marginal": (lambda: functional.marginal_loss(x, y, backend=backend), leaves[:1]),
    }


def over_heads(test):
    for name, values in (("head", ["softmax", "marginal"]), ("backend", BACKENDS)):
        test = pytest.mark.parametrize(name, values)(test)
    return test


def scalar(value: float) -> Tensor:
    return torch.tensor(value, device=DEVICE)


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@over_heads
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_retained_graph_gives_what_a_fresh_one_does(head, backend, dtype):
    call, leaves = heads(backend, dtype)[head]
    fresh = [torch.autograd.grad(call(), leaves, scalar(factor)) for factor in FACTORS]
    loss = call()
    for factor, expected in zip(FACTORS, fresh, strict=True):
        gradients = torch.autograd.grad(loss, leaves, scalar(factor), retain_graph=True)
        assert_same(gradients, expected)
        for gradient in gradients:
            gradient.fill_(7)  # is the caller's own
    assert_same(torch.autograd.grad(loss, leaves, scalar(0.5)), fresh[1])  # the last one, in place
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, leaves)


@over_heads
def test_the_factor_multiplies_exactly(head, backend):
    call, leaves = heads(backend)[head]
    once = torch.autograd.grad(call(), leaves)
    for factor in FACTORS:
        assert_same(torch.autograd.grad(call(), leaves, scalar(factor)), [g * factor for g in once])


@over_heads
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_gradients_accumulate_in_leaves(head, backend, factor):
    call, leaves = heads(backend)[head]
    once = torch.autograd.grad(call(), leaves)
    call().backward(scalar(factor))
    loss = call()
    loss.backward(scalar(factor), retain_graph=True)
    loss.backward(scalar(factor))
    (2 * call() + 3 * call()).backward()
    loss = call()
    (loss * 2 + loss * 3).backward()
    for leaf, gradient in zip(leaves, once, strict=True):
        torch.testing.assert_close(leaf.grad, (3 * factor + 10) * gradient)


@over_heads
@pytest.mark.parametrize("retain", [True, False])
def test_a_hook_may_change_the_gradient_in_place(head, backend, retain):
    call, leaves = heads(backend)[head]
    once = torch.autograd.grad(call(), leaves)
    leaves[0].register_hook(lambda g: g.mul_(2))
    loss = call()
    loss.backward(retain_graph=retain)
    if retain:
        loss.backward()
    torch.testing.assert_close(leaves[0].grad, (4 if retain else 2) * once[0])


@over_heads
def test_activation_checkpointing(head, backend):
    call, leaves = heads(backend)[head]
    once = torch.autograd.grad(call(), leaves)
    checkpoint(call, use_reentrant=False).backward(scalar(0.5))
    assert_same([leaf.grad for leaf in leaves], [0.5 * g for g in once])


@over_heads
def test_a_gradient_that_stops_above_the_loss_stops_there(head, backend):
    class Stop(torch.autograd.Function):
        @staticmethod
        def forward(ctx, loss):
            return loss.clone()

        @staticmethod
        def backward(ctx, grad):
            return None

    call, leaves = heads(backend)[head]
    Stop.apply(call()).backward()
    assert all(leaf.grad is None for leaf in leaves)


@over_backends
def test_a_derivative_through_the_gradient_is_refused_with_any_factor(backend):
    call, leaves = heads(backend)["softmax"]
    for retain in (True, False):
        weight = scalar(0.5).requires_grad_()
        gradients = torch.autograd.grad(weight * call(), leaves, create_graph=True, retain_graph=retain)
        with pytest.raises(RuntimeError, match="no second derivative"):
            sum(g.sum() for g in gradients).backward()


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_a_step_holds_each_gradient_once(factor):
    x, centers = torch.randn(2**14, 256, requires_grad=True), torch.randn(C, 256)
    y = torch.arange(len(x)) % C

    def step():
        (functional.center_loss(x, y, centers, backend="blocked") * factor).backward()

    step()
    x.grad = None  # before the count: memory that is given back would be taken off what is held
    assert x.nbytes <= peak_bytes(step, torch.device("cpu")) < 1.5 * x.nbytes


def test_a_captured_backward_may_be_replayed(monkeypatch):
    # Two replays of a backward captured apart from its forward would apply the factor twice.
    monkeypatch.setattr(autograd, "_get_current_graph_task_keep_graph", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)

    class OnGPU:
        is_cuda = True

    with torch.no_grad():
        assert autograd._may_run_again(OnGPU())
        assert not autograd._may_run_again(torch.ones(()))


def test_scaling_in_place_by_one_touches_nothing(monkeypatch):
    if not triton_runs_on("cpu"):
        pytest.skip("Triton does not run here")
    from fer_fast.bench.audit_traffic import counted
    from fer_fast.kernels.scale import launch as scale

    monkeypatch.setattr(scale, "SCALE_PROGRAMS", 1)  # several blocks to a program
    gradients = [torch.randn(130, 331), torch.randn(3, 33), torch.randn(0)]
    kept = [g.clone() for g in gradients]
    for factor in (1.0, 0.5):
        with counted() as traffic:
            scaled = scale.scale(gradients, [torch.float32] * 3, torch.tensor(factor), in_place=True)
        assert all(s is g for s, g in zip(scaled, gradients, strict=True))
        assert_same(scaled, [k * factor for k in kept])
        moved = 0 if factor == 1 else sum(g.nbytes for g in gradients)
        assert traffic.stored.total() == moved
        assert traffic.loaded.total() - traffic.loaded["factor"] == moved


def test_compiled_steps_scale_too():
    module = losses.JointLoss(losses.SoftmaxLoss(C, D), losses.CenterLoss(C, D), 0.1).eval()
    x, y = torch.randn(N, D, requires_grad=True), torch.arange(N) % C
    run = torch.compile(lambda x: 0.5 * module(x, y), fullgraph=True, backend="aot_eager")
    for call in (run, lambda x: 0.5 * module(x, y)):
        loss = call(x)
        first = torch.autograd.grad(loss, x, retain_graph=True)[0]
        torch.testing.assert_close(torch.autograd.grad(loss, x, scalar(3.0))[0], 3 * first)


@pytest.mark.parametrize("cls", ["CenterLoss", "AffinityLoss"])
@over_backends
def test_losses_of_rows_are_gone_back_over_twice_where_centers_have_moved(backend, cls):
    torch.manual_seed(0)
    x, y = torch.randn(N, D, device=DEVICE, requires_grad=True), torch.arange(N, device=DEVICE) % C
    loss = getattr(losses, cls)(C, D, reduction="none", backend=backend).to(DEVICE)
    total = loss(x, y).sum()
    once = torch.autograd.grad(total, x, retain_graph=True)[0]
    assert once.abs().max() > 0
    assert torch.equal(torch.autograd.grad(total, x)[0], once)


@over_backends
def test_losses_of_rows_whose_centers_move_are_not_compiled(backend):
    """Where a graph may break the call is made as it is; a whole graph is refused."""
    x, y = torch.randn(N, D, device=DEVICE, requires_grad=True), torch.arange(N, device=DEVICE) % C
    loss = losses.CenterLoss(C, D, reduction="none", backend=backend).to(DEVICE)
    torch._dynamo.reset()
    with pytest.raises(Exception, match="cannot move"):
        torch.compile(copy.deepcopy(loss), backend="aot_eager", fullgraph=True)(x, y)
    expected = x.detach() - loss.centers[y]
    torch._dynamo.reset()
    torch.compile(loss, backend="aot_eager")(x, y).sum().backward()
    torch.testing.assert_close(x.grad, expected)
