"""The class-table engine: a classifier, a loss of the center family, or both, in one sweep over the features.

Rows meet a table of classes and never each other. Floor: one read of x, one write of dx (MVA reads x twice), and the
head's products. Memory beyond the gradients: a block of logits of fixed size, a few blocks of rows, and where centers
move a table of the batch's classes.
"""

import torch
from torch import Tensor

from ..terms import CenterTerm, Classifier
from .center_family import RULES, CenterTask
from .classifiers import HEADS, ROWS
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
    total: Tensor | int = 1
    if mean:
        total = len(x) if sample_weights is None else total_weight(sample_weights)
    absent = None if sample_weights is None else (sample_weights == 0)[:, None]
    rows_at_once = rows_per_sweep(x, x.shape[1])
    head = rule = None
    if classifier.name:
        params = [setting.to(dtype) if value != value else value for value in classifier.params]
        head = HEADS[classifier.name](weight, bias, params, gradient, dtype)
        # Rows that nothing copies may be many: a CPU has no use for their cache, but for fewer and longer products.
        copied = auxiliary.name or head.copies_rows or absent is not None
        alone = not copied and x.dtype == dtype and x.is_contiguous()
        rows_at_once = head.rows_per_block if alone else min(head.rows_per_block, max(rows_at_once, ROWS))
        targets = targets_of(y, soft_labels, classifier, sample_weights, mean, dtype)
    if auxiliary.name:
        rule = RULES[auxiliary.name](CenterTask(x, y, auxiliary, mean, sample_weights), update, dtype)

    loss = torch.zeros(len(x) if by_row else (), dtype=wide_dtype(x.device), device=x.device)
    dx = torch.empty(x.shape if gradient else (0,), dtype=gradient_dtype(x), device=x.device)
    for block in spans(len(x), even(len(x), rows_at_once)):
        rows, grad = take_present(x, block, dtype, absent), None
        out = part(dx, block) if gradient and dx.dtype == dtype else None  # saves a copy where nothing is to be rounded
        if head is not None:
            losses, grad = head.visit(rows, targets.part(block), out)
            _add_losses(loss, block, losses, by_row)
        if rule is not None:
            factor = auxiliary.factor / total
            losses, center_grad = rule.visit(rows, block, factor, out if head is None else None)
            _add_losses(loss, block, losses, by_row, factor)
            grad = center_grad if grad is None else grad.add_(center_grad)
        if gradient and grad is not out:
            dx[block] = grad
    dweight, dbias, dsetting = _absent(x, weight), _absent(x, bias), _absent(x, setting)
    if head is not None and gradient:
        dweight, of_bias = head.gradients()
        dbias = dbias if bias is None else of_bias
        if setting is not None:
            dsetting = (torch.zeros_like(setting) + head.setting_grad).to(gradient_dtype(setting))
    if rule is not None:
        loss += auxiliary.factor * rule.constant
        if update:
            rule.move()
    return loss.to(work_dtype(x)), dx, dweight, dbias, dsetting


def _add_losses(loss: Tensor, block: slice, losses: Tensor, by_row: bool, factor: Tensor | float = 1.0) -> None:
    """Take a factor of a block's losses (r,) into the rows' (n,), or into their sum ()."""
    if by_row:
        loss[block] += factor * losses
    else:
        loss += factor * losses.sum(dtype=loss.dtype)


def _absent(x: Tensor, like: Tensor | None) -> Tensor:
    return torch.empty(0, dtype=gradient_dtype(x if like is None else like), device=x.device)
