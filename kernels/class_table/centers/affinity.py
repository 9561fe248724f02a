"""Affinity loss: own distances over the variance of the centers (ECAN, eq. 8). The contract is in :mod:`.center`."""

import triton
import triton.language as tl
from fer_fast.reference import CenterParams

from ..arguments import YES, Center
from .center import center_move


@triton.jit
def affinity_scalar(weights, spread, variance, a):
    """1 / σ², the same for every class."""
    return tl.zeros_like(spread) + 1 / variance


@triton.jit
def affinity(own, anti, scalar, a):
    """‖x - c_y‖² / σ²."""
    return scalar * own, scalar, tl.zeros_like(own)


AFFINITY = Center(affinity, center_move, affinity_scalar, spread=YES), CenterParams  # centers move by its rule
