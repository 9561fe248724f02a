"""Range loss (Zhang et al. 2017; Pham et al. 2023, section 2): the widest pairs of a class, the nearest two classes."""

from typing import NamedTuple

import torch
from torch import Tensor

from .params import Count, NonNegative, formula
from .primitives import accumulate, taking_part


class RangeParams(NamedTuple):
    """Pairs looked at, the weights of the two terms, and the margin between classes."""

    k: Count = 2  # widest pairs of a class
    alpha: NonNegative = 5e-5  # weight within classes
    beta: NonNegative = 1e-4  # weight between classes
    margin: NonNegative = 2e4  # M, a squared distance between class means


DEFAULT = RangeParams()


@formula(RangeParams)
def range_loss(
    x: Tensor,
    y: Tensor,
    k: int = DEFAULT.k,
    alpha: float = DEFAULT.alpha,
    beta: float = DEFAULT.beta,
    margin: float = DEFAULT.margin,
) -> Tensor:
    """L = α Σ_c K_c / (Σ_{j=1..K_c} 1/D_cj) + β [M - D]₊.

    D_cj is the j-th largest squared distance within class c of the batch, K_c the smaller of k and the pairs there
    are (classes with one sample are skipped); D the smallest squared distance between two class means of the batch
    (no second class: no term). features x (n, d), labels y (n,). No term runs over samples, so there is nothing to
    average. A negative label takes its row out of everything.

    A harmonic mean with a zero in it is zero: where one of the K_c distances is 0 the class adds nothing and passes no
    gradient. Of equal distances the pair that comes first counts. A row that is not finite makes the loss NaN: an
    infinite distance would otherwise vanish from the harmonic mean, and from the minimum.
    """
    x, y = taking_part(accumulate(x), y)
    return alpha * _intra_class(x, y, k) + beta * _inter_class(x, y, margin) + (x - x).sum()


def _intra_class(x: Tensor, y: Tensor, k: int) -> Tensor:
    first, second = torch.nonzero((y[:, None] == y).triu(1), as_tuple=True)  # pairs within a class
    distances = (x[first] - x[second]).square().sum(-1)
    # Sorted by class, largest distance first: the rank within the class is the place less the class's first place.
    order = distances.detach().argsort(descending=True, stable=True)
    order = order[y[first][order].argsort(stable=True)]
    _, class_of, sizes = y[first][order].unique_consecutive(return_inverse=True, return_counts=True)
    rank = torch.arange(len(order), device=y.device) - (sizes.cumsum(0) - sizes)[class_of]
    counted = sizes.clamp(max=k)
    smallest = distances.detach()[order][rank == counted[class_of] - 1]
    largest, class_of = distances[order][rank < k], class_of[rank < k]
    # In units of the class's smallest distance: neither 1/D nor the 1/D² of its gradient overflows at near duplicates.
    scale = smallest.where((smallest > 0) & smallest.isfinite(), 1)
    ratios = (largest / scale[class_of]).where(smallest[class_of] != 0, 1)
    inverse = torch.zeros_like(smallest).index_add(0, class_of, 1 / ratios)
    return torch.where(smallest == 0, 0, scale * counted / inverse).sum()


def _inter_class(x: Tensor, y: Tensor, margin: float) -> Tensor:
    _, index, counts = y.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(counts), x.shape[1], dtype=x.dtype, device=x.device).index_add(0, index, x)
    means = sums / counts[:, None]
    first, second = torch.triu_indices(len(counts), len(counts), 1, device=x.device)
    if len(first) == 0:
        return x.new_zeros(())
    nearest = (means[first] - means[second]).square().sum(-1).min(0).values
    return (margin - nearest).relu()
