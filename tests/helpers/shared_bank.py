"""Memory banks of several processes, beside that of one process that is given every batch whole."""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter, functional

from fer_fast import losses
from fer_fast.losses import MemoryBank

C, D, CAPACITY = 4, 6, 41  # a capacity that no number of processes divides
# Rows of each process in each step: the ring is full in the second, the sixth fills it alone.
STEPS = ((7, 0, 12, 5), (9, 3, 0, 8), (0, 0, 0, 0), (0, 1, 0, 0), (5, 0, 2, 3), (0, 44, 9, 1), (3, 4, 5, 0))


class Case(NamedTuple):
    """A loss, its bank, and when a batch enters it."""

    loss: str = "ENSCLoss"
    sharded: bool = False
    own: str = ""  # how rows of the batch that are in the bank already are named; else they enter after the loss
    reduction: str = "mean"
    backend: str = "blocked"
    dtype: torch.dtype = torch.float64  # of the bank
    capacity: int = CAPACITY
    most: int = 0  # rows that no process has more of, where that was said

    def __str__(self) -> str:
        return "-".join(str(of).removeprefix("torch.") for of in self if of)


def module_of(case: Case, group: Any) -> torch.nn.Module:
    torch.manual_seed(5)
    common = {"reduction": case.reduction, "backend": case.backend, "process_group": group}
    if case.loss == "MVALoss":
        return losses.MVALoss(C, D, groups=4, **common).double()
    return getattr(losses, case.loss)(Parameter(torch.tensor(0.2, dtype=torch.float64)), **common)


def bank_of(case: Case, group: Any) -> MemoryBank:
    return MemoryBank(case.capacity, D, case.dtype, group, case.sharded and group is not None)


