"""Kinds of calls: what two calls must share for one to speak for the other, and that no check is lost by it."""

from functools import partial
from itertools import product

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cases import evaluate, make_inputs
from fer_fast import functional, kinds
from fer_fast.dispatch import triton_runs_on
from fer_fast.kinds import Kinds, watched
from fer_fast.registry import LOSSES


class Marked(torch.Tensor):
    """A subclass, which may see operators itself."""


X = torch.arange(64.0).view(8, 8)
OTHERS = {
    "shape": (X[:4],),
    "strides": (X.T,),
    "dtype": (X.half(),),
    "device": (X.to("meta"),),
    "absence": (X, None),
    "another tensor": (X, X),
    "a list": ([X],),
    "name": (X, "mean"),
    "number": (X, 3),
    "truth": (X, False),
}
ALONE = {
    "misaligned": X.flatten()[1:],
    "negated": torch.conj(torch.ones(4, dtype=torch.complex64)).imag,
    "sparse": X.to_sparse(),
    "compressed": X.to_sparse_csr(),
    "nested": torch.nested.nested_tensor([X, X[:2]]),
    "subclass": X.as_subclass(Marked),
    "no tensor": object(),
}


def test_calls_alike_in_all_but_values_are_of_a_kind():
    met = Kinds()
    kind = met.of((X, "mean", 0.5, None))
    assert kind is not None
    assert kind is met.of((nn.Parameter(torch.zeros(8, 8)), "mean", 0.25, None))
    assert len(met.known) == 1


def test_whatever_a_plan_may_depend_on_makes_another_kind():
    met = Kinds()
    found = [met.of((X,)), *(met.of(args) for args in OTHERS.values())]
    assert len({id(kind) for kind in found}) == 1 + len(OTHERS)
    assert None not in found


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ALONE)
def test_some_calls_speak_for_no_other(name):
    met = Kinds()
    assert met.of((X, ALONE[name])) is None
    assert met.of((X, [ALONE[name]])) is None
    assert not met.known


def test_nor_does_a_call_of_a_transform_or_compiler():
    met, found = Kinds(), []
    torch.vmap(lambda row: found.append(met.of((row,))) or row)(X)
    torch.func.grad(lambda x: found.append(met.of((x,))) or x.sum())(X)
    torch.compile(lambda x: found.append(met.of((x,))) or x + 1, backend="eager")(X)
    assert found == [None] * 3
    assert not met.known


def test_modes_and_transforms_see_the_operator():
    y, centers, seen = torch.arange(8) % 3, torch.randn(3, 8), []

    class Functions(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    class Operators(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    call = partial(functional.center_loss, X, y, centers, backend="blocked")
    expected = call()
    assert not watched()
    for mode in (Functions, Operators):
        seen.clear()
        with mode():
            assert watched()
            assert torch.equal(call(), expected)
        assert any("fer_fast.class_table" in name for name in seen)
    watchers = []
    torch.vmap(lambda row: watchers.append(watched()) or row)(X)
    assert watchers == [True]


def test_kinds_are_forgotten_before_they_are_too_many(monkeypatch):
    monkeypatch.setattr(kinds, "_MOST_KINDS", 3)
    met = Kinds()
    for n in range(10):
        met.of((n,))
        assert len(met.known) <= 3
    kinds.forget()
    assert not met.known


@pytest.mark.skipif(not triton_runs_on("cpu"), reason="plans are the Triton launchers'")
@pytest.mark.parametrize("name", ["variant", "mva", "ad-corre"])
def test_a_plan_is_made_once_a_kind(name, monkeypatch):
    from fer_fast.kernels.ad_corre import launch as ad_corre
    from fer_fast.kernels.class_table import launch as class_table

    kinds.forget()
    launcher, made = ad_corre if name == "ad-corre" else class_table, []
    plan = launcher.plan
    monkeypatch.setattr(launcher, "plan", lambda *args: made.append(args) or plan(*args))
    tensors, options = make_inputs(LOSSES[name], 12, 4, 16, torch.float32)
    for _ in range(3):
        evaluate(LOSSES[name], tensors, options, backend="triton")
    assert len(made) == 1
    evaluate(LOSSES[name], *make_inputs(LOSSES[name], 11, 4, 16, torch.float32), backend="triton")
    assert len(made) == 2


@pytest.mark.parametrize("backend", ["blocked", "triton"])
def test_a_kind_of_call_may_ask_for_a_gradient_or_not_and_for_moved_centers_or_not(backend):
    if backend == "triton" and not triton_runs_on("cpu"):
        pytest.skip("needs Triton's interpreter")
    y, centers = torch.arange(8) % 3, torch.randn(3, 8)
    for trained, update in product((X, X.clone().requires_grad_()), (False, True)):
        before = centers.clone()
        loss = functional.center_loss(trained, y, centers, update=update, backend=backend)
        assert loss.requires_grad == trained.requires_grad
        assert torch.equal(before, centers) != update
        torch.testing.assert_close(loss, functional.center_loss(trained, y, before, backend="reference"))
