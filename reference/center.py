"""Center loss (Wen et al. 2016; Pham et al. 2023, section 2)."""

from typing import NamedTuple

from torch import Tensor

from .params import NonNegative, formula
from .primitives import accumulate, class_counts, class_sums, own_distances, reduce, unless_spoiled


class CenterParams(NamedTuple):
    """How fast centers move."""

    alpha: NonNegative = 0.5  # the centers' learning rate, at most 1


DEFAULT = CenterParams()


def center_direction(x: Tensor, y: Tensor, centers: Tensor) -> Tensor:
    """Δ_k = Σ_{y_i=k} (c_k - x_i) / (1 + n_k): (C, d). Zero for a class absent from the batch."""
    counts = class_counts(y, len(centers), centers.dtype)[:, None]
    return (counts * centers - class_sums(x.to(centers.dtype), y, len(centers))) / (1 + counts)


def center_update(x: Tensor, y: Tensor, centers: Tensor, alpha: float = DEFAULT.alpha) -> Tensor:
    """The moved centers c - α Δ: (C, d)."""
    old = accumulate(centers)
    return unless_spoiled(old - alpha * center_direction(x, y, old), centers)


@formula(CenterParams, center_update)
def center(x: Tensor, y: Tensor, centers: Tensor, reduction: str = "mean") -> Tensor:
    """L = ½ Σ_i ‖x_i - c_{y_i}‖².   x (n, d), y (n,), centers (C, d)."""
    return reduce(own_distances(x, y, centers).sum() / 2, len(x), reduction)
