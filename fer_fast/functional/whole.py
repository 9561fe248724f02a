"""The batch of all processes on each of them, for plain formulas, which see no part of one."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from .. import checks
from ..ops.shared import times_of
from ..suggest import one_of
from ..terms import ALONE, Group, Peers, Share

Gradients = Literal["mean", "sum"]  # what is done to those of all processes


def peers_of(process_group: Group, gradients: str, loss: str, sharded: bool = False) -> Peers:
    """The processes whose rows are a loss's batch, and with `sharded` also its bank."""
    one_of(gradients, get_args(Gradients), "gradients")
    if process_group is None:
        return ALONE
    from ..distributed.collectives import group_name

    return Peers(group_name(process_group), gradients, loss, sharded)


class WholeBatch:
    """Rows gathered from all processes, and the way of their gradients back.

    Every process computes the loss of the whole batch. Gradients by its rows and by parameters are summed over the
    processes in the backward, which each may have started with other factors.
    """

    def __init__(self, peers: Peers, rows: int, facts: str):
        from ..distributed.collectives import agree, place

        self.peers, (rank, self.size) = peers, place(peers)
        counts = agree(peers, rows, f"{peers.loss}, {facts}")
        self.share = Share(rank, self.size, max(counts), tuple(counts))

    def rows(self, t: Tensor | None, dim: int = 0) -> Tensor | None:
        """Those of all processes, of a tensor with this one's."""
        return None if t is None else _Rows.apply(t.movedim(dim, 0), self.peers, self.share).movedim(0, dim)

    def parameter(self, t: Tensor | float | None) -> Tensor | float | None:
        """A tensor that every process has, with its part of the gradient."""
        return _Parameter.apply(t, self.peers, self.size) if isinstance(t, Tensor) and t.requires_grad else t

    def table(self, num_classes: int, t: Tensor | None) -> Tensor | None:
        """A table (C, ...) of which every process has a block, which gets all of its gradient."""
        return None if t is None else whole_table(self.peers, num_classes, t)

    def loss(self, loss: Tensor, reduction: str) -> Tensor:
        """What is asked for of the loss of all rows, or of the losses of the rows."""
        times = times_of(self.peers)
        if reduction == "none":
            return _Factor.apply(loss[self.share.own], times)
        return _Factor.apply(loss, times / self.size)  # every process gives all of the gradient


def whole_table(peers: Peers, num_classes: int, t: Tensor) -> Tensor:
    """A table (C, ...) of the blocks that the processes have of it, whose gradient is that of the global batch."""
    if not peers.group:
        return t
    classes = peers.blocks(num_classes)
    checks.block(t, "weight", classes)
    return _Rows.apply(_Factor.apply(t, 1 / times_of(peers)), peers, classes)


def of_whole_batch(formula: Callable[..., Tensor], peers: Peers, x: Tensor, y: Tensor, *others) -> Tensor:
    """A formula of features (n, d) and labels (n,), of those of all processes that there are."""
    if not peers.group:
        return formula(x, y, *others)
    batch = WholeBatch(peers, len(x), f"{x.dtype} {list(x.shape[1:])}")
    return batch.loss(formula(batch.rows(x), batch.rows(y), *others), "mean")


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, t: Tensor, peers: Peers, share: Share) -> Tensor:
        ctx.peers, ctx.share = peers, share
        return peers.gather(share, t)[0]

    @staticmethod
    def backward(ctx, grad: Tensor):
        return ctx.peers.total(grad.dtype, grad)[0][ctx.share.own], None, None


class _Parameter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, t: Tensor, peers: Peers, size: int) -> Tensor:
        ctx.peers, ctx.size = peers, size
        return t.view_as(t)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return ctx.peers.total(grad.dtype, grad)[0] / ctx.size, None, None


class _Factor(torch.autograd.Function):
    @staticmethod
    def forward(ctx, t: Tensor, times: float) -> Tensor:
        ctx.times = times
        return t.view_as(t)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad * ctx.times, None
