"""Marginal loss (Deng et al. 2017), of one pair: [ξ - y_ij (θ - ‖x̂_i - x̂_j‖²)]₊."""

from typing import NamedTuple

import triton
import triton.language as tl


class MarginalArguments(NamedTuple):
    """θ, the squared distance that separates, and ξ, the margin around it."""

    theta: float
    xi: float


@triton.jit
def marginal(s, same, weight_i, weight_j, args):
    """Loss and dloss/ds of similarities s = x̂_i·x̂_j, where the weights are ‖x̂‖². NaN stays NaN."""
    slope = tl.where(same, -2.0, 2.0)
    hinge = tl.fma(slope, s - tl.fma(weight_j, 0.5, 0.5 * (weight_i - args.theta)), args.xi)
    return tl.where(hinge <= 0, 0.0, hinge), tl.where(hinge <= 0, 0.0, slope)
