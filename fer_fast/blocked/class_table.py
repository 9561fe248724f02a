"""The class-table engine: a classifier, a loss of the center family, or both, in one sweep over the features.

Rows meet a table of classes and never each other. Floor: one read of x, one write of dx (MVA reads x twice), and the
head's products. Memory beyond the gradients: a block of logits of fixed size, a few blocks of rows, and where centers
move a table of the batch's classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .center_family import RULES, CenterTask
from .classifiers import HEADS, ROWS
from .tiles import gradient_dtype, part, rows_per_sweep, spans, take, work_dtype


def class_table(
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    class_weights: Tensor | None,
    centers: Tensor | None,
    center_weights: Tensor | None,
    groups_x: list[Tensor],
    groups_y: list[Tensor],
    classifier: str,
    classifier_params: Sequence[float],
    auxiliary: str,
    auxiliary_params: Sequence[float],
    auxiliary_weight: float,
    mean: bool,
    update: bool,
    gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """classifier(x, y) + auxiliary_weight · auxiliary(x, y), either of them absent as "": (loss, dx, dweight, dbias).

    x (n, d), y (n,), weight (C, d), bias (C,), class_weights (C,), centers (C, d), center_weights (C,); groups_x
    (n_v, d) and groups_y (n_v,) are the bank's groups, newest first. The mean divides by n, a weighted softmax by
    Σ W_y. With `update` the centers move in place.
    """
    dtype, count = work_dtype(x, weight, centers), len(x) if mean else 1
    y = y.long()  # logits are gathered and scattered by it
    rows_at_once = rows_per_sweep(x, x.shape[1])
    head = rule = None
    if classifier:
        head = HEADS[classifier](weight, bias, classifier_params, gradient, dtype)
        # Rows that nothing copies may be many: a CPU has no use for their cache, but for fewer and longer products.
        alone = not auxiliary and not head.copies_rows and x.dtype == dtype and x.is_contiguous()
        rows_at_once = head.rows_per_block if alone else min(head.rows_per_block, max(rows_at_once, ROWS))
        weights = _sample_weights(y, class_weights, mean, dtype)
    if auxiliary:
        groups = list(zip(groups_x, groups_y, strict=True))
        task = CenterTask(x, y, centers, center_weights, groups, mean)
        rule = RULES[auxiliary](task, auxiliary_params, update, dtype)

    loss = 0.0
    dx = torch.empty(x.shape if gradient else (0,), dtype=gradient_dtype(x), device=x.device)
    for block in spans(len(x), rows_at_once):
        rows, grad = take(x, block, dtype), None
        out = part(dx, block) if gradient and dx.dtype == dtype else None  # saves a copy where nothing is to be rounded
        if head is not None:
            grad = head.visit(rows, part(y, block), part(weights, block), out)
        if rule is not None:
            block_loss, center_grad = rule.visit(rows, block, auxiliary_weight / count, out if head is None else None)
            loss += block_loss * (auxiliary_weight / count)
            grad = center_grad if grad is None else grad.add_(center_grad)
        if gradient and grad is not out:
            dx[block] = grad
    dweight, dbias = _absent(x, weight), _absent(x, bias)
    if head is not None:
        loss = head.loss + loss
        if gradient:
            dweight, of_bias = head.gradients()
            dbias = dbias if bias is None else of_bias
    if rule is not None:
        loss += auxiliary_weight * rule.constant
        if update:
            rule.move()
    return loss.to(work_dtype(x)), dx, dweight, dbias


def _sample_weights(y: Tensor, class_weights: Tensor | None, mean: bool, dtype: torch.dtype) -> Tensor:
    """d loss / d cross-entropy of each sample: (n,). A batch whose classes all weigh nothing loses nothing."""
    if class_weights is None:
        return torch.full(y.shape, 1 / len(y) if mean else 1, dtype=dtype, device=y.device)
    weights = class_weights.to(dtype).index_select(0, y)
    total = weights.sum()
    return weights / total.where(total != 0, 1) if mean else weights


def _absent(x: Tensor, like: Tensor | None) -> Tensor:
    return torch.empty(0, dtype=gradient_dtype(x if like is None else like), device=x.device)
