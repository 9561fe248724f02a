"""Center loss (Wen et al. 2016; Pham et al. 2023, section 2)."""

from typing import NamedTuple

from torch import Tensor

from .params import NonNegative, formula
from .primitives import accumulate, class_counts, class_sums, own_distances, present, reduce_rows, unless_spoiled


class CenterParams(NamedTuple):
    """How fast centers move."""

    alpha: NonNegative = 0.5  # the centers' learning rate, at most 1


DEFAULT = CenterParams()


def center_direction(x: Tensor, y: Tensor, centers: Tensor, sample_weights: Tensor | None = None) -> Tensor:
    """Δ_k = Σ_{y_i=k} (c_k - x_i) / (1 + n_k): (C, d). Zero for a class absent from the batch.

    With sample_weights w (n,), each row counts w_i times, in the sum and in n_k.
    """
    counts = class_counts(y, len(centers), centers.dtype, sample_weights)[:, None]
    sums = class_sums(x.to(centers.dtype), y, len(centers), sample_weights)
    return (counts * centers - sums) / (1 + counts)


def center_update(
    x: Tensor, y: Tensor, centers: Tensor, alpha: float = DEFAULT.alpha, sample_weights: Tensor | None = None
) -> Tensor:
    """The moved centers c - α Δ: (C, d)."""
    old = accumulate(centers)
    return unless_spoiled(old - alpha * center_direction(x, y, old, sample_weights), centers)


@formula(CenterParams, center_update, by_row=True)
def center(
    x: Tensor, y: Tensor, centers: Tensor, reduction: str = "mean", sample_weights: Tensor | None = None
) -> Tensor:
    """L = ½ Σ_i w_i ‖x_i - c_{y_i}‖².

    features x (n, d), labels y (n,), centers c (C, d), sample_weights w (n,), all one when left out.
    """
    distances = own_distances(present(x, sample_weights), y, centers)
    return reduce_rows(distances / 2, sample_weights, reduction)
