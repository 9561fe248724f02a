"""MD of Ad-Corre (Fard & Mahoor 2022, eq. 10): class means of the batch should not correlate."""

import torch
from torch import Tensor

from .params import formula
from .primitives import accumulate, class_counts, class_sums, standardised


@formula()
def md(e: Tensor, y: Tensor, num_classes: int, reduction: str = "mean") -> Tensor:
    """L = 1/(k C²) Σ_l Σ_{a≠b} |1 + corr(μ_la, μ_lb)|, μ_la the mean of embedding l over the batch's class a.

    embeddings e (k, n, d), labels y (n,). Pairs with an absent class are skipped, the divisor stays (the paper's k³ has
    C = k); `"sum"` leaves it out.
    """
    e = accumulate(e)
    counts = class_counts(y, num_classes, e.dtype)
    present = counts > 0
    means = class_sums(e, y, num_classes) / counts.clamp(min=1)[:, None]
    u = standardised(means)
    pairs = present[:, None] & present & ~torch.eye(num_classes, dtype=torch.bool, device=y.device)
    total = torch.where(pairs, (1 + accumulate(u @ u.mT)).abs(), 0).sum()
    return total / (len(e) * num_classes**2) if reduction == "mean" else total
