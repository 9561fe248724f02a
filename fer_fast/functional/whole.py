"""The batch of all processes on each of them, for plain formulas, which see no part of one."""

from collections.abc import Callable
from functools import wraps
from typing import Literal, get_args

import torch
from torch import Tensor

from .. import checks
from ..ops.shared import OF_ROWS, described, times_of
from ..suggest import one_of
from ..terms import ALONE, Group, Peers, Share

Gradients = Literal["mean", "sum"]  # what is done to those of all processes


def aside(function: Callable) -> Callable:
    """The function, which torch.compile does not look into: processes ask each other there."""
    hidden = []

    @wraps(function)
    def call(*args, **keywords):
        if not torch.compiler.is_compiling():
            return function(*args, **keywords)
        if not hidden:
            hidden.append(torch.compiler.disable(function))
        return hidden[0](*args, **keywords)

    return call


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

    def __init__(self, peers: Peers, rows: int, **given):
        """`given` is all that the loss depends on, and all that processes must have in common but numbers of rows."""
        from ..distributed.collectives import agree, place

        self.peers, (rank, self.size) = peers, place(peers)
        facts = described(given.items(), OF_ROWS, gradients=torch.is_grad_enabled())
        counts = agree(peers, rows, ", ".join([peers.loss, *facts]))
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
    return _of_whole_batch(formula, peers, x, y, *others)


@aside
def _of_whole_batch(formula: Callable[..., Tensor], peers: Peers, x: Tensor, y: Tensor, *others) -> Tensor:
    batch = WholeBatch(peers, len(x), x=x, y=y, others=others)
    return batch.loss(formula(batch.rows(x), batch.rows(y), *others), "mean")


class _Linear(torch.autograd.Function):
    """A linear map of tensors of all processes; its backward is one, too, so that derivatives have derivatives."""

    @staticmethod
    def setup_context(ctx, inputs: tuple, _):
        ctx.how = inputs[1:]


class _Rows(_Linear):
    """Of rows of this process those of all of them."""

    @staticmethod
    def forward(t: Tensor, peers: Peers, share: Share) -> Tensor:
        return peers.gather(share, t)[0]

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _Own.apply(grad, *ctx.how), None, None


class _Own(_Linear):
    """Of rows of all processes, summed over them, this one's."""

    @staticmethod
    def forward(t: Tensor, peers: Peers, share: Share) -> Tensor:
        return peers.total(t.dtype, t)[0][share.own]

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _Rows.apply(grad, *ctx.how), None, None


class _Parameter(_Linear):
    @staticmethod
    def forward(t: Tensor, peers: Peers, size: int) -> Tensor:
        return t.view_as(t)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _Mean.apply(grad, *ctx.how), None, None


class _Mean(_Linear):
    """The mean over the processes."""

    @staticmethod
    def forward(t: Tensor, peers: Peers, size: int) -> Tensor:
        return peers.total(t.dtype, t)[0] / size

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _Mean.apply(grad, *ctx.how), None, None


class _Factor(_Linear):
    @staticmethod
    def forward(t: Tensor, times: float) -> Tensor:
        return t.view_as(t)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad * ctx.how[0], None
