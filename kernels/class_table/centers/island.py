"""Island loss: center loss that also drives the centers apart (Cai et al. 2018). The contract is in :mod:`.center`."""

import triton
import triton.language as tl  # noqa: F401 - the interpreter patches the module it finds here
from fer_fast.reference import IslandParams

from ..arguments import YES, Center
from .center import center


@triton.jit
def island_constant(spread_total, cosine_total, a):
    """λ₁ Σ_j Σ_{k≠j} (cos(c_j, c_k) + 1); `cosine_total` is that sum."""
    return a.lambda1 * cosine_total


@triton.jit
def island_move(c, pull, push, apart, directions, count, scalar, spread_total, inverse_length, along, a):
    """c - α (Δ_k + λ₁/(C-1) Σ_{j≠k} (ĉ_j - cos(c_j, c_k) ĉ_k) / ‖c_k‖)."""
    repulsion = (directions - along * c * inverse_length) * inverse_length
    return c + a.alpha * (pull / (1 + count) - a.lambda1 * repulsion)


ISLAND = Center(center, island_move, constant=island_constant, directions=YES), IslandParams
