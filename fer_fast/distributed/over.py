"""One line that makes the losses of a model those of the global batch."""

import torch.distributed as dist
from torch import nn

from .. import checks
from ..terms import Group
from .collectives import at_most, group_of


def over(module: nn.Module, group: Group = None, *, gradients: str = "mean", most_rows: int | None = None) -> nn.Module:
    """Make every loss and memory bank below a module (itself included) that of all processes of a group; returns it.

    Their parameters and buffers become those of the group's first process, once. `group` is a process group, its name,
    or None for the default one. `gradients` says what is done to gradients of all processes afterwards: "mean", as
    DistributedDataParallel does, or "sum". Call it on the module that is given to DDP, before: DDP then does not send
    around at every step the buffers that are equal anyway, and leaves alone the tables of which each process has the
    rows of some classes: a loss with `sharded=True` keeps its own.

    Where losses gather rows, processes tell each other first how many they have, host to host. With `most_rows`, which
    no process will exceed in a call, nobody asks: smaller shares travel filled up, and a step can be captured.

    Raises:
        RuntimeError: where there is no such group.
        ValueError: where nothing below the module is a loss or a bank.
    """
    if group is None:
        group = dist.group.WORLD
        if group is None:
            raise RuntimeError("over: no process group; call torch.distributed.init_process_group first")
    group = group_of(group) if isinstance(group, str) else group
    shared = [(name, of) for name, of in module.named_modules() if hasattr(type(of), "process_group")]
    if not shared:
        raise ValueError(f"over: no loss or memory bank in {type(module).__name__}")
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


def _owned(module: nn.Module) -> tuple[str, ...]:
    """Its parameters of which other processes have other rows."""
    return getattr(module, "owned", ())
