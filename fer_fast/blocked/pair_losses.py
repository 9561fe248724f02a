"""Two-tower SupCon and NT-Xent by blocks of anchors against every key: loss and both gradients from one product.

Operations: 6·n·m·d, those of plain PyTorch; 2·n·m·d without a gradient. Memory beyond the gradients: four blocks of
logits, each about 2²⁰ entries or 32 anchors.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .tiles import gradient_dtype, row_products, rows_per_sweep, shaped, spans, take, wide_dtype, work_dtype

FEWEST_ANCHORS = 32  # in a block: a product with fewer rows waits for the keys


def pair_losses(
    z: Tensor,
    y: Tensor,
    keys: Tensor | None,
    bank_z: Tensor | None,
    key_y: Tensor,
    own: Tensor | None,
    temperature: float,
    mode: str,
    gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, dz, dkeys) of :mod:`fer_fast.reference.pair_losses`, by `mode` "supcon" or "ntxent".

    z (n, d), y (n,); keys (m, d), or bank_z (m, d), which gets no gradient; key_y (m,), own (n,) or None.
    """
    table = bank_z if keys is None else keys
    dtype, wide = work_dtype(z, table), wide_dtype(z.device)
    table, key_gradient = table.to(dtype), gradient and keys is not None
    dz = torch.empty(z.shape if gradient else (0,), dtype=dtype, device=z.device)
    dkeys = torch.zeros(table.shape if key_gradient else (0,), dtype=dtype, device=z.device)
    total, count, positive = (torch.zeros((), dtype=wide, device=z.device) for _ in range(3))
    anchors = min(max(rows_per_sweep(z, len(table)), FEWEST_ANCHORS), len(z))
    tile = table.new_empty(anchors * len(table))
    for block in spans(len(z), anchors):
        rows = take(z, block, dtype)
        # Into memory of their own dtype: autocast would round the products.
        logits = torch.mm(rows, table.T, out=shaped(tile, len(rows), len(table))).div_(temperature)
        same = (y[block, None] == key_y).to(dtype)
        if own is not None:
            logits.scatter_(1, own[block, None], torch.finfo(dtype).min / 4)  # finite, as in the reference
            same.scatter_(1, own[block, None], 0)
        losses, counted, slopes = LOSSES[mode](logits, same)
        total, count, positive = total + losses.sum(dtype=wide), count + counted.sum(), positive + same.sum(dtype=wide)
        if gradient:
            torch.mm(slopes, table, out=dz[block])
        if key_gradient:
            dkeys.addmm_(slopes.T, rows)
    pairs = len(z) * len(table) - (0 if own is None else len(z))
    share = ((positive > 0) & (positive < pairs) & (pairs > 2)) / count.clamp(min=1)
    factor = (share / temperature).to(dtype)
    dkeys_as = gradient_dtype(z if keys is None else keys)
    return (total * share).to(dtype), dz.mul_(factor).to(gradient_dtype(z)), dkeys.mul_(factor).to(dkeys_as)


def supcon(logits: Tensor, same: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Losses of anchors (r,), which of them count, and the derivatives by the logits (r, m), overwritten."""
    positives = same.sum(1)
    logits.sub_(logits.amax(1, keepdim=True))
    attraction = row_products(logits, same) / positives.clamp(min=1)
    p = logits.exp_()
    denominator = p.sum(1)
    losses = denominator.log() - attraction
    counted = (positives > 0) & ~(losses <= torch.finfo(losses.dtype).eps / 2)  # NaN counts
    p.mul_((counted / denominator)[:, None]).sub_(same * (counted / positives.clamp(min=1))[:, None])
    return losses.where(counted, 0), counted, p


def ntxent(logits: Tensor, same: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over the positives of anchors (r,), how many these are, and the derivatives by the logits (r, m)."""
    positive = same != 0
    p = logits.masked_fill(positive, torch.finfo(logits.dtype).min / 4)
    highest = p.amax(1, keepdim=True)
    p.sub_(highest).exp_()
    denominator = p.sum(1, keepdim=True)
    margins = logits.sub_(highest).neg_().add_(denominator.log())  # log Σ over the negatives - s
    losses = torch.logaddexp(margins, margins.new_zeros(())).where(positive, 0).sum(1)
    pull = margins.sigmoid_().where(positive, 0)
    return losses, same.sum(1), p.mul_(pull.sum(1, keepdim=True) / denominator).sub_(pull)


LOSSES: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]] = {"supcon": supcon, "ntxent": ntxent}
