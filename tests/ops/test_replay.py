"""Calls made again: what two calls must share for one to speak for the other, and that no check is lost by it."""

import gc
import weakref
from itertools import product

import pytest
import torch
from torch import Tensor, nn

import fer_fast
from cases import evaluate, make_inputs
from fer_fast import functional, kinds, replay
from fer_fast.dispatch import triton_runs_on
from fer_fast.registry import LOSSES

BACKENDS = ["blocked", pytest.param("triton", marks=pytest.mark.skipif(not triton_runs_on("cpu"), reason="Triton"))]
MADE = {"nfd", "ed", "mva"}  # tensors are made on the way, or given in a list
N, C, D = 12, 4, 16


@pytest.fixture
def replays(monkeypatch):
    """The replays so far, of this test."""
    if replay.TensorGuards is None:
        pytest.skip("this PyTorch has no guards of tensors")
    kinds.forget()
    made, original = [], replay.Replay.__call__
    monkeypatch.setattr(replay.Replay, "__call__", lambda self, tensors: made.append(self) or original(self, tensors))
    yield made
    kinds.forget()


def centers_of(count: int = C, **how) -> Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(count), **how)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_replay_gives_the_bits_of_a_call(name, backend, replays):
    spec = LOSSES[name]
    for seed in range(3):
        tensors, options = make_inputs(spec, N, C, D, torch.float32, seed=seed)
        again = evaluate(spec, tensors, options, backend=backend)
        before = len(replays)
        kinds.forget()
        anew = evaluate(spec, tensors, options, backend=backend)
        assert len(replays) == before
        assert anew.keys() == again.keys()
        for key, value in anew.items():
            assert torch.equal(value, again[key]), key
        evaluate(spec, *make_inputs(spec, N, C, D, torch.float32, seed=seed + 10), backend=backend)
        assert len(replays) == before + (name not in MADE)


CALL = {"features": torch.randn(N, D), "labels": torch.arange(N) % C, "centers": centers_of(), "update": False}
OTHERS = {
    "rows": {"features": torch.randn(8, D), "labels": torch.arange(8) % C},
    "strides": {"features": torch.randn(D, N).T},
    "a dtype": {"features": torch.randn(N, D).half()},
    "labels' dtype": {"labels": (torch.arange(N) % C).int()},
    "classes": {"centers": centers_of(8)},
    "a parameter": {"features": nn.Parameter(torch.randn(N, D))},
    "a gradient": {"features": torch.randn(N, D, requires_grad=True)},
    "a number": {"alpha": 0.25},
    "an option": {"update": True},
    "a reduction": {"reduction": "sum"},
    "weights": {"sample_weights": torch.rand(N)},
    "misaligned": {"features": torch.randn(N * D + 1)[1:].view(N, D)},
    "negated": {"features": torch.conj(torch.randn(N, D, dtype=torch.complex64)).imag},
}


@pytest.mark.parametrize("other", OTHERS)
def test_whatever_a_call_may_depend_on_makes_another(other, replays):
    for _ in range(2):
        functional.center_loss(**CALL, backend="blocked")
    assert len(replays) == 1
    given = CALL | OTHERS[other] | {"centers": OTHERS[other].get("centers", CALL["centers"]).clone()}
    before = given["centers"].clone()
    loss = functional.center_loss(**given, backend="blocked")
    assert len(replays) == 1
    right = functional.center_loss(**given | {"centers": before, "update": False}, backend="reference")
    torch.testing.assert_close(loss, right)
    assert loss.requires_grad == given["features"].requires_grad
    assert torch.equal(before, given["centers"]) != given["update"]


def test_a_truth_is_no_number(replays):
    x, y = torch.randn(N, D), torch.arange(N) % C
    for _ in range(2):
        functional.lmcl_loss(x, y, centers_of(), s=1, backend="blocked")
    with pytest.raises(ValueError, match="expected a number"):
        functional.lmcl_loss(x, y, centers_of(), s=True, backend="blocked")


def test_the_preferred_backend_and_who_wants_gradients_are_of_the_call(replays):
    x, y, centers = torch.randn(N, D, requires_grad=True), torch.arange(N) % C, centers_of()
    for name, gradient in product(("blocked", "reference"), (True, False)):
        for _ in range(2):
            with fer_fast.backend(name), torch.set_grad_enabled(gradient):
                loss = functional.center_loss(x, y, centers)
            assert loss.requires_grad == gradient
            assert (name == "reference" or not gradient) == (type(loss.grad_fn).__name__ != "DirectBackward")
    assert len(replays) == 2


