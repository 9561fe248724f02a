"""Distances to all centers through their mean: what makes the cost of a sample independent of the number of classes.

With c̄ the mean of C centers and V = Σ_j ‖c_j - c̄‖²: Σ_j ‖c_k - c_j‖² = C ‖c_k - c̄‖² + V. A sum that leaves out the own
center y would be a difference of two such sums, which one far center cancels. So let o be the center farthest from c̄,
m and V' the mean and the spread of the others:

    S = (C-1) ‖x - m‖² + V'   where y = o,   else   S = (C-1) ‖x - m‖² + V' - ‖x - c_y‖² + ‖x - c_o‖²,

where what is taken off is no more than a few times what is left. Sums are wide (float64), about one of the centers.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .tiles import rows_per_block, spans, take, wide_dtype


class CenterSpread(NamedTuple):
    """Sums over the centers (C, d): two reads of the table, nothing of its size."""

    count: int  # C
    mean: Tensor  # (d,), c̄
    squared: Tensor  # (C,), ‖c_k - c̄‖²
    spread: Tensor  # (), V

    @classmethod
    def of(cls, centers: Tensor) -> "CenterSpread":
        return cls(*_spread(centers, centers[0], None))

    @property
    def to_others(self) -> Tensor:
        """Σ_j ‖c_j - c_k‖² for every center: (C,)."""
        return self.count * self.squared + self.spread


class OtherCenters(NamedTuple):
    """What the distances of samples from the centers of other classes ask of the table: two more reads of it."""

    others: int  # C - 1
    outlier: Tensor  # (), o
    farthest: Tensor  # (d,), c_o
    mean: Tensor  # (d,), m
    rest: Tensor  # (), V'

    @classmethod
    def of(cls, centers: Tensor, spread: CenterSpread) -> "OtherCenters":
        outlier = spread.squared.argmax()
        near = (outlier == 0).to(outlier).clamp_(max=len(centers) - 1)
        count, mean, _, rest = _spread(centers, centers.index_select(0, near[None])[0], outlier)
        return cls(count, outlier, centers.index_select(0, outlier[None])[0].to(mean), mean, rest)

    def anti(self, rows: Tensor, y: Tensor, own_centers: Tensor) -> tuple[Tensor, Tensor]:
        """S of samples (r, d) whose own centers are given (r, d): (r,), and Σ_j (x - c_j), half of dS/dx: (r, d)."""
        is_outlier, rows = (y == self.outlier)[:, None], rows.to(self.mean)
        away = rows - self.mean
        own = (rows - own_centers.to(rows)).masked_fill_(is_outlier, 0)
        far = (rows - self.farthest).masked_fill_(is_outlier, 0)
        # The first two are the same to the bit where there are two centers, and go before the last, which may be tiny.
        anti = self.others * away.square().sum(1) - own.square().sum(1) + self.rest + far.square().sum(1)
        return anti, away.mul_(self.others).sub_(own).add_(far)


def _spread(centers: Tensor, origin: Tensor, but: Tensor | None) -> tuple[int, Tensor, Tensor, Tensor]:
    """The number of the centers, all or all `but` one, their mean (d,), squared distances from it (C,), and the sum of
    these. An origin near the centers saves the digits of a common offset."""
    wide = wide_dtype(centers.device)
    numbers = torch.arange(len(centers), device=centers.device)
    origin, count = origin.to(wide), len(centers) - (but is not None)
    blocks = list(spans(len(centers), rows_per_block(centers.shape[1])))

    def offsets(block: slice, mean: Tensor) -> Tensor:
        rows = take(centers, block, wide) - mean
        return rows if but is None else rows.masked_fill_((numbers[block] == but)[:, None], 0)

    mean = origin + sum(offsets(block, origin).sum(0) for block in blocks) / max(count, 1)
    squared = torch.cat([offsets(block, mean).square_().sum(1) for block in blocks])
    return count, mean, squared, squared.sum()
