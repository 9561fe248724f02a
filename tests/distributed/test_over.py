"""One line over a model; what PyTorch's own wrappers do around it; what is said where processes disagree."""

from contextlib import nullcontext

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import processes
from fer_fast.distributed import over
from fer_fast.losses import CenterLoss, JointLoss, LMCLLoss, MemoryBank, SoftmaxLoss, SupConLoss, VariantLoss

C, D = 4, 8
SHARES = (11, 6)
STEPS = 3


class Model(nn.Module):
    """A layer and its losses, which a call gives."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(D, D)
        self.objective = JointLoss(SoftmaxLoss(C, D), VariantLoss(C, D), 0.1)
        self.contrastive = SupConLoss(normalize=True)

    def forward(self, x, y):
        features = self.layer(x)
        return self.objective(features, y) + self.contrastive(features, y)


def rows(step: int, rank: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a step all rows, or a process's."""
    generator = torch.Generator().manual_seed(step)
    n = sum(SHARES)
    x, y = torch.randn(n, D, generator=generator), torch.randint(C - 1, (n,), generator=generator)
    return (x, y) if rank is None else (x.split(SHARES)[rank], y.split(SHARES)[rank])


def train(how: str, shared: bool) -> dict[str, torch.Tensor]:
    """What a few steps make of the model."""
    rank = dist.get_rank() if shared else None
    model = Model()
    step_of = over(model) if shared else model
    if how == "outside":  # the layer alone is wrapped, and the losses' parameters have an optimiser as well
        layer = DistributedDataParallel(model.layer) if shared else model.layer
        step_of = lambda x, y: model.objective(features := layer(x), y) + model.contrastive(features, y)  # noqa: E731
    elif shared:
        step_of = DistributedDataParallel(model)
    if how == "compile":
        step_of = torch.compile(step_of, backend="aot_eager")
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, enabled=how == "amp")
    every = 2 if how == "accumulate" else 1
    for step in range(STEPS * every):
        last = step % every == every - 1
        waits = step_of.no_sync() if shared and not last else nullcontext()
        with waits, torch.autocast("cpu", torch.bfloat16, enabled=how == "amp"):
            loss = step_of(*rows(step, rank)) / every
            scaler.scale(loss).backward()
        if last:
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad()
    return {"loss": loss.detach(), **{name: t.clone() for name, t in model.state_dict().items()}}


@pytest.mark.parametrize("how", ["plain", "outside", "accumulate", "amp", "compile"])
def test_training_is_that_of_one_process(two, how):
    expected = train(how, shared=False)
    for found in two.run(train, how, True):
        for name, value in expected.items():
            limits = {"rtol": 2e-2, "atol": 2e-3} if how == "amp" else {"rtol": 1e-5, "atol": 2e-6}
            torch.testing.assert_close(found[name], value, **limits, msg=(name + ": {}").format)


