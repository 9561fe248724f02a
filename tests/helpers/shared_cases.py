"""Losses of a batch that lies on several processes, beside those of one process that has all of it."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fer_fast import losses
from fer_fast.losses import JointLoss, MemoryBank
from fer_fast.losses.base import Loss
from fer_fast.registry import find

C, D, K = 5, 6, 3  # classes, of which one is never there, columns, embeddings of a sample
SHARES = {2: (9, 14), 4: (7, 0, 12, 5)}


class Case(NamedTuple):
    """A loss and how it is called."""

    name: str  # of a row, or of two with a + between them
    reduction: str = "mean"
    backend: str = "blocked"
    weighted: bool = False  # with weights of rows
    options: tuple[tuple[str, Any], ...] = ()  # of the constructor
    dtype: torch.dtype = torch.float64
    gradients: str = "mean"
    classes: int = C

    def __str__(self) -> str:
        options = [f"{name}={value}" for name, value in self.options]
        return "-".join([self.name, self.reduction, self.backend, *["weighted"] * self.weighted, *options])


def build(case: Case) -> torch.nn.Module:
    """The same on every process."""
    torch.manual_seed(3)
    first, *second = [_build(name, case, auxiliary=at > 0) for at, name in enumerate(case.name.split("+"))]
    return (JointLoss(first, second[0], 0.7) if second else first).to(case.dtype)


def _build(name: str, case: Case, auxiliary: bool) -> Loss:
    spec, options = find(name), {} if auxiliary else dict(case.options)
    options |= {"reduction": case.reduction, "backend": case.backend}
    num_classes = case.classes
    arguments = {"classifier": (num_classes, D), "center": (num_classes, D), "correlation": (num_classes,)}.get(
        spec.family, ()
    )
    if name in ("weighted-softmax", "weighted-cluster"):
        options["class_weights"] = torch.rand(num_classes) + 0.1
    return getattr(losses, spec.cls)(*(() if name == "ed" else arguments), **options)


def batch(case: Case, size: int) -> dict[str, Any]:
    """All rows, in the order of ranks; SelfCon's shares are even."""
    generator = torch.Generator().manual_seed(11)
    counts = SHARES[size] if "selfcon" not in case.name else tuple(2 * n for n in SHARES[size])
    n, spec = sum(counts), find(case.name.split("+")[0])
    shape = (K, n, D) if spec.family == "correlation" else (n, D)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    if spec.family == "contrastive":
        x = torch.nn.functional.normalize(x, dim=-1)
    given = {"x": x.to(case.dtype), "y": torch.randint(case.classes - 1, (n,), generator=generator), "counts": counts}
    given["predictions"] = torch.randint(case.classes, (n,), generator=generator)
    given["weights"] = torch.rand(n, generator=generator, dtype=torch.float64).to(case.dtype) if case.weighted else None
    if case.weighted:
        given["weights"][3] = 0
    given["factors"] = torch.rand(n, generator=generator, dtype=torch.float64).to(case.dtype) + 0.5
    given["bank"] = torch.nn.functional.normalize(torch.randn(17, D, generator=generator, dtype=torch.float64), dim=1)
    given["bank_y"] = torch.randint(-1, C, (17,), generator=generator)
    return given


def call(case: Case, loss: torch.nn.Module, given: dict[str, Any], rows: slice | Tensor) -> dict[str, Tensor]:
    """The loss of some rows and all that comes of it."""
    family, more = find(case.name.split("+")[-1]).family, {}
    x = given["x"][..., rows, :].clone().requires_grad_()
    if case.weighted:
        more["sample_weights"] = given["weights"][rows]
    if case.name.split("+")[-1] in ("esc", "ensc", "mva"):
        more["bank"] = bank_of(given, case.dtype)
    if case.name.split("+")[-1] in ("fd", "ad-corre") and family == "correlation":
        more["predictions"] = given["predictions"][rows]
    found = {}
    for step in range(2):  # the second meets centers and a window that the first has moved
        value = loss(x, given["y"][rows], **more)
        (value * given["factors"][rows] if case.reduction == "none" else 1.7 * value).sum().backward()
        found |= {f"loss {step}": value.detach().clone(), f"x {step}": x.grad.clone()}
        x.grad = None
    for name, parameter in loss.named_parameters():
        found[f"d{name}"] = parameter.grad.clone()
    return found | {name: buffer.clone() for name, buffer in loss.named_buffers()}


def bank_of(given: dict[str, Any], dtype: torch.dtype) -> MemoryBank:
    bank = MemoryBank(20, D, dtype=dtype)
    for rows in (slice(0, 8), slice(8, 17)):
        bank.enqueue(given["bank"][rows].to(dtype), given["bank_y"][rows].clamp(min=0))
    return bank


def rows_of(case: Case, counts: tuple[int, ...], rank: int) -> slice | Tensor:
    """Of the whole batch those of a process; of SelfCon's, whose second half is the other views, two runs."""
    if "selfcon" not in case.name:
        start = sum(counts[:rank])
        return slice(start, start + counts[rank])
    start, half = sum(counts[:rank]) // 2, sum(counts) // 2
    first = torch.arange(start, start + counts[rank] // 2)
    return torch.cat([first, half + first])


def on_process(cases: list[Case]) -> list[dict[str, Tensor]]:
    """What each case gives on this process."""
    import torch.distributed as dist

    results = []
    for case in cases:
        given = batch(case, dist.get_world_size())
        loss = build(case)
        for of in loss.modules():
            if isinstance(of, Loss):
                of.process_group, of.gradients = dist.group.WORLD, case.gradients
        results.append(call(case, loss, given, rows_of(case, given["counts"], dist.get_rank())))
    return results


def alone(case: Case, size: int) -> list[dict[str, Tensor]]:
    """What the processes should give, of one that has the whole batch; its features' gradients cut into shares."""
    given = batch(case, size)
    whole = call(case, build(case), given, slice(None))
    shares = []
    for rank in range(size):
        rows, share = rows_of(case, given["counts"], rank), dict(whole)
        for name, value in whole.items():
            if name.startswith("x "):
                share[name] = value[..., rows, :] * (size if case.gradients == "mean" else 1)
            elif name.startswith("loss ") and case.reduction == "none":
                share[name] = value[rows]
            elif name.startswith("d") and case.gradients == "sum":
                share[name] = value / size
        shares.append(share)
    return shares
