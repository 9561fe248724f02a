"""NFD and FD of Ad-Corre (Fard & Mahoor 2022, eq. 3-9): correlations within a class up, across classes down.

Kept in the printed pairwise form. The fast paths use that it is linear in the correlations and are tested against it.
"""

import torch
from torch import Tensor

from .params import formula
from .primitives import accumulate, class_counts, standardised


@formula()
def nfd(e: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """L = 1/(k n²) Σ_l Σ_{i≠j} |Φ_ij - corr(e_li, e_lj)|, Φ_ij = +1 for the same class, -1 otherwise.

    embeddings e (k, n, d), k of n samples; labels y (n,). The printed divisor k n² is the mean; `"sum"` leaves it out.
    The gradient of |·| at 0 is 0.
    """
    return fd(e, y, torch.full((int(y.max()) + 1 if len(y) else 1,), 0.5), reduction)


@formula()
def fd(e: Tensor, y: Tensor, class_difficulty: Tensor, reduction: str = "mean") -> Tensor:
    """L = 1/(k n²) Σ_l Σ_{i≠j} Ω_ij |Φ_ij - corr(e_li, e_lj)|, Ω_ij = w(y_i) + w(y_j).

    As :func:`nfd`, with class_difficulty w (C,) from :func:`class_difficulty`: pairs of often-confused classes weigh
    more.
    """
    u = standardised(accumulate(e))
    _, n, _ = e.shape
    same = torch.where(y[:, None] == y, 1.0, -1.0).to(u.dtype)
    w = class_difficulty.to(u)[y]
    weights = (w[:, None] + w) * ~torch.eye(n, dtype=torch.bool, device=y.device)
    total = (weights * (same - accumulate(u @ u.mT)).abs()).sum()
    return total / (len(e) * max(n, 1) ** 2) if reduction == "mean" else total


def confusion_counts(y: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """How often truth a was predicted as b: (C, C), float32 (exact to 2²⁴)."""
    return class_counts(y * num_classes + predictions, num_classes**2, torch.float32).view(num_classes, num_classes)


def class_difficulty(confusion: Tensor) -> Tensor:
    """w(c) = 1 - CONF[c, c] + 1e-6 from counts (C, C), truth by rows; CONF is their row-normalised form.

    A row without a sample counts as 0 on its diagonal. Source: eq. 7-8.
    """
    rows = confusion.sum(1)
    return 1 - confusion.diagonal() / rows.where(rows > 0, 1) + 1e-6
