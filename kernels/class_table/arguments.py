"""What the kernels of the engine are given, in groups, and where they leave what the next one reads."""

from typing import Any, NamedTuple

import triton.language as tl
from torch import Tensor

# Rows (K,) of the statistics of the tables, which `table_stats` writes; behind them lie tables (K, d): unit class
# weights where a head wants them, then for a loss that repels the means of the other centers, in two parts, and each
# center's offset from its mean, which a printed gradient wants.
LENGTH, SCALAR, SPREAD, REST, INVERSE, ALONG, STATISTICS = (tl.constexpr(i) for i in range(7))
# Sums in float64 that are known before the first row, one slot each: Σ W_y, then of each group of MVA Σ ‖x - c_y‖².
SUMMED_PROGRAMS = tl.constexpr(256)
YES, NO = tl.constexpr(True), tl.constexpr(False)


class Batch(NamedTuple):
    """Features x (n, d) with neighbouring columns, labels y (n,), where a bad label is reported, MVA's groups, weights
    of the rows (n,), and what a classifier's rows have of each class (n, C), whose largest is at y."""

    x: Tensor
    y: Tensor
    status: Tensor | None
    groups_x: tuple[Tensor, ...] = ()
    groups_y: tuple[Tensor, ...] = ()
    sample_weights: Tensor | None = None
    soft_labels: Tensor | None = None
    group_rows: Tensor | None = None  # (V,), how many rows of MVA's groups are real, the first ones; None for all


class Tables(NamedTuple):
    """Class weights (C, d), bias (C,), W (C,); centers (C, d), their W (C,); statistics of both; sums in float64."""

    w: Tensor | None
    bias: Tensor | None
    class_weights: Tensor | None
    c: Tensor | None
    center_weights: Tensor | None
    statistics: Tensor | None
    sums: Tensor | None


class Outputs(NamedTuple):
    """Loss (), gradients, the programs' partial sums (programs, size), weights of rows left for `sums`; the losses of
    the rows (n,), and of each Σ_j d loss/d f_j f_j, before a mean divides."""

    loss: Tensor
    dx: Tensor | None
    dw: Tensor | None
    dbias: Tensor | None
    partials: Tensor
    row_weights: Tensor | None  # (n, kinds, K)
    sums: Tensor | None  # (splits, kinds K, d), of `sums`
    losses: Tensor | None = None
    along_logits: Tensor | None = None


class Sizes(NamedTuple):
    """Numbers that never make a kernel anew."""

    n: int
    num_classes: int
    head_divisor: int  # or a pointer to a number
    divisor: int  # likewise
    auxiliary_weight: float
    programs: int  # that wrote partial sums
    splits: int  # of `sums`
    summed: int  # programs that wrote sums known before the first row
    group_sizes: tuple[float, ...] = ()  # which no kernel is compiled for


class Head(NamedTuple):
    """A classifier's functions (contract: :mod:`.heads.softmax`), what is scaled to length one for it, its settings,
    and what is taken off a target and shared by all classes; by default none."""

    logits: Any = None
    chain: Any = None
    unit_x: tl.constexpr = NO
    unit_w: tl.constexpr = NO
    lengths: tl.constexpr = NO
    steepest: tl.constexpr = tl.constexpr(1)  # G of the own class is at most this times p and its largest setting
    a: Any = None
    smoothing: float | None = None


class Center(NamedTuple):
    """A center loss's functions (contract: :mod:`.centers.center`), what of the table they read, and its settings; by
    default none."""

    loss: Any = None
    move: Any = None
    scalar: Any = None
    constant: Any = None
    push: Any = None
    paper_slope: Any = None
    spread: tl.constexpr = NO  # Σ_j ‖c_j - c_k‖², their total, σ²
    anti: tl.constexpr = NO  # S_i
    directions: tl.constexpr = NO  # ĉ_k and their cosines
    a: Any = None


# Triton would compile a kernel anew for such a number that is 1 or divisible by 16: it does so for all within a group,
# so kernels take these one by one.
VARYING = ["n", "num_classes", "head_divisor", "divisor", "programs", "splits", "summed"]
