"""SelfCon, SupCon, ESC and ENSC (Zhu et al. 2022, ECAN, eq. 3-6; SupCon: Khosla et al. 2020).

Rows z are L2-normalised by the caller; P(i) = the other rows with the label y_i; D_i is
:func:`~.primitives.contrastive_log_denominator`'s. A row with a negative label, in the batch as in the bank, is neither
anchor, key nor count, whatever it holds. An anchor without a positive adds nothing and is not counted in the mean.
Gradients reach every row that requires them, as an anchor and as a key, and a temperature that is a tensor; never the
bank.

With `sample_weights` (n,), L = Σ_i w_i l_i, and the mean is over the weights of the anchors that count; rows are keys
whatever their weight. `reduction="none"` gives w_i l_i, (n,), 0 for an anchor that does not count.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .params import Learnable, formula
from .primitives import accumulate, class_counts, class_sums, contrastive_log_denominator, reduce


class ContrastiveParams(NamedTuple):
    """Temperature of the contrastive losses."""

    temperature: Learnable = 0.1  # τ, by which dot products are divided


DEFAULT = ContrastiveParams()


@formula(ContrastiveParams, by_row=True)
def selfcon(
    z: Tensor,
    y: Tensor | None = None,
    temperature: float | Tensor = DEFAULT.temperature,
    reduction: str = "mean",
    sample_weights: Tensor | None = None,
) -> Tensor:
    """L = -Σ_i log( e^{z_i·z_j(i)/τ} / Σ_{a≠i} e^{z_i·z_a/τ} ), j(i) = i ± N the other view of the same image.

    embeddings z (2N, d), rows i and i+N two views. labels y (2N,) only say, where they are negative, which rows take
    no part.
    """
    pairs = torch.arange(len(z) // 2, device=z.device).repeat(2)
    pairs = pairs if y is None else pairs.where(y >= 0, -1)
    return supcon(z, pairs, temperature, reduction, sample_weights)


@formula(ContrastiveParams, by_row=True)
def supcon(
    z: Tensor,
    y: Tensor,
    temperature: float | Tensor = DEFAULT.temperature,
    reduction: str = "mean",
    sample_weights: Tensor | None = None,
) -> Tensor:
    """L = -Σ_i 1/|P(i)| Σ_{p∈P(i)} log( e^{z_i·z_p/τ} / D_i ), D_i over the rest of the batch.

    embeddings z (n, d), labels y (n,).
    """
    return _contrast(z, y, None, None, temperature, "supcon", reduction, sample_weights)


@formula(ContrastiveParams, by_row=True)
def esc(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None = None,
    bank_y: Tensor | None = None,
    temperature: float | Tensor = DEFAULT.temperature,
    reduction: str = "mean",
    sample_weights: Tensor | None = None,
) -> Tensor:
    """As :func:`supcon`, D_i also over every row of the bank, bank_z (M, d) and bank_y (M,)."""
    return _contrast(z, y, bank_z, bank_y, temperature, "esc", reduction, sample_weights)


@formula(ContrastiveParams, by_row=True)
def ensc(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None = None,
    bank_y: Tensor | None = None,
    temperature: float | Tensor = DEFAULT.temperature,
    reduction: str = "mean",
    sample_weights: Tensor | None = None,
) -> Tensor:
    """As :func:`supcon`, D_i also over the bank's rows of other classes, bank_z (M, d) and bank_y (M,)."""
    return _contrast(z, y, bank_z, bank_y, temperature, "ensc", reduction, sample_weights)


def _contrast(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: float | Tensor,
    mode: str,
    reduction: str,
    sample_weights: Tensor | None,
) -> Tensor:
    left_out = y < 0
    z = z.masked_fill(left_out[:, None], 0)
    # The mean over positives of z_i·z_p is z_i·(sum of the class - z_i) / |P(i)|: no (n, n) mask of labels.
    _, index = y.unique(return_inverse=True)
    rows = accumulate(z)
    positives = (class_counts(index, len(y), rows.dtype)[index] - 1).masked_fill(left_out, 0)
    mean_positive = (class_sums(rows, index, len(y))[index] - rows) / positives.clamp(min=1)[:, None]
    log_denominator = contrastive_log_denominator(z, y, bank_z, bank_y, temperature, mode)
    losses = log_denominator - (rows * mean_positive).sum(-1) / temperature
    spoiled = _spoiled(z)
    if bank_z is not None:
        spoiled = spoiled + _spoiled(bank_z.detach().masked_fill((bank_y < 0)[:, None], 0))
    return _reduce(losses, positives > 0, spoiled, reduction, sample_weights)


def _spoiled(rows: Tensor) -> Tensor:
    """0, and NaN where a row is not finite: as a key with the logit -inf it would vanish from every denominator."""
    return accumulate(rows - rows).sum()


def _reduce(losses: Tensor, anchors: Tensor, spoiled: Tensor, reduction: str, sample_weights: Tensor | None) -> Tensor:
    """Σ_i w_i l_i over the anchors that count (n,), or over Σ_i w_i of these, or the terms as they are."""
    weights = (torch.ones_like(losses) if sample_weights is None else sample_weights.to(losses)).where(anchors, 0)
    terms = losses.where(anchors, 0) * weights + spoiled
    if reduction == "none":
        return terms
    total = weights.sum()
    return reduce(terms.sum(), total.where(total != 0, 1), reduction)
