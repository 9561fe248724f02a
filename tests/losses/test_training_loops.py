"""Every loss in the loops people train with: checkpointing, hooks, scalers, copies, threads, forks."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

import fer_fast
from fer_fast import losses
from fer_fast.dispatch import resolve, triton_runs_on
from fer_fast.registry import LOSSES
from loss_modules import C, D, batch, build

BACKENDS = ["blocked", "reference", *(["triton"] if triton_runs_on("cpu") else [])]
CENTERS = ("center", "island", "variant", "weighted-cluster", "affinity", "mva")
over_losses = pytest.mark.parametrize("spec", [pytest.param(spec, id=name) for name, spec in LOSSES.items()])
over_backends = pytest.mark.parametrize("backend", BACKENDS)


class Step:
    """A layer and a loss: what a step leaves is its loss, every gradient, and every buffer."""

    def __init__(self, spec, backend: str):
        torch.manual_seed(0)
        self.spec, self.loss, self.layer = spec, build(spec, backend=backend), nn.Linear(D, D)
        self.features, self.labels = batch(spec)

    def forward(self, features: Tensor) -> Tensor:
        return self.loss(self.layer(features), self.labels)

    def left(self, run) -> list[Tensor]:
        features = self.features.clone().requires_grad_()
        loss = run(self.forward, features)
        loss.backward()
        parameters = [*self.layer.parameters(), *self.loss.parameters()]
        return [loss.detach(), features.grad, *[p.grad for p in parameters], *self.loss.buffers()]


def same(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def plainly(forward, features: Tensor) -> Tensor:
    return forward(features)


@over_backends
@over_losses
@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing(spec, backend, reentrant):
    """The same step, or, where a forward moves state, one move and an error that says what to do."""
    step = Step(spec, backend)
    run = partial(checkpoint, use_reentrant=reentrant)
    moved = "centers" if spec.name in CENTERS else "lambda_" if spec.name in ("a-softmax", "l-softmax") else ""
    if not moved:
        return same(step.left(run), Step(spec, backend).left(plainly))
    with pytest.raises(RuntimeError, match=rf"{moved}: .*torch\.utils\.checkpoint.*call the loss outside"):
        step.left(run)
    once = Step(spec, backend)
    once.left(plainly)
    assert repr(getattr(step.loss, moved)) == repr(getattr(once.loss, moved))
    step.loss.eval()  # where nothing moves there is nothing to refuse
    once.loss.eval()
    for each in (step, once):
        each.layer.zero_grad()
        each.loss.zero_grad()
    return same(step.left(run), once.left(plainly))


def test_a_window_and_a_bank_move_once_too():
    z, y = torch.nn.functional.normalize(torch.randn(8, D), dim=1).requires_grad_(), torch.arange(8) % C
    bank, window = losses.MemoryBank(16, D), losses.AdCorreLoss(C)

    def enqueued(z):
        bank.enqueue(z, y)
        return losses.SupConLoss()(z, y)

    def observed(z):
        return window(torch.stack((z, z.flip(0))), y, predictions=y)

    for forward, moved in ((enqueued, "memory bank"), (observed, "confusion")):
        with pytest.raises(RuntimeError, match=f"{moved}: .*checkpoint"):
            checkpoint(forward, z, use_reentrant=False).backward()
    assert len(bank) == 8
    assert window.confusion.sum() == 8


@over_backends
@over_losses
def test_saved_tensors_go_through_hooks_once(spec, backend):
    packed, unpacked = [], []

    def pack(tensor):
        packed.append(tensor)
        return len(packed) - 1

    def unpack(place):
        unpacked.append(place)
        return packed[place]

    def hooked(forward, features):
        with saved_tensors_hooks(pack, unpack):
            return forward(features)

    def on_cpu(forward, features):
        with save_on_cpu():
            return forward(features)

    expected = Step(spec, backend).left(plainly)
    same(Step(spec, backend).left(hooked), expected)
    assert sorted(unpacked) == list(range(len(packed)))
    same(Step(spec, backend).left(on_cpu), expected)


@over_backends
@over_losses
def test_a_step_that_overflowed_spoils_nothing(spec, backend):
    """What a gradient scaler skips: a row that is infinite. The steps after it are finite, with their gradients."""
    step = Step(spec, backend)
    fine = step.features
    step.features = fine.clone()
    step.features.flatten()[3] = torch.inf
    scaler, optimiser = torch.amp.GradScaler("cpu"), torch.optim.SGD([*step.layer.parameters()], 0.1)
    before = scaler.get_scale()
    scaler.scale(step.forward(step.features)).backward()
    scaler.step(optimiser)
    scaler.update()
    assert scaler.get_scale() < before
    optimiser.zero_grad()
    step.loss.zero_grad()
    step.features = fine
    assert all(torch.isfinite(t).all() for t in step.left(plainly))


@over_backends
@over_losses
def test_copies_are_the_same_loss(spec, backend):
    module, (features, labels) = build(spec, backend=backend), batch(spec)
    module(features, labels)
    module.eval()
    kept = build(spec, backend=backend).eval()
    kept.load_state_dict(module.state_dict())
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), kept):
        assert torch.equal(other(features, labels), module(features, labels))


@over_backends
@over_losses
def test_half_tables_and_double_tables(spec, backend):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        if backend == "triton" and dtype == torch.bfloat16:
            continue  # whose products the interpreter takes wrongly
        module, (features, labels) = build(spec, backend=backend).to(dtype), batch(spec, dtype=dtype)
        exact = copy.deepcopy(module).double()
        loss, truth = module.eval()(features, labels), exact.eval()(features.double(), labels)
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(loss.double(), truth, rtol=8 * torch.finfo(dtype).eps, atol=1e-12)


@over_backends
@over_losses
def test_inference_mode_and_the_step_after_it(spec, backend):
    step, other = Step(spec, backend), Step(spec, backend)
    with torch.inference_mode():
        seen = step.loss.eval()(step.features, step.labels)
    assert torch.equal(seen, other.loss.eval()(step.features, step.labels))
    for each in (step, other):
        each.loss.train()
    same(step.left(plainly), other.left(plainly))


@over_backends
@over_losses
def test_functional_gradients(spec, backend):
    module, (features, labels) = build(spec).eval(), batch(spec)
    leaf = features.clone().requires_grad_()
    (expected,) = torch.autograd.grad(module(leaf, labels), leaf)
    found = torch.func.grad(lambda features: module(features, labels))(features)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    module.backend = backend
    if backend != "reference":
        with pytest.raises(ValueError, match=rf'backend: "{backend}" does not run under torch\.func'):
            torch.func.grad(lambda features: module(features, labels))(features)
    with pytest.raises(ValueError, match=r"torch\.vmap: a loss takes one batch"):
        torch.vmap(lambda features: module(features, labels))(torch.stack((features, features)))
    if spec.name in CENTERS:
        module.backend = "auto"
        with pytest.raises(RuntimeError, match=r"centers: cannot move under torch\.func"):
            torch.func.grad(lambda features: module.train()(features, labels))(features)


@over_backends
@over_losses
def test_a_gradient_asked_for_twice(spec, backend):
    """What was done to the first answer in place is no part of the second."""
    module, (features, labels) = build(spec, backend=backend).eval(), batch(spec)
    features.requires_grad_()
    loss = module(features, labels)
    (first,) = torch.autograd.grad(loss, features, retain_graph=True)
    kept = first.clone()
    first.mul_(5)
    assert torch.equal(torch.autograd.grad(loss, features)[0], kept)


@pytest.mark.parametrize("backend", [backend for backend in BACKENDS if backend != "reference"])
@over_losses
def test_exported_with_a_batch_of_any_size(spec, backend):
    module = build(spec, backend=backend).eval()
    rows = spec.family == "correlation"  # (k, n, d)
    count = 2 * torch.export.Dim("half", min=2, max=100)
    program = torch.export.export(module, batch(spec), dynamic_shapes=({int(rows): count}, {0: count}))
    features, labels = batch(spec, n=14)
    torch.testing.assert_close(program.module()(features, labels), module(features, labels))


@pytest.mark.parametrize("backend", ["blocked", "reference"])
def test_eight_threads(backend):
    """All with the same modules, as DataParallel's replicas are. Triton's interpreter can run in one thread alone."""
    modules = [(build(spec, backend=backend).eval(), batch(spec)) for spec in LOSSES.values()]

    def gradients(_) -> list[Tensor]:
        found = []
        for module, (features, labels) in modules:
            leaf = features.clone().requires_grad_()
            found.append(torch.autograd.grad(module(leaf, labels), leaf)[0])
        return found

    expected = gradients(0)
    with ThreadPoolExecutor(8) as threads:
        for found in threads.map(gradients, range(8)):
            same(found, expected)


def test_a_backend_is_chosen_for_a_thread():
    with fer_fast.backend("reference"), ThreadPoolExecutor(1) as thread:
        assert thread.submit(resolve, "auto", torch.device("cpu")).result() == "blocked"
        assert resolve("auto", torch.device("cpu")) == "reference"


def _in_child(connection, module, features, labels):
    features.requires_grad_()
    loss = module(features, labels)
    loss.backward()
    connection.send((loss.item(), features.grad.sum().item()))


@pytest.mark.parametrize("name", ["variant", "softmax", "ensc", "ad-corre", "marginal", "range"])
def test_a_fork_after_use(name):
    module, (features, labels) = build(LOSSES[name]).eval(), batch(LOSSES[name])
    leaf = features.clone().requires_grad_()
    loss = module(leaf, labels)
    loss.backward()
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(theirs, module, features, labels))
    child.start()
    assert ours.poll(60)
    assert ours.recv() == (loss.item(), leaf.grad.sum().item())
    child.join()


@over_losses
def test_data_parallel_on_one_device_is_the_loss(spec):
    module, (features, labels) = build(spec), batch(spec)
    if spec.family == "correlation":
        pytest.skip("rows are its second dimension")
    expected = copy.deepcopy(module)(features, labels)
    assert torch.equal(nn.DataParallel(module)(features, labels), expected)
