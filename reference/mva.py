"""Multi-view affinity loss (Zhu et al. 2022, ECAN, eq. 9-10): affinity loss weighted by how it varies over groups."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .affinity import affinity
from .center import CenterParams, center_update
from .params import formula


class MVAParams(CenterParams):
    """Those of center loss, whose rule moves the centers."""


@formula(MVAParams, center_update)
def mva(
    x: Tensor,
    y: Tensor,
    centers: Tensor,
    groups: Sequence[tuple[Tensor, Tensor]] = (),
    reduction: str = "mean",
    sample_weights: Tensor | None = None,
) -> Tensor:
    """L = α_v · A_1, A_v the affinity loss of feature group v, α_v = 1 + (1/V) Σ_v (A_v - Ā)².

    Group 1 is the batch, features x (n, d) and labels y (n,); the others are `groups`, pairs of features (n_v, d) and
    labels (n_v,) from the memory bank, newest first. V is what is there; without groups the loss is affinity loss. α_v
    is a constant for the gradient. `sample_weights` (n,) are the batch's.
    """
    batch = affinity(x, y, centers, reduction, sample_weights)
    with torch.no_grad():
        values = torch.stack([batch.detach(), *(affinity(x_v, y_v, centers, reduction) for x_v, y_v in groups)])
        weight = 1 + values.var(correction=0)
    return weight * batch
