"""Contrastive losses of anchors against the rows of another tower, as pytorch-metric-learning reduces them.

Anchors z (n, d) with labels y (n,), keys ref_z (m, d) with ref_y (m,), both L2-normalised by the caller; s_ij is their
dot product over τ. Anchor i meets every key but the key own[i], its own copy, where `own` (n,) is given. P(i) are the
keys with its label, N(i) the others. A batch that lacks either kind of pair, or has one of each, loses 0, as it does
there.
"""

import torch
from torch import Tensor

from .primitives import accumulate


def supcon(
    z: Tensor, y: Tensor, ref_z: Tensor, ref_y: Tensor, own: Tensor | None = None, temperature: float = 0.1
) -> Tensor:
    """L_i = log Σ_{j∈P(i)∪N(i)} e^{s_ij} - 1/|P(i)| Σ_{p∈P(i)} s_ip (Khosla et al. 2020), the mean of those above 0.

    Above 0 is above half an epsilon: less is what the package's sums round away, so that an anchor already told apart
    from every negative does not count in its mean.
    """
    logits, same = _pairs(z, y, ref_z, ref_y, own, temperature)
    positives = same.sum(1)
    logits = logits - logits.detach().amax(1, keepdim=True)
    losses = logits.logsumexp(1) - logits.where(same, 0).sum(1) / positives.clamp(min=1)
    counted = (positives > 0) & ~(losses <= torch.finfo(losses.dtype).eps / 2)  # NaN counts
    loss = losses.where(counted, 0).sum() / counted.sum().clamp(min=1)
    return loss.where(_both_kinds(same, own), 0)


def ntxent(
    z: Tensor, y: Tensor, ref_z: Tensor, ref_y: Tensor, own: Tensor | None = None, temperature: float = 0.07
) -> Tensor:
    """L_ip = -log( e^{s_ip} / (e^{s_ip} + Σ_{j∈N(i)} e^{s_ij}) ), the mean over all pairs i, p∈P(i).

    Source: Sohn 2016; Chen et al. 2020 (SimCLR).
    """
    logits, same = _pairs(z, y, ref_z, ref_y, own, temperature)
    negatives = logits.masked_fill(same, _lowest(logits)).logsumexp(1, keepdim=True)
    losses = torch.logaddexp(negatives - logits, torch.zeros_like(logits))
    return (losses.where(same, 0).sum() / same.sum().clamp(min=1)).where(_both_kinds(same, own), 0)


def _pairs(
    z: Tensor, y: Tensor, ref_z: Tensor, ref_y: Tensor, own: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor]:
    """Logits (n, m), lowest for an anchor's own copy, and which pairs are positive."""
    logits = accumulate(accumulate(z) @ accumulate(ref_z).mT) / temperature
    same = y[:, None] == ref_y
    if own is None:
        return logits, same
    return logits.scatter(1, own[:, None], _lowest(logits)), same.scatter(1, own[:, None], False)


def _lowest(logits: Tensor) -> float:
    """In place of -inf: finite, so that a row without any other logit has finite differences."""
    return torch.finfo(logits.dtype).min / 4


def _both_kinds(same: Tensor, own: Tensor | None) -> Tensor:
    """Whether there are positive and negative pairs, and more than one of a kind."""
    pairs = same.numel() - (0 if own is None else len(own))
    positive = same.sum()
    return (positive > 0) & (positive < pairs) & (pairs > 2)