def test_tensors_in_two_places_speak_for_none_apart(replays):
    z, y = nn.functional.normalize(torch.randn(N, D), dim=1), torch.arange(N) % C
    other = nn.functional.normalize(torch.randn(N, D), dim=1)
    for bank in (z, z, other):
        right = functional.esc_loss(z, y, bank, y.clone(), backend="reference")
        torch.testing.assert_close(functional.esc_loss(z, y, bank, y.clone(), backend="blocked"), right)
    assert not replays


@pytest.mark.parametrize("bad", [{"labels": torch.full((N,), C)}, {"sample_weights": torch.full((N,), -1.0)}])
def test_values_are_looked_at_each_time(bad, replays):
    given = CALL | ({"sample_weights": torch.ones(N)} if "sample_weights" in bad else {})
    for _ in range(2):
        functional.center_loss(**given, backend="blocked")
    with pytest.raises(ValueError, match=f"{'labels: class 4' if 'labels' in bad else 'sample_weights: -1'}"):
        functional.center_loss(**given | bad, backend="blocked")


def test_a_call_inside_a_backward_or_looking_for_anomalies_is_made_in_full(replays):
    x, y, centers = torch.randn(N, D, requires_grad=True), torch.arange(N) % C, centers_of()

    def loss(x: Tensor) -> Tensor:
        return functional.center_loss(x, y, centers, update=True, backend="blocked")

    for _ in range(2):
        loss(x)
    checkpointed = torch.utils.checkpoint.checkpoint(loss, x, use_reentrant=False)
    with pytest.raises(RuntimeError, match="runs a second time"):
        checkpointed.backward()
    z = torch.randn(N, D)
    for _ in range(2):
        functional.supcon_loss(z, y, backend="blocked")
    with torch.autograd.detect_anomaly(check_nan=False), pytest.raises(ValueError, match="length"):
        functional.supcon_loss(z, y, backend="blocked")


def test_nothing_is_held_and_what_is_remembered_is_bounded(monkeypatch, replays):
    monkeypatch.setattr(replay, "_MOST", (2, 2))
    for n, alpha in product(range(2, 7), (0.1, 0.2, 0.3, 0.4)):
        x = torch.randn(n, D)
        functional.center_loss(x, torch.arange(n) % C, centers_of(), alpha=alpha, backend="blocked")
        gone = weakref.ref(x)
        del x
        gc.collect()
        assert gone() is None
    kept = [known for known in kinds._REMEMBERED if any(isinstance(of, tuple) for of in known.values())]
    assert [len(known) for known in kept] == [2, 2]  # the function's and what it calls
    assert all(len(replays) <= 2 for known in kept for replays in known.values())


ODD = {
    "nested": lambda x: torch.nested.nested_tensor([x]),
    "sparse": Tensor.to_sparse,
    "compressed": Tensor.to_sparse_csr,
    "of another library": Tensor.to_mkldnn,
    "quantised": lambda x: torch.quantize_per_tensor(x, 1, 0, torch.quint8),
    "on the meta device": lambda x: x.to("meta"),
    "zeros that lie nowhere": lambda x: torch._efficientzerotensor(x.shape),
    "negated": torch._neg_view,
    "conjugated": lambda x: x.to(torch.complex64).conj(),
    "an 8-bit float": lambda x: x.to(torch.float8_e5m2),
    "a list": Tensor.tolist,
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ODD)
def test_a_tensor_that_is_none_of_the_ordinary_is_not_taken_for_one(name, replays):
    for _ in range(2):
        functional.center_loss(**CALL, backend="blocked")
    odd = CALL | {"features": ODD[name](CALL["features"])}
    for _ in range(2):
        if name in ("negated", "zeros that lie nowhere"):
            right = functional.center_loss(**odd, backend="reference")
            torch.testing.assert_close(functional.center_loss(**odd, backend="blocked"), right)
        else:
            with pytest.raises(ValueError, match="features"):
                functional.center_loss(**odd, backend="blocked")
    assert replays.count(replays[0]) == 1


def test_without_guards_calls_are_made_in_full(monkeypatch, replays):
    monkeypatch.setattr(replay, "TensorGuards", None)
    for _ in range(3):
        functional.center_loss(**CALL, backend="blocked")
    assert not replays
