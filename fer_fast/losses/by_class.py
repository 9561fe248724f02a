"""Tables of which each process has the rows of some classes."""

import torch
from torch import Tensor

from ..functional.whole import peers_of, whole_table
from ..terms import Group, Share
from .base import Loss


class ByClass(Loss):
    """A loss with a row per class of some parameters, of which with `sharded` and a process group each process has its
    own: blocks of ⌈C / R⌉ classes in the order of ranks, as `torch.chunk` cuts, the last of fewer or of none.

    Where a group is set the parameters become this process's rows of what they are, in place: do it before an optimiser
    is made of them. Their gradients are one process's of these rows, for "mean" as for "sum": nothing may average or
    sum them, which :func:`fer_fast.distributed.over` tells DistributedDataParallel. They differ from process to
    process, and so does what is decided by them: AMP needs PyTorch's `ShardedGradScaler`, which skips a step everywhere
    or nowhere, and a clipped norm the squares of all processes.

    `state_dict` holds this process's rows and `class_block`: the first class, the one behind the last, and C. Each
    process saves its own, and :func:`fer_fast.distributed.join` makes one state of all; or all call for
    :func:`fer_fast.distributed.whole_state`, and one saves it. Such a state is that of a loss that is not sharded. It
    loads on any number of processes, each of which takes its rows; a process's own state on as many as saved it.
    """

    by_class = ("weight", "bias")  # parameters (C, ...)
    num_classes: int
    sharded: bool = False

    @Loss.process_group.setter
    def process_group(self, group: Group) -> None:
        names = [name for name in self.by_class if self.sharded and name in self._parameters]
        if names and peers_of(group, "mean", self.name).group == (self._group or ""):
            return  # a table need not be gathered to be cut as it was
        tables = [self.whole(name).detach() for name in names]
        Loss.process_group.fset(self, group)
        for name, whole in zip(names, tables, strict=True):
            parameter = self._parameters[name]
            parameter.grad, parameter.data = None, self._own_rows(whole)

    @property
    def owned(self) -> tuple[str, ...]:
        """The parameters of which other processes have other rows."""
        own = self.sharded and self._group is not None
        return tuple([name for name in self.by_class if name in self._parameters]) if own else ()

    def whole(self, name: str) -> Tensor:
        """All rows of a parameter (C, ...): every process calls for them."""
        parameter = getattr(self, name)
        return whole_table(self.peers, self.num_classes, parameter) if name in self.owned else parameter

    def _own_rows(self, whole: Tensor) -> Tensor:
        """Of a table's rows (C, ...) those of this process."""
        return whole[self._block.own].clone() if self.sharded and self._group else whole

    @property
    def _block(self) -> Share:
        return (self.peers if self.sharded else self.peers._replace(group="")).blocks(self.num_classes)

    @property
    def _classes(self) -> list[int]:
        own = self._block.own
        return [own.start, own.stop, self.num_classes]

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.owned:
            destination[f"{prefix}class_block"] = torch.tensor(self._classes, device="cpu")

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
        given, block = dict(state_dict), self._classes
        present = given.pop(f"{prefix}class_block", None)
        if present is not None and present.tolist() != block:
            shown = [f"{first} to {last - 1} of {count}" for first, last, count in (present.tolist(), block)]
            errors.append(
                f"{prefix}class_block: classes {shown[0]} given, {shown[1]} expected; fer_fast.distributed.join makes "
                "one state of those of all processes"
            )
            return
        if present is None and self.owned:
            for name in self.owned:
                whole = given.get(prefix + name)
                if whole is not None and len(whole) == self.num_classes:
                    given[prefix + name] = self._own_rows(whole)
        super()._load_from_state_dict(given, prefix, local_metadata, strict, missing, unexpected, errors)
