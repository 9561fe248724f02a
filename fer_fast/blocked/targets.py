"""What a classifier's rows are to become: their class, or shares of several, with the weights of rows and classes.

Cross-entropy is Σ_j t_ij (log Σ_k e^{f_ik} - f_ij), and its derivative T_i softmax(f_i)_j - t_ij with T_i = Σ_j t_ij.
All weights are in the targets t: t_ij = a_i [j = y_i] + b_ij, where b is nothing for hard labels, b_i W_j for smoothed
ones, and a is nothing for soft ones.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..terms import Classifier
from .tiles import part, total_weight


class Targets(NamedTuple):
    """Of some rows."""

    y: Tensor  # (r,) the class with a margin
    weight: Tensor  # (r,) T
    own: Tensor  # (r,) a
    hard: Tensor | None = None  # (r,) 1 where the class has a margin, 0 where it has none; None for all
    share: Tensor | None = None  # (r,) of `spread`
    spread: Tensor | None = None  # (C,) b = share · spread
    shares: Tensor | None = None  # (r, C) b
    sign: Tensor | None = None  # (r,) of T; None where it is nowhere negative

    @property
    def plain(self) -> bool:
        """Whether b is nothing."""
        return self.spread is None and self.shares is None

    def part(self, block: slice) -> "Targets":
        return Targets(*[t if t is None or t is self.spread else part(t, block) for t in self])

    def times(self, logits: Tensor, tile: slice) -> tuple[Tensor, Tensor]:
        """Σ_j b_ij f_ij and Σ_j b_ij of a tile's logits (r, c): (r, 1) both."""
        if self.shares is None:
            spread, share = self.spread[tile], self.share[:, None]
            along = torch.mv(logits, spread, out=logits.new_empty(len(logits)))  # where autocast rounds nothing
            return share * along[:, None], share * spread.sum()
        shares = self.shares[:, tile]
        return (logits * shares).sum(1, keepdim=True), shares.sum(1, keepdim=True)

    def taken_off_(self, p: Tensor, tile: slice) -> None:
        """p_ij -= b_ij in a tile (r, c)."""
        if self.shares is None:
            p.addr_(self.share, self.spread[tile], alpha=-1)
        else:
            p -= self.shares[:, tile]


def targets_of(
    y: Tensor,
    soft_labels: Tensor | None,
    classifier: Classifier,
    num_classes: int,
    sample_weights: Tensor | None,
    mean: bool | Tensor,
    dtype: torch.dtype,
) -> Targets:
    """The targets of a classifier's labels y (n,), or of soft_labels (n, C), whose largest shares are at y; C classes.

    The mean divides by what PyTorch's does: Σ w_i W_{y_i}, for soft labels Σ w_i. Where that is 0 nothing is lost. It
    is given where more rows than these have a part in it.
    """
    given = isinstance(mean, Tensor)
    label_smoothing, weights = classifier.label_smoothing, sample_weights
    of_class = None if classifier.class_weights is None else classifier.class_weights.to(dtype)
    one = 1 / len(y) if not given and mean and weights is None and (of_class is None or soft_labels is not None) else 1
    if weights is None:
        weights = torch.full(y.shape, one, dtype=dtype, device=y.device)
    own = weights if of_class is None or soft_labels is not None else weights * of_class.index_select(0, y)
    if given or (mean and one == 1):
        total = mean.to(dtype) if given else total_weight(own)
        own, weights = own / total, weights / total
    sign = None if sample_weights is None else weights.sign()
    if soft_labels is not None:
        shares = soft_labels.to(dtype)
        hard = (shares.gather(1, y[:, None])[:, 0] == 1) & ((shares != 0).sum(1) == 1)
        shares = shares * (1 - label_smoothing) + label_smoothing / num_classes
        shares = weights[:, None] * (shares if of_class is None else shares * of_class)
        return Targets(y, shares.sum(1), torch.zeros_like(own), hard.to(dtype), shares=shares, sign=sign)
    if not label_smoothing or num_classes == 1:  # one class gets back what is taken, though not to the bit
        return Targets(y, own, own, sign=sign)
    spread = torch.ones(num_classes, dtype=dtype, device=y.device) if of_class is None else of_class
    share, own = weights * (label_smoothing / num_classes), own * (1 - label_smoothing)
    return Targets(y, own + share * spread.sum(), own, share=share, spread=spread, sign=sign)
