"""Classifiers of which each process has some classes, beside one process that has all of them and the whole batch."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fer_fast import losses
from fer_fast.blocked import classifiers
from fer_fast.distributed import collectives, over, whole_state
from fer_fast.losses import JointLoss
from fer_fast.registry import find

D = 6
SHARES = {2: (9, 14), 4: (7, 0, 12, 5)}


class Case(NamedTuple):
    """A loss and how it is called."""

    name: str
    num_classes: int = 11
    reduction: str = "mean"
    backend: str = "blocked"
    weighted: bool = False  # with weights of rows
    learnt: bool = False  # the scale
    options: tuple[tuple[str, Any], ...] = ()  # of the constructor
    dtype: torch.dtype = torch.float64
    gradients: str = "mean"
    auxiliary: str = ""
    compiled: bool = False
    sizes: tuple[tuple[str, int], ...] = ()  # of the engine, in place of its own
    rounded: torch.dtype | None = None  # what features are rounded to besides

    def __str__(self) -> str:
        others = zip(self._fields[1:], self[1:], strict=True)
        return "-".join([self.name, *[f"{k}={v}" for k, v in others if v != self._field_defaults[k]]])


def build(case: Case, **shared) -> nn.Module:
    """The same draws on every process."""
    torch.manual_seed(3)
    spec, options = find(case.name), dict(case.options) | {"reduction": case.reduction, "backend": case.backend}
    if case.name == "weighted-softmax":
        options["class_weights"] = torch.rand(case.num_classes, generator=torch.Generator().manual_seed(1)) + 0.1
    if case.learnt:
        options["s"] = nn.Parameter(torch.tensor(20.0))
    loss = getattr(losses, spec.cls)(case.num_classes, D, **options, **shared)
    if case.auxiliary:
        torch.manual_seed(4)
        second = getattr(losses, find(case.auxiliary).cls)(case.num_classes, D, reduction=case.reduction)
        second.process_group, second.gradients = loss.process_group, loss.gradients
        loss = JointLoss(loss, second, 0.7)
    return loss.to(torch.promote_types(case.dtype, torch.float32))


def batch(case: Case, size: int) -> dict[str, Any]:
    """All rows, in the order of ranks."""
    generator = torch.Generator().manual_seed(11)
    n = sum(SHARES[size])
    x = torch.randn(n, D, generator=generator, dtype=torch.float64)
    x = x.to(case.rounded or case.dtype).to(case.dtype)
    given = {"x": x, "y": torch.randint(case.num_classes, (n,), generator=generator)}
    weights = torch.rand(n, generator=generator, dtype=torch.float64) if case.weighted else None
    if case.weighted:
        weights[3] = 0
    if dict(case.options).get("ignore_index") is not None:
        given["y"][4] = dict(case.options)["ignore_index"]
    factors = torch.rand(n, generator=generator, dtype=torch.float64) + 0.5
    return given | {"weights": weights, "factors": factors}


def call(case: Case, loss: nn.Module, given: dict[str, Any], rows: slice) -> dict[str, Tensor]:
    """The loss of some rows and all that comes of it."""
    x, found = given["x"][rows].clone().requires_grad_(), {}
    more = {"sample_weights": given["weights"][rows]} if case.weighted else {}
    function = torch.compile(loss, fullgraph=True, backend="aot_eager") if case.compiled else loss
    for step in range(2):  # gradients add up
        value = function(x, given["y"][rows], **more)
        (value * given["factors"][rows] if case.reduction == "none" else 1.7 * value).sum().backward()
        found[f"loss {step}"] = value.detach().clone()
    found["x"] = x.grad
    found |= {f"d{name}": parameter.grad for name, parameter in loss.named_parameters()}
    logits = loss.logits(x)  # every process calls for them, and for what comes of them
    table = next(parameter for name, parameter in loss.named_parameters() if name.endswith("weight"))
    found |= {"logits": logits.detach(), "by weight": torch.autograd.grad(logits.square().sum(), table)[0]}
    return found | {f"b{name}": buffer for name, buffer in loss.named_buffers()}


def own_rows(counts: tuple[int, ...], rank: int) -> slice:
    return slice(sum(counts[:rank]), sum(counts[: rank + 1]))


def on_process(cases: list[Case]) -> list[dict[str, Tensor]]:
    """What each case gives on this process."""
    import torch.distributed as dist

    rows, group = own_rows(SHARES[dist.get_world_size()], dist.get_rank()), dist.group.WORLD
    results = []
    for case in cases:
        loss = build(case, sharded=True, process_group=group, gradients=case.gradients)
        with pytest.MonkeyPatch.context() as patch:
            for name, size in case.sizes:
                patch.setattr(classifiers, name, size)
            results.append(call(case, loss, batch(case, dist.get_world_size()), rows))
    return results


def filled_up(cases: list[Case]) -> list[dict[str, Tensor]]:
    """The same where nobody asks the others how many rows they have."""
    group = torch.distributed.group.WORLD
    collectives.at_most(group, 15)
    try:
        return on_process(cases)
    finally:
        del collectives._most_rows[group]


def counted(rows: int) -> list[int]:
    """Bytes that each collective of a step gives this process, of so many rows on each."""
    group, found, wait = torch.distributed.group.WORLD, [], collectives._wait

    def counting(*args) -> Tensor:
        result = wait(*args)
        found.append(result.nbytes)
        return result

    case = Case("softmax", dtype=torch.float32)
    loss, given = build(case, sharded=True, process_group=group), batch(case, group.size())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collectives, "_wait", counting)
        loss(given["x"][:rows], given["y"][:rows])
    return found


def alone(case: Case, size: int) -> list[dict[str, Tensor]]:
    """What the processes should give, of one that has everything."""
    whole, shares = call(case, build(case), batch(case, size), slice(None)), []
    for rank in range(size):
        share, rows, classes = dict(whole), own_rows(SHARES[size], rank), own_classes(case.num_classes, rank, size)
        for name, value in whole.items():
            if name in ("x", "logits") or (name.startswith("loss") and case.reduction == "none"):
                share[name] = value[rows] * (size if name == "x" and case.gradients == "mean" else 1)
            elif name.endswith(("weight", "bias")):
                share[name] = value[classes] / (size if name == "by weight" and case.gradients == "mean" else 1)
            elif name.startswith("d") and case.gradients == "sum":
                share[name] = value / size
        shares.append(share)
    return shares


def own_classes(num_classes: int, rank: int, size: int) -> slice:
    most = -(-num_classes // size)
    return slice(rank * most, (rank + 1) * most)


def states(num_classes: int, weighted: bool) -> tuple[dict, dict, dict]:
    """Of a model on this process its own state, the whole one, and its own when it is no longer sharded."""
    model = model_of(num_classes, weighted)
    model["loss"].process_group = torch.distributed.group.WORLD
    found = {name: value.clone() for name, value in model.state_dict().items()}, whole_state(model)
    model["loss"].process_group = None
    return *found, model.state_dict()


def model_of(num_classes: int, weighted: bool = False, seed: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    weights = torch.arange(1.0, num_classes + 1) if weighted else None
    return nn.ModuleDict({"layer": nn.Linear(D, D), "loss": losses.SoftmaxLoss(num_classes, D, weights, sharded=True)})


def loaded(state: dict, num_classes: int) -> tuple[Tensor, Tensor] | str:
    """The rows of a process that has loaded a state, or what it answers."""
    model = model_of(num_classes, "loss.class_weights" in state, seed=4)
    model["loss"].process_group = torch.distributed.group.WORLD
    try:
        model.load_state_dict(state)
    except RuntimeError as fault:
        return str(fault)
    return model["loss"].weight.detach(), model["loss"].bias.detach()


def sampled(num_classes: int, share: float) -> list[dict[str, Tensor]]:
    """Two steps that take part with some classes, and one in which all do."""
    import torch.distributed as dist

    case, group = Case("softmax", num_classes), dist.group.WORLD
    loss = build(case, sharded=True, process_group=group, negative_share=share)
    size, found = dist.get_world_size(), []
    given, rows = batch(case, size), own_rows(SHARES[size], dist.get_rank())
    for training in (True, True, False):
        loss.zero_grad()
        x = given["x"][rows].clone().requires_grad_()
        value = loss.train(training)(x, given["y"][rows])
        value.backward()
        tables = {"weight": loss.weight.detach(), "bias": loss.bias.detach()}
        gradients = {"dx": x.grad, "dweight": loss.weight.grad, "dbias": loss.bias.grad}
        found.append({"loss": value.detach(), "draws": loss.draws.clone(), **tables, **gradients})
    return found


def over_ddp(num_classes: int, cut: bool) -> dict[str, Tensor]:
    """A step of a model under DistributedDataParallel, of processes that drew other weights; or each its own rows."""
    import torch.distributed as dist

    rank, group = dist.get_rank(), dist.group.WORLD
    size, model = dist.get_world_size(), model_of(num_classes, seed=3 if cut else 3 + rank).double()
    if cut:
        model["loss"].process_group = group
    given, rows = batch(Case("softmax", num_classes), size), own_rows(SHARES[size], rank)
    wrapped = nn.parallel.DistributedDataParallel(over(Step(model), group))
    wrapped(given["x"][rows], given["y"][rows]).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


class Step(nn.Module):
    """A loss of features that a layer made."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.model["loss"](self.model["layer"](x), y)
