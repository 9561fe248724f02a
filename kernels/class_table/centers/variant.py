"""Variant loss: pull to the own center, push from all others, spread the centers (Pham et al. 2023, eq. 1, 3 and 5).

Its S_i = Σ_{j≠y} ‖x - c_j‖² is (C-1) ‖x - c̄₋y‖² + V₋y, with the mean and the spread of the other centers, which
:mod:`..table_stats` finds. The contract is in :mod:`.center`.
"""

import triton
import triton.language as tl
from fer_fast.reference import VariantParams

from ..arguments import YES, Center


@triton.jit
def variant(own, anti, scalar, a):
    """½ (own + λ₁ / (ε₁ + S))."""
    inverse = 1 / (a.eps1 + anti)
    return 0.5 * (own + a.lambda1 * inverse), tl.full(own.shape, 0.5, tl.float32), -0.5 * a.lambda1 * inverse * inverse


@triton.jit
def variant_constant(spread_total, cosine_total, a):
    """λ₂ / (ε₂ + T)."""
    return a.lambda2 / (a.eps2 + spread_total)


@triton.jit
def variant_push(anti, a):
    """1 / (ε₁ + S)²."""
    inverse = 1 / (a.eps1 + anti)
    return inverse * inverse


@triton.jit
def variant_paper_slope(spread_total, a):
    """The factor of Σ_{j≠y} (c_y - c_j) in the third term printed in eq. 3: -2 λ₂ / (ε₂ + T)²."""
    inverse = 1 / (a.eps2 + spread_total)
    return -2 * a.lambda2 * inverse * inverse


@triton.jit
def variant_move(c, pull, push, apart, directions, count, scalar, spread_total, inverse_length, along, a):
    """c - α (Δ_k - λ₁ push - λ₂ Σ_j (c_k - c_j) / (2 (ε₂ + T)²))."""
    inverse = 1 / (a.eps2 + spread_total)
    return c + a.alpha * (pull / (1 + count) + a.lambda1 * push + 0.5 * a.lambda2 * inverse * inverse * apart)


VARIANT = (
    Center(variant, variant_move, None, variant_constant, variant_push, variant_paper_slope, spread=YES, anti=YES),
    VariantParams,
)
