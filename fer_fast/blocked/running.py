"""Sums of powers of 2 over logits that come tile by tile, counted from the largest so far."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .tiles import wide_dtype

LOG2E = math.log2(math.e)


@dataclass
class Running:
    """Of the logits seen so far: the maxima of the rows, Σ 2^(logit - maximum), and the same sum weighing the keys."""

    highest: Tensor  # (r, 1)
    total: Tensor  # (r, 1)
    weighted: Tensor  # (r, d)
    below: Tensor | None  # (r, 1), the same sum weighing logit - maximum, where asked for
    spoiled: Tensor  # (), 0 and NaN where a key was not finite

    @classmethod
    def start(cls, rows: Tensor, slopes: bool) -> "Running":
        one = rows.new_zeros((len(rows), 1))
        return cls(_lowest(rows), one, torch.zeros_like(rows), torch.zeros_like(one) if slopes else None, _sound(rows))

    @classmethod
    def beside(cls, sums: Tensor, slopes: bool) -> "Running":
        """Of sums (r, 1 + slopes + d) that lie beside each other; d = 0 where no keys are weighed."""
        below = sums[:, 1:2] if slopes else None
        return cls(_lowest(sums), sums[:, :1], sums[:, 1 + slopes :], below, _sound(sums))

    def absorb(self, products: Tensor, scale: float | Tensor, keys: Tensor | None) -> None:
        """Take in a tile of products (r, c), overwritten, and the keys (c, d) where they are to be weighed."""
        highest = torch.maximum(self.highest, products.amax(1, keepdim=True).mul_(scale))
        self.raise_to(highest, keys is not None)
        p = scaled(products, scale, -highest, products).exp2_()
        if self.below is not None:  # logit - maximum = log₂p, and 0 where p is
            self.below.add_(torch.xlogy(p, p).sum(1, keepdim=True), alpha=LOG2E)
        self.total.add_(p.sum(1, keepdim=True))
        if keys is not None:
            self.weighted.addmm_(p, keys)

    def raise_to(self, highest: Tensor, weighed: bool) -> None:
        """Count from other maxima, none of them lower; `weighed` says whether there may be keys in the sums."""
        drop = self.highest - highest
        shrink = drop.exp2()
        if self.below is not None:
            self.below.addcmul_(drop, self.total).mul_(shrink)
        self.total.mul_(shrink)
        if weighed:
            self.weighted.mul_(shrink)
        self.highest = highest

    def add(self, other: "Running", weighed: bool) -> None:
        """Take in the sums of the same rows over other keys, which are overwritten."""
        highest = torch.maximum(self.highest, other.highest)
        self.raise_to(highest, weighed)
        other.raise_to(highest, weighed)
        self.total.add_(other.total)
        if weighed:
            self.weighted.add_(other.weighted)
        if self.below is not None:
            self.below.add_(other.below)
        self.spoiled += other.spoiled

    def rows(self, block: slice) -> "Running":
        """Those of a block, in place."""
        below = None if self.below is None else self.below[block]
        return Running(self.highest[block], self.total[block], self.weighted[block], below, self.spoiled)

    def log2_sum(self) -> Tensor:
        """log₂ Σ 2^logit, wide: (r,)."""
        wide = wide_dtype(self.total.device)
        return (self.highest.to(wide) + self.total.to(wide).log2())[:, 0]

    def mean_logit(self) -> Tensor:
        """Σ (2^logit / D_i) logit, wide, 0 where there is no logit: (r,)."""
        wide, counted = wide_dtype(self.total.device), self.total != 0
        mean = self.highest.to(wide) + self.below.to(wide) / self.total.to(wide)
        return mean.where(counted, 0)[:, 0]

    def mean_key(self, weight: Tensor, log2_denominator: Tensor) -> Tensor:
        """w_i Σ (2^logit / D_i)·key over the keys weighed so far: (r, d). Overwrites the sums."""
        share = weight * (self.highest[:, 0] - log2_denominator).exp2_()
        share.masked_fill_(log2_denominator == -torch.inf, 0)  # no key has been weighed
        return self.weighted.mul_(share.to(self.weighted.dtype)[:, None])


def scaled(products: Tensor, scale: float | Tensor, shift: Tensor, out: Tensor) -> Tensor:
    """products · scale + shift, rounded once."""
    if isinstance(scale, Tensor):  # on a device, where looking would wait
        return torch.addcmul(shift, products, scale, out=out)
    return torch.add(shift, products, alpha=scale, out=out)


def _lowest(rows: Tensor) -> Tensor:
    """Maxima before the first logit: finite, for where every logit is -inf, differences must not be NaN."""
    return rows.new_full((len(rows), 1), torch.finfo(rows.dtype).min / 16)


def _sound(rows: Tensor) -> Tensor:
    return rows.new_zeros(())
