"""What goes over processes among whom a batch lies: sums over rows, and what means divide by."""

import torch
from torch import Tensor

from fer_fast.terms import Classifier, Peers

from ..host.launch import Launch, gradient_dtype
from ..large_classifier.launch import Sweep


def over_all(last: Launch, peers: Peers, part: Tensor, along: Tensor) -> tuple[Launch, Tensor, Tensor]:
    """The launch that finishes the sums of all processes; with them, in one buffer, go the part () of what a mean
    divides by, or (0,), and what a setting's gradient is made of."""
    tables, out, head, rule, num_classes, *divisors, weight, _, _, summed = last.arguments
    sums = out.partials[0, :0] if out.sums is None else out.sums.sum(0)
    blocks, sums, part, along = peers.total(torch.float32, out.partials.sum(0), sums, part, along)
    if part.numel():
        divisors = divisors_of(part, part)
    out = out._replace(partials=blocks, sums=None if out.sums is None else sums)
    arguments = tables, out, head, rule, num_classes, *divisors, weight, 1, 1, summed
    return last._replace(arguments=arguments), divisors[0], along


def parts_of_means(y: Tensor, sample_weights: Tensor | None, class_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """What the means of these rows divide by: Σ w W_y of a classifier with class weights and hard labels, and Σ w."""
    if sample_weights is None:
        sample_weights = torch.ones(y.shape, dtype=torch.float32, device=y.device)
    total = of_head = sample_weights.sum()
    if class_weights is not None:
        y = y.long().clamp(0, len(class_weights) - 1)  # a bad label is told of elsewhere
        of_head = (sample_weights * class_weights.float().take(y)).sum()
    return of_head, total


def divisors_of(*parts: Tensor) -> tuple[Tensor, ...]:
    """1 where that is 0, and nothing is lost."""
    return tuple([part.where(part != 0, 1) for part in parts])


def large_classifier(
    x: Tensor,
    y: Tensor,
    classifier: Classifier,
    sample_weights: Tensor | None,
    reduction: str,
    gradient: bool,
    status: Tensor | None,
    peers: Peers,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A classifier of many classes, its sums taken over all peers; what a mean divides by goes round before them, small
    beside the gradient of so large a table."""
    if not peers.group:
        return Sweep(x, y, classifier, sample_weights, reduction, gradient, status).whole()
    if classifier.weight.dtype == torch.float64:  # which a process without rows would not hear of from a sweep
        raise NotImplementedError("class weights in float64")
    if reduction == "mean":
        parts = parts_of_means(y, sample_weights, classifier.class_weights)
        divisor = divisors_of(*peers.total(torch.float32, parts[0]))[0]
        weights = torch.ones_like(y, dtype=torch.float32) if sample_weights is None else sample_weights
        sample_weights = weights / divisor
    by_row = reduction == "none"
    if len(x):
        summed = "none" if by_row else "sum"
        loss, dx, *of_tables = Sweep(x, y, classifier, sample_weights, summed, gradient, status).whole()
    else:
        tables = classifier.weight, classifier.bias, classifier.setting
        loss, dx = torch.zeros(0 if by_row else (), device=x.device), torch.zeros_like(x, dtype=gradient_dtype(x))
        of_tables = [x.new_zeros(0) if t is None or not gradient else torch.zeros_like(t) for t in tables]
    of_all, *of_tables = peers.total(torch.float32, x.new_zeros(0) if by_row else loss, *of_tables)
    return loss if by_row else of_all, dx, *of_tables