def under_plain_ddp() -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of the layer, and the centers, after a step of losses that do not know of other processes."""
    model = Model()
    DistributedDataParallel(model)(*rows(0, dist.get_rank())).backward()
    return model.layer.weight.grad.clone(), model.objective.auxiliary.centers.clone()


def test_plain_ddp_is_another_loss(two):
    model = Model()
    model(*rows(0, None)).backward()
    (gradient, ours), (_, theirs) = two.run(under_plain_ddp)
    assert not torch.allclose(gradient, model.layer.weight.grad, rtol=1e-2)
    assert not torch.allclose(ours, theirs, rtol=1e-2)
    assert not torch.allclose(ours, model.objective.auxiliary.centers, rtol=1e-2)


def unequal_state() -> list[torch.Tensor]:
    torch.manual_seed(dist.get_rank())
    model = nn.ModuleDict({"loss": JointLoss(LMCLLoss(C, D), CenterLoss(C, D), 0.5), "bank": MemoryBank(5, D)})
    model["bank"].enqueue(torch.randn(3, D), torch.arange(3))
    assert over(model) is model
    ignored = set(model._ddp_params_and_buffers_to_ignore)
    assert {"loss.auxiliary.centers", "bank.ring"} <= ignored
    assert "loss.classifier.weight" not in ignored
    assert model["loss"].classifier.process_group is dist.group.WORLD
    return list(model.state_dict().values())


def test_state_becomes_the_first_process_s(two):
    first, second = two.run(unequal_state)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first, second, strict=True))


def test_without_a_group():
    with pytest.raises(RuntimeError, match="over: no process group"):
        over(SoftmaxLoss(C, D))
    with pytest.raises(RuntimeError, match=r"softmax: there is no process group 'nobody'"):
        SoftmaxLoss(C, D, process_group="nobody")(*rows(0, 0))
    with pytest.raises(ValueError, match="process_group: expected a torch"):
        SoftmaxLoss(C, D, process_group=3)
    with pytest.raises(ValueError, match="gradients"):
        SoftmaxLoss(C, D, gradients="max")


def faults() -> list[str]:
    """What is said on this process, one thing that others do otherwise after another."""
    rank, said = dist.get_rank(), []
    x, y = torch.randn(5, D), torch.arange(5) % C
    for loss, features in (
        (SupConLoss(process_group=dist.group.WORLD), x[:, : D - rank]),
        (SoftmaxLoss(C + rank, D, process_group=dist.group.WORLD), x),
        (CenterLoss(C, D, process_group=dist.group.WORLD), x.to(torch.float64 if rank else torch.float32)),
        (MarginalLossOrRange(rank), x),
    ):
        with pytest.raises(RuntimeError) as fault:
            loss(features, y)
        said.append(str(fault.value))
    with pytest.raises(ValueError, match="over: no loss or memory bank in Linear"):
        over(nn.Linear(1, 1))
    return said


def other_settings() -> list[str]:
    """What `over` says of losses that are others on the second process."""
    at, said = dist.get_rank(), []
    for model in (
        CenterLoss(C, D, alpha=(0.5, 0.25)[at]),
        CenterLoss(C, D + at),
        nn.ModuleList([SupConLoss(), *[SoftmaxLoss(C, D)] * at]),
        nn.ModuleDict({"loss": JointLoss(SoftmaxLoss(C, D), CenterLoss(C, D), (0.5, 0.1)[at])}),
        nn.ModuleDict({"bank": MemoryBank(5, D, dtype=(torch.float32, torch.float64)[at])}),
        (SoftmaxLoss, LMCLLoss)[at](C, D),
        LMCLLoss(C, D, s=(30.0, nn.Parameter(torch.tensor(30.0)))[at]),
    ):
        with pytest.raises(RuntimeError) as fault:
            over(model)
        said.append(str(fault.value))
    with pytest.raises(RuntimeError, match="over: rank 1 has most_rows=5, rank 0 most_rows=4"):
        over(SupConLoss(), most_rows=4 + at)
    over(LMCLLoss(C, D, s=nn.Parameter(torch.tensor(30.0 + at))))  # values become the first one's
    with pytest.raises(ValueError, match="over: it takes the module before DistributedDataParallel"):
        over(DistributedDataParallel(Model()))
    return said


def test_losses_of_other_settings_are_refused(two):
    for said in two.run(other_settings):
        assert said == [
            "over: rank 1 has CenterLoss.alpha=0.25, rank 0 CenterLoss.alpha=0.5",
            "over: rank 1 has CenterLoss.feature_dim=9, rank 0 CenterLoss.feature_dim=8",
            "over: rank 1 has 1: SoftmaxLoss, rank 0 no more losses",
            "over: rank 1 has loss.weight=0.1, rank 0 loss.weight=0.5",
            "over: rank 1 has bank.ring of torch.float64, rank 0 bank.ring of torch.float32",
            "over: rank 1 has LMCLLoss, rank 0 SoftmaxLoss",
            "over: rank 1 has LMCLLoss.m=0.35, rank 0 LMCLLoss.s=30.0",
        ]


def MarginalLossOrRange(rank: int) -> nn.Module:
    from fer_fast.losses import MarginalLoss, RangeLoss

    return (MarginalLoss, RangeLoss)[rank](process_group=dist.group.WORLD)


def test_processes_that_disagree_say_so(two):
    for rank, said in enumerate(two.run(faults)):
        for name, line in zip(("supcon", "softmax", "center", ("marginal", "range")[rank]), said, strict=True):
            assert line.startswith(f"{name}: rank {rank} of 2: rank 1 with another call")
            assert "\n" not in line


def lose_a_process() -> str:
    import os

    x, y = torch.randn(5, D), torch.arange(5) % C
    loss = SoftmaxLoss(C, D, process_group=dist.group.WORLD)
    loss(x, y)
    if dist.get_rank() == 1:
        os._exit(1)
    for _ in range(3):  # what was under way may still arrive
        try:
            loss(x, y)
        except RuntimeError as fault:
            return str(fault)
    return "nothing"


def destroyed_group() -> str:
    loss = SoftmaxLoss(C, D, process_group=dist.new_group())
    dist.destroy_process_group(loss.process_group)
    with pytest.raises(RuntimeError) as fault:
        loss(torch.randn(5, D), torch.arange(5) % C)
    return str(fault.value)


def test_a_group_destroyed_and_a_process_lost():
    with processes.group(2) as group:
        assert all("softmax: there is no process group" in said for said in group.run(destroyed_group))
        group.start(lose_a_process)
        fine, said = group.pipes[0].recv()
        assert fine, said
        assert said.startswith("softmax: rank 0 of 2: a process was lost or made another call")
