"""Which images go into which batch: shuffled or class-balanced epochs, decided by one generator."""

import torch
from torch import Tensor

from fer_fast.errors import InputError


def epoch_batches(
    labels: Tensor, batch_size: int, *, generator: torch.Generator, balanced: bool = False, drop_last: bool = False
) -> list[Tensor]:
    """Batches of indices for one epoch.

    Args:
        labels: int64 (n,), the class of each image, on the CPU.
        batch_size: images in a batch, at least 1.
        generator: a CPU generator; the only source of randomness, so a restored state gives the same epoch.
        balanced: draw every class present equally often. The epoch keeps its n images: a rare class is repeated (each
            image of it as often as the others, within one), a frequent class shows a random part of its images.
        drop_last: leave out a last batch that is not full.

    Returns:
        int64 index tensors. A last batch of one image, which batch normalisation cannot train on, borrows an image from
        the batch before it, or joins that batch where `batch_size` is 2.

    Raises:
        InputError: no labels, a batch size below 1, or nothing left after `drop_last`.
    """
    if labels.ndim != 1 or labels.dtype != torch.int64 or len(labels) == 0:
        raise InputError(f"labels must be int64 of shape (n,) with n >= 1, got {labels.dtype} {tuple(labels.shape)}")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; allowed: 1 and more")
    if drop_last and len(labels) < batch_size:
        raise InputError(f"drop_last leaves no batch: {len(labels)} images, batch_size {batch_size}")
    order = _balanced_order(labels, generator) if balanced else torch.randperm(len(labels), generator=generator)
    batches = list(order.split(batch_size))
    if len(batches) > 1 and len(batches[-1]) < batch_size:
        if drop_last:
            batches.pop()
        elif len(batches[-1]) == 1:
            tail = torch.cat(batches[-2:])
            batches[-2:] = [tail] if batch_size == 2 else [tail[:-2], tail[-2:]]
    return batches


def _balanced_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """A shuffled (n,) list of indices in which the classes present differ in count by at most one."""
    present = labels.unique()
    share, extra = divmod(len(labels), len(present))
    lucky = torch.randperm(len(present), generator=generator)[:extra].tolist()
    drawn = []
    for position, label in enumerate(present):
        members = (labels == label).nonzero().squeeze(1)
        wanted = share + (position in lucky)
        rounds = [torch.randperm(len(members), generator=generator) for _ in range(-(-wanted // len(members)))]
        drawn.append(members[torch.cat(rounds)[:wanted]] if wanted else members[:0])
    order = torch.cat(drawn)
    return order[torch.randperm(len(order), generator=generator)]
