"""Marginal loss (Deng et al. 2017; Pham et al. 2023, section 2): one threshold for all pairs of the batch."""

from typing import NamedTuple

import torch
from torch import Tensor

from .params import NonNegative, formula
from .primitives import accumulate, taking_part, unit


class MarginalParams(NamedTuple):
    """Threshold and margin, in squared distances of unit rows, which lie in [0, 4]."""

    theta: NonNegative = 1.2  # θ, threshold between pairs of one class and others
    xi: NonNegative = 0.3  # ξ, margin on either side of it


DEFAULT = MarginalParams()


@formula(MarginalParams)
def marginal(
    x: Tensor, y: Tensor, theta: float = DEFAULT.theta, xi: float = DEFAULT.xi, reduction: str = "mean"
) -> Tensor:
    """L = 1/(n²-n) Σ_{i≠j} [ξ - y_ij (θ - ‖x̂_i - x̂_j‖²)]₊, x̂ = x/‖x‖, y_ij = ±1 for the same / another class.

    features x (n, d), labels y (n,). The printed divisor n²-n is the mean; `"sum"` leaves it out. A single sample has
    no pair: 0. A negative label takes its row out of everything, n included. The squared distance is
    ‖x̂_i‖² + ‖x̂_j‖² - 2 x̂_i·x̂_j, where a zero row has length 0.
    """
    x, y = taking_part(x, y)
    n = len(x)
    directions = unit(accumulate(x))
    squared = directions.square().sum(-1)
    distances = squared[:, None] + squared - 2 * accumulate(directions @ directions.mT)
    sign = torch.where(y[:, None] == y, 1.0, -1.0).to(distances.dtype)
    pairs = ~torch.eye(n, dtype=torch.bool, device=y.device)
    total = torch.where(pairs, (xi - sign * (theta - distances)).relu(), 0).sum()
    return total / max(n * n - n, 1) if reduction == "mean" else total
