"""Island loss (Cai et al. 2018; Pham et al. 2023, section 2): center loss that also drives the centers apart."""

from typing import NamedTuple

from torch import Tensor

from .center import center, center_direction
from .params import NonNegative, formula
from .primitives import accumulate, unit, unless_spoiled


class IslandParams(NamedTuple):
    """Weight of the repulsion, and how fast centers move."""

    lambda1: NonNegative = 10.0  # weight of the cosines between centers
    alpha: NonNegative = 0.5  # the centers' learning rate


DEFAULT = IslandParams()


def island_update(
    x: Tensor,
    y: Tensor,
    centers: Tensor,
    lambda1: float = DEFAULT.lambda1,
    alpha: float = DEFAULT.alpha,
    sample_weights: Tensor | None = None,
) -> Tensor:
    """c ← c - α (Δ_k + λ₁/(C-1) · Σ_{k≠j} ∂cos(c_j, c_k)/∂c_j), Δ the direction of center loss: (C, d).

    ∂cos(c_j, c_k)/∂c_j = (ĉ_k - cos(c_j, c_k) ĉ_j) / ‖c_j‖. A single class has no other to move from.
    """
    old = accumulate(centers)
    directions = unit(old)
    lengths = (old * directions).sum(-1, keepdim=True)  # ‖c‖ = c·ĉ, whose squares do not overflow
    others = directions.sum(0) - directions
    along = (others * directions).sum(-1, keepdim=True)
    repulsion = ((others - along * directions) / lengths.where(lengths > 0, 1)).where(lengths > 0, 0)
    move = center_direction(x, y, old, sample_weights) + lambda1 / max(len(old) - 1, 1) * repulsion
    return unless_spoiled(old - alpha * move, centers)


@formula(IslandParams, island_update)
def island(
    x: Tensor,
    y: Tensor,
    centers: Tensor,
    lambda1: float = DEFAULT.lambda1,
    reduction: str = "mean",
    sample_weights: Tensor | None = None,
) -> Tensor:
    """L = Center + λ₁ Σ_j Σ_{k≠j} (cos(c_j, c_k) + 1).

    features x (n, d), labels y (n,), centers c (C, d). The second term runs over centers, not samples: it is never
    divided by n, and it has no gradient with respect to the features. A zero center has no direction: its cosines
    are 0.
    """
    directions = unit(accumulate(centers))
    cosines = directions @ directions.mT + 1
    return center(x, y, centers, reduction, sample_weights) + lambda1 * (cosines.sum() - cosines.diagonal().sum())
