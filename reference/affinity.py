"""Affinity loss (Zhu et al. 2022, ECAN, eq. 8): center distances over the variance of the centers."""

from torch import Tensor

from .center import CenterParams, center_update
from .params import formula
from .primitives import accumulate, own_distances, present, reduce_rows


class AffinityParams(CenterParams):
    """Those of center loss, whose rule moves the centers."""


@formula(AffinityParams, center_update, by_row=True)
def affinity(
    x: Tensor, y: Tensor, centers: Tensor, reduction: str = "mean", sample_weights: Tensor | None = None
) -> Tensor:
    """L = Σ_i ‖x_i - c_{y_i}‖² / σ_c², σ_c² = Σ_dims of the unbiased variance over classes of the centers.

    features x (n, d), labels y (n,), centers c (C, d). The centers move by the rule of center loss. Needs two centers
    that differ: with σ_c² = 0 the loss is inf (NaN where the distance is 0 too), as the formula says.
    """
    distances = own_distances(present(x, sample_weights), y, centers)
    return reduce_rows(distances / accumulate(centers).var(0).sum(), sample_weights, reduction)
