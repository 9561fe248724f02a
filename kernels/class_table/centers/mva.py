"""Multi-view affinity (ECAN, eq. 9-10): affinity loss times the weight of the current feature group."""

import triton
import triton.language as tl


@triton.jit
def group_weight(losses, is_group):
    """α_v = 1 + (1/V) Σ_v (A_v - Ā)² over the V groups; of the losses A_v (groups,), `is_group` are real."""
    groups = tl.sum(tl.where(is_group, 1.0, 0.0), 0)
    mean = tl.sum(tl.where(is_group, losses, 0.0), 0) / groups
    deviation = tl.where(is_group, losses - mean, 0.0)
    return 1 + tl.sum(deviation * deviation, 0) / groups
