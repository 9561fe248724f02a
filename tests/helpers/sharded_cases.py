"""Classifiers of which each process has some classes, beside one process that has all of them and the whole batch."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fer_fast import losses
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

    def __str__(self) -> str:
        shown = [str(v) for v in self[1:-5] if v not in (False, ())]
        return "-".join([self.name, *shown, *map(str, self[-5:] if False else (self.dtype, self.gradients))])


def build(case: Case, **shared) -> nn.Module:
    """The same draws on every process."""
    torch.manual_seed(3)
    spec, options = find(case.name), dict(case.options) | {"reduction": case.reduction, "backend": case.backend}
    if case.name == "weighted-softmax":
        options["class_weights"] = torch.rand(case.num_classes, generator=torch.Generator().manual_seed(1)) + 0.1
    if case.learnt:
        options["s"] = nn.Parameter(torch.tensor(20.0))
    loss = getattr(losses, spec.cls)(case.num_classes, D, **options, **shared)
    shared.pop("sharded", None)
    if case.auxiliary:
        torch.manual_seed(4)
        second = getattr(losses, find(case.auxiliary).cls)
        loss = JointLoss(loss, second(case.num_classes, D, reduction=case.reduction, **shared), 0.7)
    return loss.to(case.dtype if case.dtype.itemsize > 2 else torch.float32)


def batch(case: Case, size: int) -> dict[str, Any]:
    """All rows, in the order of ranks."""
    generator = torch.Generator().manual_seed(11)
    n = sum(SHARES[size])
    x = torch.randn(n, D, generator=generator, dtype=torch.float64)
    given = {"x": x.to(case.dtype), "y": torch.randint(case.num_classes, (n,), generator=generator)}
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
    function = torch.compile(loss, fullgraph=True) if case.compiled else loss
    for step in range(2):  # gradients add up
        value = function(x, given["y"][rows], **more)
        (value * given["factors"][rows] if case.reduction == "none" else 1.7 * value).sum().backward()
        found[f"loss {step}"] = value.detach().clone()
    found["x"] = x.grad
    found |= {f"d{name}": parameter.grad for name, parameter in loss.named_parameters()}
    found["logits"] = loss.logits(x).detach()
    return found | {f"b{name}": buffer for name, buffer in loss.named_buffers()}


def own_rows(counts: tuple[int, ...], rank: int) -> slice:
    return slice(sum(counts[:rank]), sum(counts[: rank + 1]))


def on_process(cases: list[Case]) -> list[dict[str, Tensor]]:
    """What each case gives on this process."""
    import torch.distributed as dist

    rows, group = own_rows(SHARES[dist.get_world_size()], dist.get_rank()), dist.group.WORLD
    built = [build(case, sharded=True, process_group=group, gradients=case.gradients) for case in cases]
    return [
        call(case, loss, batch(case, dist.get_world_size()), rows) for case, loss in zip(cases, built, strict=True)
    ]


def alone(case: Case, size: int) -> list[dict[str, Tensor]]:
    """What the processes should give, of one that has everything."""
    whole, shares = call(case, build(case), batch(case, size), slice(None)), []
    for rank in range(size):
        share, rows = dict(whole), own_rows(SHARES[size], rank)
        classes = slice(rank * -(-case.num_classes // size), (rank + 1) * -(-case.num_classes // size))
        for name, value in whole.items():
            if name in ("x", "logits") or (name.startswith("loss") and case.reduction == "none"):
                share[name] = value[rows] * (size if name == "x" and case.gradients == "mean" else 1)
            elif name.endswith(("weight", "bias")):
                share[name] = value[classes]
            elif name.startswith("d") and case.gradients == "sum":
                share[name] = value / size
        shares.append(share)
    return shares
