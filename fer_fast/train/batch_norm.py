"""BatchNorm over the shares of several processes: y = (x - E) / √(Var + ε) · w + b, E and Var of the images of all.

On GPUs that is PyTorch's `SyncBatchNorm`, which takes nothing else. On a CPU it is the same, of PyTorch's kernels for
each share and what they need of each other: 2 C + 1 numbers forward (count, mean, variance), 2 C backward.
"""

import torch
import torch.distributed as dist
from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from fer_fast.errors import InputError


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm of shares (n, C, ...), n of any size and 0, by mean and variance of those of all processes.

    Gradients are those of the sum of all processes' losses, of w and b the own share's part: what
    DistributedDataParallel makes means of.
    """

    def _check_input_dim(self, x: Tensor) -> None:  # which is what tells BatchNorm1d from 2d
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        y, count, mean, var = _Shared.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.num_batches_tracked += 1
            step = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, step)
            self.running_var.lerp_(var * (count / (count - 1)), step)
        return y


class SharedBatchNormAct(SharedBatchNorm):
    """The same for timm's `BatchNormAct2d`, which is its activation, too."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


class _Shared(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count, mean, var = _of_all(x, weight)
        ctx.save_for_backward(x, weight, count, mean, var)
        ctx.eps = eps
        ctx.mark_non_differentiable(count, mean, var)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps), count, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, count, mean, var = ctx.saved_tensors
        if x.numel():  # as if mean and variance were constants: Σ dy·x̂ and Σ dy beside it
            fixed = (x, weight, mean, var, None, None, False, ctx.eps, [True, True, True])
            dx, dw, db = torch.ops.aten.native_batch_norm_backward(dy, *fixed)
        else:  # for which PyTorch divides by zero
            dx, dw, db = torch.zeros_like(x), torch.zeros_like(weight), torch.zeros_like(weight)
        sums = torch.cat((dw, db))
        dist.all_reduce(sums)
        # They are none: dx = w/σ · (dy - mean of dy - x̂ · mean of dy·x̂), of which the last two are a BatchNorm of x.
        scale, shift = (sums / -count).view(2, -1) * (weight * (var + ctx.eps).rsqrt())
        return dx.add_(F.batch_norm(x, mean, var, scale, shift, False, 0.0, ctx.eps)), dw, db, None


def _of_all(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values a channel (), mean (C,) and variance (C,) of the shares of all processes, in the dtype of the weight."""
    if x.numel():  # in the precision of what is to be moved
        mean, var = torch.batch_norm_update_stats(x, torch.zeros_like(weight), torch.zeros_like(weight), 0.0)
    else:
        mean, var = torch.zeros_like(weight), torch.zeros_like(weight)
    own = torch.cat((mean, var, weight.new_tensor([x.numel() / len(mean)])))
    shares = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(shares, own)
    means, variances, counts = torch.stack(shares).split((len(mean), len(mean), 1), 1)
    count = counts.sum()
    parts = counts / count
    mean = (parts * means).sum(0)
    return count, mean, (parts * (variances + (means - mean).square())).sum(0)


_SHARED: dict[str, dict[type[nn.Module], type[nn.Module]]] = {
    "cpu": {
        nn.BatchNorm1d: SharedBatchNorm,
        nn.BatchNorm2d: SharedBatchNorm,
        BatchNormAct2d: SharedBatchNormAct,
    },
    "cuda": {
        nn.BatchNorm1d: nn.SyncBatchNorm,
        nn.BatchNorm2d: nn.SyncBatchNorm,
        BatchNormAct2d: SyncBatchNormAct,
    },
}


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """All of a network's."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def share_batch_norms(network: nn.Module, device: torch.device) -> None:
    """Make those of a network take mean and variance from all processes, in place; names in its state stay.

    Raises:
        InputError: one that nobody knows how to share.
    """
    kinds = _SHARED[device.type]
    for norm in batch_norms(network):
        if type(norm) not in kinds or not norm.affine or not norm.track_running_stats:
            raise InputError(
                f"hardware.sync_batchnorm does not know how to share {type(norm).__name__} between processes; "
                "false leaves each its own"
            )
        norm.__class__ = kinds[type(norm)]
        norm.process_group = None  # that of all, which SyncBatchNorm asks for
