"""Distances to all centers through their mean: what makes the cost of a sample independent of the number of classes.

With c̄ the mean of C centers and V = Σ_j ‖c_j - c̄‖²: Σ_j ‖x - c_j‖² = C ‖x - c̄‖² + V. Leaving out the sample's own
center y, the sum is taken about the mean of the others, c̄' = (Σ_j c_j - c_y) / (C-1), because the difference of two
such sums would cancel: S = (C-1) ‖x - c̄'‖² + V', V' = V - C/(C-1) ‖c_y - c̄‖². Sums are wide (float64).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .tiles import rows_per_block, spans, take, wide_dtype


class CenterSpread(NamedTuple):
    """Sums over the centers (C, d): two reads of the table, nothing of its size."""

    count: int  # C
    total: Tensor  # (d,), Σ_j c_j
    spread: Tensor  # (), V

    @classmethod
    def of(cls, centers: Tensor) -> "CenterSpread":
        wide = wide_dtype(centers.device)
        blocks = list(spans(len(centers), rows_per_block(centers.shape[1])))
        total = torch.zeros(centers.shape[1], dtype=wide, device=centers.device)
        for block in blocks:
            total += take(centers, block, wide).sum(0)
        self = cls(len(centers), total, total.new_zeros(()))
        for block in blocks:
            self.spread.add_(self.from_mean(take(centers, block, wide)).sum())
        return self

    def from_mean(self, centers: Tensor) -> Tensor:
        """‖c - c̄‖² for some of the centers (r, d): (r,)."""
        return (centers.to(self.total.dtype) - self.total / self.count).square_().sum(1)

    def to_others(self, centers: Tensor) -> Tensor:
        """Σ_j ‖c_j - c‖² for some of the centers (r, d): (r,)."""
        return self.count * self.from_mean(centers) + self.spread

    def anti(self, rows: Tensor, own_centers: Tensor) -> tuple[Tensor, Tensor]:
        """S of samples (r, d) whose own centers are given (r, d): (r,), and x - c̄', which is dS/dx over 2(C-1)."""
        own_centers = own_centers.to(self.total.dtype)
        away = rows - (self.total - own_centers).div_(max(self.count - 1, 1))
        anti = away.square().sum(1).mul_(self.count - 1)
        if self.count > 2:  # one other center has no spread, and rounding must not give it any
            factor = self.count / (self.count - 1)
            anti += (self.spread - factor * self.from_mean(own_centers)).clamp_(min=0)
        return anti, away
