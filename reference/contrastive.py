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


@formula(ContrastiveParams)
def cross_supcon(
    z: Tensor,
    y: Tensor,
    ref_z: Tensor,
    ref_y: Tensor,
    temperature: float | Tensor = DEFAULT.temperature,
    reduction: str = "mean",
) -> Tensor:
    """L = Σ_i log( Σ_m e^{z_i·r_m/τ} ) - 1/|P(i)| Σ_{p∈P(i)} z_i·r_p/τ: two towers, keys are the references alone.

    z (n, d), y (n,) the anchors; ref_z (M, d), ref_y (M,) the keys; P(i) = the keys with the label y_i. Gradients reach
    both. Negative labels, and anchors without a positive, are left out as in the other losses. As SupCon of Khosla et
    al. 2020 between two sets of rows, which is what pytorch-metric-learning does with `ref_emb` and `ref_labels`.
    """
    left_out, ref_left_out = y < 0, ref_y < 0
    rows = accumulate(z).masked_fill(left_out[:, None], 0)
    keys = accumulate(ref_z).masked_fill(ref_left_out[:, None], 0)
    logits = accumulate(rows.to(z.dtype) @ keys.to(z.dtype).mT) / temperature
    same = (y[:, None] == ref_y) & ~ref_left_out & ~left_out[:, None]
    positives = same.sum(1)
    anchors = positives > 0
    pull = logits.where(same, 0).sum(1) / positives.clamp(min=1)
    losses = logits.masked_fill(ref_left_out, -torch.inf).logsumexp(1) - pull
    spoiled = (rows - rows).sum() + (keys - keys).sum()  # 0, and NaN where a row is not finite
    total = losses.where(anchors, 0).sum() + spoiled
    return reduce(total, anchors.sum().clamp(min=1), reduction)


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