def batch(step: int, counts: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Features, keys of another network and labels of all processes' rows, one in five of which has none."""
    generator = torch.Generator().manual_seed(step)
    z, keys = torch.randn(2, sum(counts), D, generator=generator, dtype=torch.float64).unbind()
    y = torch.randint(C, (sum(counts),), generator=generator)
    return functional.normalize(z, dim=1), functional.normalize(keys, dim=1), y


def own_rows(case: Case, bank: MemoryBank, count: int) -> Any:
    """The newest rows of the bank as `own` names them."""
    newest = bank._places(-min(count, case.capacity), 0)
    mask = torch.zeros(case.capacity, dtype=torch.bool).index_fill(0, newest, True)
    names = {"": None, "true": True, "mask": mask, "valid": mask[: len(bank)]}
    return names | {"numbers": torch.cat([newest, torch.tensor([-1])])}


def follow(case: Case, group: Any, size: int, rank: int | None, bank: MemoryBank | None = None) -> dict[str, Tensor]:
    """All that comes of some steps, on a process of a group or on one (rank None) that has all rows."""
    loss, bank, found = module_of(case, group), bank or bank_of(case, group), {}
    for step, counts in enumerate(STEPS):
        counts = tuple(sum(counts[at::size]) for at in range(size))
        if case.most and max(counts) > case.most:
            continue
        whole, rows = batch(step, counts), slice(None)
        if rank is not None:
            rows = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        z, keys, y = (of[rows] for of in whole)
        z = z.clone().requires_grad_()
        if case.own and (group is not None or len(z)):
            bank.enqueue(keys, y)
        if sum(counts):
            masked = y.masked_fill(torch.arange(sum(counts))[rows] % 5 == 4, -1) if case.loss != "MVALoss" else y
            more = {"own": own_rows(case, bank, sum(counts))[case.own]} if case.own else {}
            value = loss(z, masked, bank, **more)
            factor = 1 + torch.arange(sum(counts), dtype=torch.float64)[rows] if case.reduction == "none" else 1.7
            (value * factor).sum().backward()
            found |= {f"loss {step}": value.detach().clone(), f"dz {step}": z.grad}
        if not case.own and (group is not None or len(z)):
            bank.enqueue(keys, y)
        for v, (of, labels) in enumerate(bank.groups(3)):
            found |= {f"group {step} {v}": of.clone(), f"group labels {step} {v}": labels.clone()}
    found |= {f"d{name}": of.grad for name, of in loss.named_parameters()}
    found |= {name: of.clone() for name, of in (*loss.named_buffers(), *bank.state_dict().items())}
    return found | {"features": bank.features.clone(), "labels": bank.labels.clone(), "len": torch.tensor(len(bank))}


def on_process(case: Case, size: int) -> dict[str, Tensor] | None:
    """What a process finds in a group of the first `size`; None where it is not in it."""
    import torch.distributed as dist

    from fer_fast.distributed.collectives import at_most

    group, rank = dist.new_group(range(size)), dist.get_rank()
    if rank >= size:
        return None
    if case.most:
        at_most(group, case.most)
    return follow(case, group, size, rank)


def expected(case: Case, size: int) -> list[dict[str, Tensor]]:
    """What each process should find, of one that has all rows."""
    whole, shares = follow(case, None, size, None), []
    for rank in range(size):
        share = dict(whole)
        for step, counts in enumerate(STEPS):
            counts = [sum(counts[at::size]) for at in range(size)]
            rows = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
            if f"dz {step}" in whole:
                share[f"dz {step}"] = whole[f"dz {step}"][rows] * size
                if case.reduction == "none":
                    share[f"loss {step}"] = whole[f"loss {step}"][rows]
        shares.append(share)
    return shares


def moved_on(state: dict[str, Tensor], sharded: bool, size: int) -> dict[str, Tensor] | None:
    """What comes of a state on a process of the first `size`."""
    import torch.distributed as dist

    group, rank = dist.new_group(range(size)), dist.get_rank()
    if rank >= size:
        return None
    bank = bank_of(Case(sharded=sharded), group)
    bank.load_state_dict(state)
    return follow(Case(sharded=sharded), group, size, rank, bank)


def spoilt(case: Case, value: float) -> Tensor:
    """The losses of the own rows where a key is not finite, which in parts is on a process without rows."""
    import torch.distributed as dist

    rank, counts = dist.get_rank(), STEPS[0]
    rows = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
    z, keys, y = batch(0, counts)
    z, keys[1, 2] = z.abs(), value  # of -inf no logit shows it
    bank, loss = bank_of(case, dist.group.WORLD), module_of(case, dist.group.WORLD)
    bank.enqueue(keys[rows], y[rows])
    return loss(z[rows], y[rows], bank).detach()


class Model(torch.nn.Module):
    """A layer, a loss, a bank."""

    def __init__(self, sharded: bool, rows: int):
        super().__init__()
        torch.manual_seed(9)
        self.layer = torch.nn.Linear(D, D, bias=False).double()
        self.loss, self.bank = losses.ENSCLoss(), MemoryBank(CAPACITY, D, torch.float64, sharded=sharded)
        if rows:
            _, keys, y = batch(90, (rows,))
            self.bank.enqueue(keys, y)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        z = functional.normalize(self.layer(z), dim=1)
        loss = self.loss(z, y, self.bank)
        self.bank.enqueue(z, y)
        return loss


def trained(model: torch.nn.Module, whole: Model, rank: int | None) -> dict[str, Tensor]:
    """The layer and the bank after three steps on own rows, or on all."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for step, counts in enumerate(((7, 2, 12, 5), (3, 3, 9, 1), (7, 1, 1, 5))):
        rows = slice(None) if rank is None else slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        z, _, y = batch(step, counts)
        optimiser.zero_grad()
        model(z[rows], y[rows]).backward()
        optimiser.step()
    return {name: of.clone() for name, of in whole.state_dict().items()}


def trained_by_ddp(sharded: bool) -> tuple[dict[str, Tensor], list[int]]:
    """The same of a model whose bank is filled on the first process alone; and the shape of its ring."""
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    from fer_fast.distributed import over

    model = Model(sharded, rows=0 if dist.get_rank() else 9)
    wrapped = DistributedDataParallel(over(over(model)))  # the second time its bank is in parts
    return trained(wrapped, model, dist.get_rank()), list(model.bank.ring.shape)


def refused() -> list[str]:
    """What is said of losses and banks that do not belong together."""
    import torch.distributed as dist

    world, said = dist.group.WORLD, []
    z, _, y = batch(0, (4,))
    for bank, loss, more in (
        (MemoryBank(8, D, torch.float64, world, sharded=True), losses.ESCLoss(), {}),
        (MemoryBank(8, D, torch.float64), losses.ESCLoss(process_group=world), {"own": True}),
        (MemoryBank(8, D, torch.float64, world), losses.ENSCLoss(), {"own": True}),
    ):
        try:
            loss(z, y, bank, **more)
        except ValueError as fault:
            said.append(str(fault))
    bank = copy.deepcopy(MemoryBank(8, D, process_group=world, sharded=True))
    try:
        bank.load_state_dict(MemoryBank(9, D).state_dict())
    except RuntimeError as fault:
        said.append(str(fault).splitlines()[2].strip())
    return said
