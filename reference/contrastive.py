"""SelfCon, SupCon, ESC and ENSC (Zhu et al. 2022, ECAN, eq. 3-6; SupCon: Khosla et al. 2020).

Rows z are L2-normalised by the caller; P(i) = the other rows with the label y_i; D_i is
:func:`~.primitives.contrastive_log_denominator`'s. An anchor without a positive adds nothing and is not counted in
the mean. Gradients reach every row that requires them, as an anchor and as a key; never the bank.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .params import Positive, formula
from .primitives import accumulate, class_counts, class_sums, contrastive_log_denominator, reduce


class ContrastiveParams(NamedTuple):
    """Temperature of the four losses."""

    temperature: Positive = 0.1  # τ, by which dot products are divided


DEFAULT = ContrastiveParams()


@formula(ContrastiveParams)
def selfcon(z: Tensor, temperature: float = DEFAULT.temperature, reduction: str = "mean") -> Tensor:
    """L = -Σ_i log( e^{z_i·z_j(i)/τ} / Σ_{a≠i} e^{z_i·z_a/τ} ), j(i) = i ± N the other view of the same image.

    z (2N, d), rows i and i+N two views.
    """
    return supcon(z, torch.arange(len(z) // 2, device=z.device).repeat(2), temperature, reduction)


@formula(ContrastiveParams)
def supcon(z: Tensor, y: Tensor, temperature: float = DEFAULT.temperature, reduction: str = "mean") -> Tensor:
    """L = -Σ_i 1/|P(i)| Σ_{p∈P(i)} log( e^{z_i·z_p/τ} / D_i ), D_i over the rest of the batch.   z (n, d), y (n,)."""
    return _contrast(z, y, None, None, temperature, "supcon", reduction)


@formula(ContrastiveParams)
def esc(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None = None,
    bank_y: Tensor | None = None,
    temperature: float = DEFAULT.temperature,
    reduction: str = "mean",
) -> Tensor:
    """As :func:`supcon`, D_i also over every row of the bank, bank_z (M, d) and bank_y (M,)."""
    return _contrast(z, y, bank_z, bank_y, temperature, "esc", reduction)


@formula(ContrastiveParams)
def ensc(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None = None,
    bank_y: Tensor | None = None,
    temperature: float = DEFAULT.temperature,
    reduction: str = "mean",
) -> Tensor:
    """As :func:`supcon`, D_i also over the bank's rows of other classes, bank_z (M, d) and bank_y (M,)."""
    return _contrast(z, y, bank_z, bank_y, temperature, "ensc", reduction)


def _contrast(
    z: Tensor, y: Tensor, bank_z: Tensor | None, bank_y: Tensor | None, temperature: float, mode: str, reduction: str
) -> Tensor:
    # The mean over positives of z_i·z_p is z_i·(sum of the class - z_i) / |P(i)|: no (n, n) mask of labels.
    _, index = y.unique(return_inverse=True)
    rows = accumulate(z)
    positives = class_counts(index, len(y), rows.dtype)[index] - 1
    anchors = positives > 0
    mean_positive = (class_sums(rows, index, len(y))[index] - rows) / positives.clamp(min=1)[:, None]
    log_denominator = contrastive_log_denominator(z, y, bank_z, bank_y, temperature, mode)
    losses = log_denominator - (rows * mean_positive).sum(-1) / temperature
    # 0, and NaN where a row is not finite: as a key with the logit -inf it would vanish from every denominator.
    losses = losses + (rows - rows).sum()
    return reduce(losses.where(anchors, 0).sum(), anchors.sum().clamp(min=1), reduction)
