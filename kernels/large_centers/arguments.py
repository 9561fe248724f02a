"""What the kernels of the engine are given, in groups."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Features x (n, d) with neighbouring columns, labels y (n,), where a bad label is reported, weights w (n,)."""

    x: Tensor
    y: Tensor
    status: Tensor | None
    sample_weights: Tensor | None = None


class Table(NamedTuple):
    """Centers c (C, d), their weights W (C,), and what a loss asks of them; V₋o and m₋o leave out the outlier o."""

    c: Tensor
    class_weights: Tensor | None = None
    squared: Tensor | None = None  # (C,) ‖c_k - c̄‖²
    spread: Tensor | None = None  # V = Σ_k ‖c_k - c̄‖²
    outlier: Tensor | None = None  # o, the class farthest from c̄
    farthest: Tensor | None = None  # (d,) c_o
    mean: Tensor | None = None  # (2, d) m₋o as the sum of two numbers, which one float32 could not say
    rest: Tensor | None = None  # V₋o = Σ_{j≠o} ‖c_j - m₋o‖²
    inverse: Tensor | None = None  # (C,) 1/‖c_k‖, 0 for a zero center
    along: Tensor | None = None  # (C,) ĉ_k·Σ_{j≠k} ĉ_j / (C-1)
    directions: Tensor | None = None  # (d,) Σ_j ĉ_j
    cosines: Tensor | None = None  # Σ_k ĉ_k·Σ_{j≠k} ĉ_j
    factor: Tensor | None = None  # α_v of MVA


class Outputs(NamedTuple):
    """Loss (), its parts by program (programs,) in float64, dx (n, d); of rows their weight among those that push (w
    for a loss without), NaN if they are not finite (n,), if they push Σ p (x - m₋o) by program (programs, d), and the
    losses of the rows (n,)."""

    loss: Tensor
    losses: Tensor
    dx: Tensor | None = None
    weights: Tensor | None = None
    pushed: Tensor | None = None
    row_losses: Tensor | None = None


class ByClass(NamedTuple):
    """Rows in the order of a stable sort of their labels, and the sums of slices of them (slices, kinds, d)."""

    labels: Tensor  # (n,)
    order: Tensor  # (n,)
    starts: Tensor  # (C + 1,) the first row of each class
    slices: Tensor
    pushes: Tensor | None = None  # () Σ p of all rows
    pushed: Tensor | None = None  # (d,) Σ p (x - m₋o) of all rows


class Sizes(NamedTuple):
    """Numbers that never make a kernel anew."""

    n: int
    num_classes: int
    divisor: int  # or a pointer to a number
    auxiliary_weight: float
    programs: int  # of `rows`
    slice_rows: int


# Triton would compile a kernel anew for such a number that is 1 or divisible by 16: it does so for all within a group,
# so kernels take these one by one.
VARYING = ["n", "num_classes", "divisor", "programs", "slice_rows"]
