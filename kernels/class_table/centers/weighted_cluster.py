"""Weighted-cluster loss: own distances relative to the other centers (Ngo & Yoon 2020). Contract: :mod:`.center`."""

import triton
import triton.language as tl
from fer_fast.reference import WeightedClusterParams

from ..arguments import YES, Center


@triton.jit
def weighted_cluster_scalar(weights, spread, variance, a):
    """W_k / (Σ_j ‖c_j - c_k‖² + α)."""
    return weights / (spread + a.alpha)


@triton.jit
def weighted_cluster(own, anti, scalar, a):
    """½ scalar_y ‖x - c_y‖²."""
    return 0.5 * scalar * own, 0.5 * scalar, tl.zeros_like(own)


@triton.jit
def weighted_cluster_move(c, pull, push, apart, directions, count, scalar, spread_total, inverse_length, along, a):
    """c + γ scalar_k Σ_{y=k} (x - c_k)."""
    return c + a.gamma * scalar * pull


WEIGHTED_CLUSTER = (
    Center(weighted_cluster, weighted_cluster_move, weighted_cluster_scalar, spread=YES),
    WeightedClusterParams,
)
