"""The class-table engine: a classifier, a loss of the center family, or both, in one sweep over the features.

Rows meet a table of classes and never each other. Floor: one read of x, one write of dx (MVA reads x twice), and the
head's products. Memory beyond the gradients: a block of logits of fixed size, a few blocks of rows, and where centers
move a table of the batch's classes.

Of a batch that lies on several processes the sums go round once, in one buffer: what the means divide by with them, so
that dx is divided after the sweep. Where two means differ, and for MVA, whose factor asks for it, they go round before.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..terms import ALONE, CenterTerm, Classifier, Peers
from .center_family import RULES, Center, CenterTask
from .classifiers import ROWS, head_of
from .targets import targets_of
from .tiles import even, gradient_dtype, part, rows_per_sweep, spans, take_present, total_weight, wide_dtype, work_dtype


def class_table(
    x: Tensor,
    y: Tensor,
    classifier: Classifier,
    auxiliary: CenterTerm,
    sample_weights: Tensor | None,
    soft_labels: Tensor | None,
    reduction: str,
    update: bool,
    gradient: bool,
    peers: Peers = ALONE,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """classifier(x, y) + factor · auxiliary(x, y), either of them absent: (loss, dx, dweight, dbias, dsetting).

    x (n, d), y (n,). sample_weights w (n,) multiply rows, in the loss and in the move of the centers. The mean divides
    by Σ w, a weighted softmax by Σ w W_y; "none" gives the losses of the rows (n,). `soft_labels` (n, C) are the
    classifier's in place of y, then the largest of each. With `update` the centers move in place.
    """
    weight, bias, setting = classifier.weight, classifier.bias, classifier.setting
    mean, by_row = reduction == "mean", reduction == "none"
    dtype = work_dtype(x, weight, auxiliary.centers)
    y = y.long()  # logits are gathered and scattered by it
    if sample_weights is not None:
        sample_weights = sample_weights.to(dtype)
    absent = None if sample_weights is None else (sample_weights == 0)[:, None]
    rows_at_once = rows_per_sweep(x, x.shape[1])
    head = rule = None
    if auxiliary.name:
        rule = RULES[auxiliary.name](CenterTask(x, y, auxiliary, sample_weights, bool(peers.group)), update, dtype)
    divisors = _Divisors.of(y, classifier, rule, sample_weights, soft_labels is not None, mean, peers)
    if rule is not None:
        rule.prepare(divisors.before, divisors.center if mean else None)
    if classifier.name:
        head = head_of(classifier, gradient, dtype)
        # Rows that nothing copies may be many: a CPU has no use for their cache, but for fewer and longer products.
        copied = auxiliary.name or head.copies_rows or absent is not None
        alone = not copied and x.dtype == dtype and x.is_contiguous()
        rows_at_once = head.rows_per_block if alone else min(head.rows_per_block, max(rows_at_once, ROWS))
        targets = targets_of(y, soft_labels, classifier, len(weight), sample_weights, divisors.head, dtype)

    loss = torch.zeros(len(x) if by_row else (), dtype=wide_dtype(x.device), device=x.device)
    rounded = dtype if divisors.waits else gradient_dtype(x)  # once, after it was divided
    dx = torch.empty(x.shape if gradient else (0,), dtype=rounded, device=x.device)
    for block in spans(len(x), even(len(x), rows_at_once)):
        rows, grad = take_present(x, block, dtype, absent), None
        out = part(dx, block) if gradient and dx.dtype == dtype else None  # saves a copy where nothing is to be rounded
        if head is not None:
            losses, grad = head.visit(rows, targets.part(block), out)
            _add_losses(loss, block, losses, by_row)
        if rule is not None:
            factor = auxiliary.factor / divisors.center
            losses, center_grad = rule.visit(rows, block, factor, out if head is None else None)
            _add_losses(loss, block, losses, by_row, factor)
            grad = center_grad if grad is None else grad.add_(center_grad)
        if gradient and grad is not out:
            dx[block] = grad

    gradients = [_absent(x, t) for t in (weight, bias, setting)]
    if head is not None and gradient:
        gradients[0], of_bias = head.gradients()
        gradients[1] = gradients[1] if bias is None else of_bias
        gradients[2] = gradients[2] if setting is None else torch.zeros_like(setting) + head.setting_grad
    waiting, summed, moves = divisors.waiting, loss[:0] if by_row else loss, rule.sums if update else ()
    waiting, summed, *sums = peers.total(dtype, waiting, summed, *gradients, *moves)
    gradients, loss = sums[:3], loss if by_row else summed
    if divisors.waits:
        inverse = 1 / waiting.where(waiting != 0, 1)
        loss, dx, *gradients = [t.mul_(inverse) for t in (loss, dx, *gradients)]
    if rule is not None:
        loss += auxiliary.factor * rule.constant
        if update:
            rule.move(*sums[3:])
    likes = [x if t is None else t for t in (x, weight, bias, setting)]
    results = [t.to(gradient_dtype(like)) for t, like in zip((dx, *gradients), likes, strict=True)]
    return loss.to(work_dtype(x)), *results


class _Divisors(NamedTuple):
    """What the means divide by."""

    head: Tensor | bool  # a number, or whether that is the sum of the weights
    center: Tensor | int
    before: Sequence[Tensor]  # sums that a center loss asks for before its sweep
    waiting: Tensor  # (), this process's part of what both means divide by after the sweep; (0,) where none does

    @property
    def waits(self) -> bool:
        return self.waiting.numel() > 0

    @classmethod
    def of(
        cls,
        y: Tensor,
        classifier: Classifier,
        rule: Center | None,
        sample_weights: Tensor | None,
        soft: bool,
        mean: bool,
        peers: Peers,
    ) -> "_Divisors":
        wide, before = wide_dtype(y.device), () if rule is None else rule.before()
        none = torch.zeros(0, dtype=wide, device=y.device)
        if not peers.group:
            count = len(y) if sample_weights is None else total_weight(sample_weights)
            return cls(mean, count if mean else 1, before, none)
        weights = torch.ones(y.shape, dtype=wide, device=y.device) if sample_weights is None else sample_weights
        of_class = None if soft else classifier.class_weights
        own = of_head = weights.sum(dtype=wide)
        if of_class is not None:
            of_head = (weights * of_class.index_select(0, y)).sum(dtype=wide)
        if not before and (not mean or rule is None or of_class is None):
            return cls(False, 1, (), of_head if mean else none)
        of_head, own, *before = peers.total(wide, of_head, own, *before)
        if not mean:
            return cls(False, 1, before, none)
        return cls(*[total.where(total != 0, 1) for total in (of_head, own)], before, none)


def _add_losses(loss: Tensor, block: slice, losses: Tensor, by_row: bool, factor: Tensor | float = 1.0) -> None:
    """Take a factor of a block's losses (r,) into the rows' (n,), or into their sum ()."""
    if by_row:
        loss[block] += factor * losses
    else:
        loss += factor * losses.sum(dtype=loss.dtype)


def _absent(x: Tensor, like: Tensor | None) -> Tensor:
    return torch.empty(0, dtype=gradient_dtype(x if like is None else like), device=x.device)
