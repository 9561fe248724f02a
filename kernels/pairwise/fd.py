"""FD of Ad-Corre (Fard & Mahoor 2022, eq. 3-9), of one pair: Ω_ij |Φ_ij - corr_ij|, the printed form."""

from typing import NamedTuple

import triton
import triton.language as tl


class FDArguments(NamedTuple):
    """FD has no settings."""


@triton.jit
def fd_pairwise(s, same, weight_i, weight_j, args):
    """Loss and dloss/ds of correlations s, where the weights are w(y). At the kink the slope is 0."""
    gap = s - tl.where(same, 1.0, -1.0)
    weight = weight_i + weight_j
    return weight * tl.abs(gap), tl.where(gap == 0, 0.0, tl.where(gap < 0, -weight, weight))
