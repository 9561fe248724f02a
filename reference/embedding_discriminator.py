"""ED of Ad-Corre (Fard & Mahoor 2022, eq. 11): the k embeddings of one sample should not correlate."""

import torch
from torch import Tensor

from .params import formula
from .primitives import accumulate, present, reduce_rows, standardised


@formula(by_row=True)
def ed(e: Tensor, reduction: str = "mean", sample_weights: Tensor | None = None) -> Tensor:
    """L = 1/(k² Σ_i w_i) Σ_i w_i Σ_{a≠b} |1 + corr(e_ai, e_bi)|.

    embeddings e (k, n, d), sample_weights w (n,), one where left out: the printed divisor n k² is then the mean's.
    `"sum"` leaves it out, and `"none"` gives that sum's terms, (n,). A single embedding has no pair: 0.
    """
    k = e.shape[0]
    u = standardised(accumulate(present(e, sample_weights))).transpose(0, 1)
    different = ~torch.eye(k, dtype=torch.bool, device=e.device)
    losses = torch.where(different, (1 + accumulate(u @ u.mT)).abs(), 0).sum((1, 2))
    total = reduce_rows(losses, sample_weights, reduction)
    return total / k**2 if reduction == "mean" else total
