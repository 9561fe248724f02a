"""Plain formulas of a batch on several processes: their second derivatives, transforms, and batches without a row."""

import pytest
import torch
import torch.distributed as dist

from fer_fast import losses
from fer_fast.losses import CenterLoss, MarginalLoss, SoftmaxLoss, SupConLoss
from fer_fast.registry import LOSSES

C, D, COUNTS = 4, 6, (7, 3)
MADE = {
    "softmax": lambda **how: SoftmaxLoss(C, D, **how),
    "center": lambda **how: CenterLoss(C, D, **how),
    "marginal": lambda **how: MarginalLoss(**how),
    "supcon": lambda **how: SupConLoss(normalize=True, **how),
}


def given(name: str, shared: bool, **how) -> tuple:
    """A loss in eval mode, features and labels: all of them, or this process's."""
    torch.manual_seed(1)
    how |= {"backend": "reference", "process_group": dist.group.WORLD if shared else None}
    loss = MADE[name](**how).double().eval()
    x, y = torch.randn(sum(COUNTS), D, dtype=torch.float64), torch.randint(C - 1, (sum(COUNTS),))
    return (loss, *(t.split(COUNTS)[dist.get_rank()] if shared else t for t in (x, y)))


def penalty(name: str, shared: bool) -> dict[str, torch.Tensor]:
    """The gradient of the squared gradient by the features, summed over processes."""
    loss, x, y = given(name, shared, gradients="sum")
    x = x.clone().requires_grad_()
    first = torch.autograd.grad(1.3 * loss(x, y), x, create_graph=True)[0]
    first.square().sum().backward()
    return {"x": x.grad} | {of: parameter.grad for of, parameter in loss.named_parameters()}


@pytest.mark.parametrize("name", MADE)
def test_second_derivatives(two, name):
    expected, found = penalty(name, False), two.run(penalty, name, True)
    assert expected["x"].abs().max() > 1e-4
    whole = {"x": torch.cat([of["x"] for of in found])}
    whole |= {of: found[0][of] + found[1][of] for of in expected if of != "x"}
    torch.testing.assert_close(whole, expected, rtol=1e-11, atol=1e-13)


def transformed(name: str, shared: bool) -> torch.Tensor:
    loss, x, y = given(name, shared, gradients="sum")
    return torch.func.grad(lambda x: loss(x, y))(x).detach()


@pytest.mark.parametrize("name", MADE)
def test_torch_func(two, name):
    found = torch.cat(two.run(transformed, name, True))
    torch.testing.assert_close(found, transformed(name, False), rtol=1e-12, atol=1e-13)


def compiled(name: str, shared: bool) -> list[torch.Tensor]:
    loss, x, y = given(name, shared)
    torch._dynamo.reset()
    gradients = []
    for of in (torch.compile(lambda x: loss(x, y), backend="aot_eager"), lambda x: loss(x, y)):
        leaf = x.clone().requires_grad_()
        of(leaf).backward()
        gradients.append(leaf.grad)
    return gradients


@pytest.mark.parametrize("name", ["center", "supcon"])
def test_torch_compile(two, name):
    for found, expected in two.run(compiled, name, True):
        assert torch.equal(found, expected)


def without_rows(cls: str, reduction: str) -> list[torch.Tensor]:
    """Of both backends the loss, and the gradients of parameters."""
    results = []
    for backend in ("blocked", "reference"):
        torch.manual_seed(1)
        of = getattr(losses, cls)
        sizes = {"classifier": (C, D), "center": (C, D), "correlation": (C,)}.get(of.row.family, ())
        how = {"backend": backend, "reduction": reduction, "process_group": dist.group.WORLD}
        loss = of(*(() if cls == "EDLoss" else sizes), **how).double()
        x = torch.zeros((2, 0, D) if of.row.family == "correlation" else (0, D), dtype=torch.float64)
        value = loss(x.requires_grad_(), torch.zeros(0, dtype=torch.int64))
        value.sum().backward()
        results += [torch.stack([value.detach().sum(), *[p.grad.abs().sum() for p in loss.parameters()]])]
        assert x.grad.shape == x.shape
    return results


EVERY = {spec.cls: spec for spec in LOSSES.values()}


@pytest.mark.parametrize(("cls", "reduction"), [(of, how) for of, spec in EVERY.items() for how in spec.reductions])
def test_no_process_has_a_row(two, cls, reduction):
    for blocked, reference in two.run(without_rows, cls, reduction):
        assert reference.isfinite().all()
        torch.testing.assert_close(reference, blocked, rtol=1e-12, atol=1e-12)


def disagreeing() -> list[str]:
    rank, said = dist.get_rank(), []
    loss, x, y = given("supcon", True)
    weights = torch.ones(len(x), dtype=torch.float64)
    for labels, more, needs in (
        (y.int() if rank else y, {}, False),
        (y, {} if rank else {"sample_weights": weights}, False),
        (y, {}, rank == 0),  # whose backward would wait for the others'
    ):
        with pytest.raises(RuntimeError) as fault:
            loss(x.clone().requires_grad_(needs), labels, **more)
        said.append(str(fault.value))
    return said


def test_processes_that_disagree_say_so(two):
    for rank, said in enumerate(two.run(disagreeing)):
        assert len(said) == 3
        for line in said:
            assert line.startswith(f"supcon: rank {rank} of 2: rank 1 with another call")
