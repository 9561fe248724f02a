"""One line that makes the losses of a model those of the global batch."""

from itertools import zip_longest

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .. import checks
from ..losses.joint import JointLoss
from ..terms import Group
from .collectives import at_most, group_of

_PLAIN = (bool, int, float, str, type(None))
_MAY_DIFFER = ("training", "gradients")  # when `over` is called


def over(module: nn.Module, group: Group = None, *, gradients: str = "mean", most_rows: int | None = None) -> nn.Module:
    """Make every loss and memory bank below a module (itself included) that of all processes of a group; returns it.

    Their parameters and buffers become those of the group's first process, once. `group` is a process group, its name,
    or None for the default one. `gradients` says what is done to gradients of all processes afterwards: "mean", as
    DistributedDataParallel does, or "sum". Call it on the module that is given to DDP, before: DDP then does not send
    around at every step the buffers that are equal anyway, and leaves alone the tables of which each process has the
    rows of some classes: a loss with `sharded=True` keeps its own.

    Processes first tell each other their losses and settings: where these differ the sum over all would be of nothing.

    Where losses gather rows, processes tell each other first how many they have, host to host. With `most_rows`, which
    no process will exceed in a call, nobody asks: smaller shares travel filled up, and a step can be captured.

    Raises:
        RuntimeError: where there is no such group; on every process, where they have other losses or settings.
        ValueError: where nothing below the module is a loss or a bank, or DDP has it already.
    """
    if group is None:
        group = dist.group.WORLD
        if group is None:
            raise RuntimeError("over: no process group; call torch.distributed.init_process_group first")
    group = group_of(group) if isinstance(group, str) else group
    shared = [(name, of) for name, of in module.named_modules() if _shares(of)]
    if not shared:
        raise ValueError(
            f"over: no loss or memory bank in {type(module).__name__}; it takes the module that has them, "
            "or the losses' own where they stay outside of the model"
        )
    if any(isinstance(of, DistributedDataParallel) and any(map(_shares, of.modules())) for of in module.modules()):
        raise ValueError(
            "over: it takes the module before DistributedDataParallel does, which asks once what to leave alone"
        )
    _refuse_others(group, [f"gradients={gradients!r}", f"most_rows={most_rows}", *_settings(module)])
    if most_rows is not None:
        at_most(group, checks.at_least(most_rows, 1, "most_rows"))
    first, ignored = dist.get_global_rank(group, 0), []
    for name, of in shared:
        apart = _owned(of)  # which nobody may be able to hold whole
        if not apart:
            of.process_group = None  # a bank in parts becomes whole
        if hasattr(of, "gradients"):
            of.gradients = gradients
        for key, tensor in (*of.named_parameters(recurse=False), *of.named_buffers(recurse=False)):
            if key not in apart:
                dist.broadcast(tensor.detach(), first, group=group)
        of.process_group = group
        others = _owned(of), dict(of.named_buffers(recurse=False))
        ignored += [f"{name}.{key}" if name else key for keys in others for key in keys]
    module._ddp_params_and_buffers_to_ignore = [*getattr(module, "_ddp_params_and_buffers_to_ignore", []), *ignored]
    return module


def _shares(module: nn.Module) -> bool:
    """Whether it is a loss or a bank, which has a process group."""
    return hasattr(type(module), "process_group")


def _settings(module: nn.Module) -> list[str]:
    """A line for everything that the losses and banks below it must have alike on all processes, shapes by what they
    follow from: processes have other rows of some tensors."""
    lines = []
    for name, of in module.named_modules():
        if _shares(of) or isinstance(of, JointLoss):
            kind = type(of).__name__
            own = {k: v for k, v in vars(of).items() if k[0] != "_" and k not in _MAY_DIFFER and isinstance(v, _PLAIN)}
            tensors = (*of.named_parameters(recurse=False), *of.named_buffers(recurse=False))
            lines.append(f"{name}: {kind}" if name else kind)
            lines += [f"{name or kind}.{key}={value!r}" for key, value in own.items()]
            lines += [f"{name or kind}.{key} of {tensor.dtype}" for key, tensor in tensors]
    return lines


def _refuse_others(group: dist.ProcessGroup, lines: list[str]) -> None:
    """An error on every process at the first line that one has otherwise than the first."""
    told: list[list[str]] = [[]] * group.size()
    dist.all_gather_object(told, lines, group=group)
    for rank, theirs in enumerate(told):
        for first, line in zip_longest(told[0], theirs, fillvalue="no more losses"):
            if line != first:
                raise RuntimeError(f"over: rank {rank} has {line}, rank 0 {first}")


def _owned(module: nn.Module) -> tuple[str, ...]:
    """Its parameters of which other processes have other rows."""
    return getattr(module, "owned", ())
