"""ED of Ad-Corre (Fard & Mahoor 2022, eq. 11): the k embeddings of one sample should not correlate."""

import torch
from torch import Tensor

from .params import formula
from .primitives import accumulate, standardised


@formula()
def ed(e: Tensor, reduction: str = "mean") -> Tensor:
    """L = 1/(n k²) Σ_i Σ_{a≠b} |1 + corr(e_ai, e_bi)|.

    embeddings e (k, n, d). The printed divisor n k² is the mean; `"sum"` leaves it out. A single embedding has no
    pair: 0.
    """
    k, n, _ = e.shape
    u = standardised(accumulate(e)).transpose(0, 1)
    different = ~torch.eye(k, dtype=torch.bool, device=e.device)
    total = torch.where(different, (1 + accumulate(u @ u.mT)).abs(), 0).sum()
    return total / (n * k**2) if reduction == "mean" else total
