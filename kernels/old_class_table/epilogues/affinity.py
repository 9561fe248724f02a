"""Affinity loss: own distances over the variance of the centers. The contract is in :mod:`.center`."""

import triton
import triton.language as tl


@triton.jit
def affinity_scalar(weights, spread, variance, a):
    """1 / σ², the same for every class."""
    return tl.zeros_like(spread) + 1 / variance


@triton.jit
def affinity(own, anti, scalar, a):
    """‖x - c_y‖² / σ²."""
    return scalar * own, scalar, tl.zeros_like(own)
