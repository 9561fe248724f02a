"""The classifier engine where each process has some of the classes: rows of all processes meet the classes of this one.

What goes round, for a block of rows: the largest logit, then the sum of exponentials and the target's logit, which the
process that has the target knows, its margin included. d loss / d rows is summed over the processes, each of which gets
its own; the table's gradient stays where the table is. 6·N·(C/R)·d operations. Memory beyond the gradients: the rows of
all processes, their gradient, and a block of logits of fixed size, never all N × C/R.
"""

import math
from functools import partial

import torch
from torch import Tensor

from .. import checks
from ..terms import ALONE, Classifier, Draw, Peers, Share
from .classifiers import Block, head_of
from .targets import Targets, targets_of
from .tiles import even, gradient_dtype, part, spans, take_present, wide_dtype, work_dtype

_PRESENT = 2**63 - 1  # above what is drawn for a class


def sharded_classifier(
    x: Tensor,
    y: Tensor,
    classifier: Classifier,
    num_classes: int,
    sample_weights: Tensor,
    reduction: str,
    draw: Draw,
    gradient: bool,
    peers: Peers = ALONE,
    share: Share | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The classifier's loss of the rows of all processes: (loss, dx, dweight, dbias, dsetting).

    x (N, d), y (N,), sample_weights w (N,), 0 for rows that stand for none. weight and bias are this process's block of
    the C classes, class_weights (C,) those of all. dx and, with "none", the losses are of the process's own rows;
    dweight and dbias are all there is of them, dsetting is the same everywhere.
    """
    weight, bias, setting = classifier.weight, classifier.bias, classifier.setting
    dtype, classes = work_dtype(x, weight), peers.blocks(num_classes)
    checks.block(weight, "weight", classes)
    outside = (y < 0) | (y >= num_classes)  # rows that were filled up, of weight 0, or an error that nobody would see
    weights = sample_weights.to(dtype)
    weights = weights.masked_fill(outside & (weights != 0), math.nan)
    absent, y = (weights == 0)[:, None], y.long().clamp(0, num_classes - 1)

    targets = targets_of(y, None, classifier, num_classes, weights, reduction == "mean", dtype)
    targets, drawn, most = _of_block(targets, classes), None, classes.most
    if draw.share < 1:
        drawn, most = _drawn(draw, targets, classes), _at_once(draw, most, len(x))
        targets = targets._replace(y=torch.searchsorted(drawn, targets.y).clamp_(max=max(len(drawn) - 1, 0)))
    head = head_of(_some_rows(classifier, drawn), gradient, dtype, most)

    losses = torch.empty(len(x), dtype=dtype, device=x.device)
    dx = torch.empty(x.shape if gradient else (0,), dtype=dtype, device=x.device)
    exchange = partial(_exchange, peers, len(weight))
    for block in spans(len(x), even(len(x), head.rows_per_block)):  # as many on every process
        rows, out = take_present(x, block, dtype, absent), part(dx, block) if gradient else None
        losses[block], grad = head.visit(rows, targets.part(block), out, exchange)
        if gradient and grad is not out:
            dx[block] = grad

    gradients = [x.new_empty(0)] * 3
    if gradient:
        gradients[:2] = head.gradients()
        if drawn is not None:  # of the others nothing
            tables = [(g, t) for g, t in zip(gradients, (weight, bias), strict=False) if t is not None]
            gradients[: len(tables)] = [g.new_zeros(t.shape).index_copy_(0, drawn, g) for g, t in tables]
        if setting is not None:
            gradients[2] = peers.total(dtype, torch.zeros_like(setting) + head.setting_grad)[0]
    if share is not None and gradient:
        dx = peers.own_rows(share, dx)
    if reduction != "none":
        loss = losses.sum(dtype=wide_dtype(x.device))
    else:
        loss = losses if share is None else losses[share.own]
    likes = [x if t is None else t for t in (x, weight, bias, setting)]
    results = [t.to(gradient_dtype(like)) for t, like in zip((dx, *gradients), likes, strict=True)]
    return loss.to(work_dtype(x)), *results


def _of_block(targets: Targets, classes: Share) -> Targets:
    """Targets in the numbers of this process's classes: hard where they are among them."""
    own, last = classes.own, max(classes.counts[classes.rank] - 1, 0)
    here = (targets.y >= own.start) & (targets.y < own.stop)
    spread = None if targets.spread is None else targets.spread[own]
    hard = here.to(targets.weight.dtype)
    return targets._replace(y=(targets.y - own.start).clamp_(0, last), hard=hard, spread=spread)


def _exchange(peers: Peers, classes: int, block: Block) -> None:
    """Take in what other processes have of the rows' softmax, whose classes are others than the classes here."""
    if not classes:
        block.own = block.total = torch.zeros_like(block.weight)
        block.highest = torch.full_like(block.weight, torch.finfo(block.weight.dtype).min)
    here, plain = block.highest, block.targets.plain
    block.highest = peers.maximum(here)
    behind = here - block.highest
    parts = [block.total * behind.exp(), block.own.where(block.hard != 0, 0)]
    parts += [] if plain else [block.along + block.mass * behind]
    block.total, block.own, *along = peers.total(here.dtype, *parts)
    block.norm = block.total * behind.neg().exp()  # inf where all here is nothing beside what others have
    if not plain:
        block.along = along[0]


def _at_once(draw: Draw, classes: int, rows: int) -> int:
    """How many of a process's classes take part in a step: at least as many as there are rows, so that every class of
    the batch has a place, whatever they are."""
    return min(classes, max(math.ceil(draw.share * classes), rows))


def _drawn(draw: Draw, targets: Targets, classes: Share) -> Tensor:
    """The classes of this process that take part, ascending: those of the batch, and of the others those to which
    :func:`_numbers` gives the largest."""
    own = classes.own
    numbers = _numbers(draw.step, torch.arange(own.start, own.stop, device=targets.y.device))
    if len(numbers):
        # A row whose class is elsewhere stands for no class here, nor does one without weight.
        counts = (targets.hard * (targets.weight != 0)).to(torch.int64)
        present = torch.zeros_like(numbers).index_add_(0, targets.y, counts)
        numbers.masked_fill_(present != 0, _PRESENT)
    return numbers.topk(_at_once(draw, len(numbers), len(targets.y))).indices.sort().values


def _numbers(step: Tensor, classes: Tensor) -> Tensor:
    """A number below 2⁶² for each class (c,) in a step (), whatever process has it: SplitMix64 of both."""
    return _mixed(_mixed(step) + classes) & (_PRESENT >> 1)


def _mixed(z: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele et al. 2014), whose products wrap."""
    z = z * -0x61C8864680B583EB
    z = (z ^ (z >> 30 & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    z = (z ^ (z >> 27 & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return z ^ (z >> 31 & 0x1FFFFFFFF)


def _some_rows(classifier: Classifier, places: Tensor | None) -> Classifier:
    """A classifier of some of its classes."""
    if places is None:
        return classifier
    bias = None if classifier.bias is None else classifier.bias.index_select(0, places)
    return classifier._replace(weight=classifier.weight.index_select(0, places), bias=bias)
