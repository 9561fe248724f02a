"""What the kernels are given, in groups, and where they leave what the next one reads."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Embeddings e (k, n, d) with neighbouring columns, labels y (n,), class difficulty w (C,), where a bad label is
    reported, and ED's weights of rows (n,) with their sum () where it is a mean."""

    e: Tensor
    y: Tensor
    w: Tensor | None
    status: Tensor | None
    sample_weights: Tensor | None = None
    total: Tensor | None = None


class Kept(NamedTuple):
    """What one kernel leaves for another. A block of sums: the rows of each class and those of them that have a
    direction, (2, K), then of FD and of MD, if they are asked for, Σ û and Σ e (K, d)."""

    losses: Tensor  # of FD and MD an embedding each (k,), then of ED a program each, or a row each (n,)
    moments: Tensor | None = None  # (n, k, 2) mean and inverse length
    partials: Tensor | None = None  # (programs, k, block)
    sums: Tensor | None = None  # (k, block), of several programs in float64
    tables: Tensor | None = None  # (k, 2, K, d) gradients of FD in û and of MD in e, by class
