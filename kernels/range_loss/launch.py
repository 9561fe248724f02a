"""Range loss, launched."""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from fer_fast.terms import ALONE, Peers, Share

from ..host.chips import chip
from ..host.launch import Launch, cdiv, columns_first, gradient_dtype, recall, start
from .class_terms import class_terms
from .extremes import extremes
from .gradient import range_gradient
from .settings import RANGE_PAIRS
from .settings import RANGE_ROWS as ROWS
from .total import total_loss

_empty = torch.empty


class _Classes(NamedTuple):
    """A batch sorted by label, negative ones last. Tables have a place for each of the at most n classes."""

    order: Tensor  # (n,) rows of the batch, class by class, in their old order within a class
    index: Tensor  # (n,) number of the class of each sorted row
    starts: Tensor  # (n + 1,) first sorted row of each class; n past the last class
    count: Tensor  # (1,) classes present, but for the last one of rows without a label

    @classmethod
    def of(cls, y: Tensor) -> "_Classes":
        none = torch.iinfo(y.dtype).max
        labels, order = y.where(y >= 0, none).sort(stable=True)
        index = torch.zeros_like(labels)
        index[1:] = (labels[1:] != labels[:-1]).cumsum(0)
        starts = torch.searchsorted(index, torch.arange(len(y) + 1, device=y.device))
        return cls(order, index, starts, index[-1:] + (labels[-1:] != none))


def _find_extremes(
    rows: Tensor,
    ends: Tensor,
    k: int,
    largest: bool,
    kind: dict | None,
    peers: Peers = ALONE,
    share: Share | None = None,
) -> tuple[Tensor, Tensor]:
    """Values and partners (tiles, rows, k) of rows (n, d); on several processes each finds those of an even part of the
    tiles."""
    (n, d), tile = rows.shape, RANGE_PAIRS[chip(rows.device)]
    tiles = cdiv(n, tile.block_m)
    if share is not None:  # the rows of other tiles end before they begin: their programs are done at once
        share = share.even(tiles)
        own = slice(share.own.start * tile.block_m, share.own.stop * tile.block_m)
        given, ends = ends, torch.zeros_like(ends)
        ends[own] = given[own]
    values = _empty((tiles, tile.block_m, k), dtype=torch.float32, device=rows.device)
    partners = _empty((tiles, tile.block_m, k), dtype=torch.int32, device=rows.device)
    table = columns_first(rows, tile.block_k, tile.block_n)
    arguments = table, ends, values, partners, n, d
    constants = {"LARGEST": largest, "K": k, "SLOTS": triton.next_power_of_2(k)}
    constants |= {"BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n, "CHUNK": tile.block_k, **tile.options}
    compiled = recall(kind, ("extremes", largest), dict)
    start(Launch(extremes, (tiles, 1, 1), arguments, constants, compiled))
    if share is not None:
        values, partners = peers.gather(share, values[share.own], partners[share.own])
    return values, partners


def range_loss(
    x: Tensor,
    y: Tensor,
    k: int,
    alpha: float,
    beta: float,
    margin: float,
    gradient: bool,
    peers: Peers = ALONE,
    share: Share | None = None,
    kind: dict | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss () in float32 and dx (n, d) of x (n, d), y (n,); without `gradient` dx is (0,).

    A negative label takes its row out of everything; the largest of the labels' dtype counts as one.
    A class of one sample has no pair; a distance of 0 makes its class's harmonic mean, and its gradient, 0; one class
    has no nearest means. A row that is not finite makes the loss NaN. Of rows that lie on several processes each finds
    the partners of as many as any other, and dx is that of its `share`. `kind` remembers what was compiled for calls
    alike in all but the values of tensors, all of them aligned.
    """
    compiled = recall(kind, ("loss",), dict)
    (n, d), device = x.shape, x.device
    classes = _Classes.of(y)
    rows = x.index_select(0, classes.order)
    values, partners = _find_extremes(rows, classes.starts[classes.index + 1], k, True, kind, peers, share)
    means = _empty((n, d), dtype=torch.float32, device=device)
    pairs = _empty((n, 2, k), dtype=torch.int32, device=device)
    slopes = _empty((n, k), dtype=torch.float32, device=device)
    losses = _empty((n,), dtype=torch.float32, device=device)
    blocks = {"BLOCK": ROWS.block_m, "BLOCK_D": ROWS.block_d, **ROWS.options}
    arguments = rows, classes.starts, values, partners, means, pairs, slopes, losses, n, d
    constants = {"K": k, "SLOTS": triton.next_power_of_2(k), **blocks}
    start(Launch(class_terms, (n, 1, 1), arguments, constants, compiled))
    places = torch.arange(n, device=device)
    class_ends = torch.where(places < classes.count, classes.count, 0)
    values, partners = _find_extremes(means, class_ends, 1, False, kind)
    nearest = _empty((2,), dtype=torch.int64, device=device)
    hinge_slope, loss = (_empty((), dtype=torch.float32, device=device) for _ in range(2))
    found = means, values, partners, losses, classes.count
    arguments = *found, nearest, hinge_slope, loss, n, d, alpha, beta, margin
    start(Launch(total_loss, (1, 1, 1), arguments, blocks, compiled))
    if not gradient:
        return loss, _empty((0,), dtype=gradient_dtype(x), device=device)
    dx = _empty(x.shape, dtype=gradient_dtype(x), device=device)
    arguments = rows, *classes, pairs, slopes, means, nearest, hinge_slope, dx, n, d, alpha
    grid = cdiv(n, ROWS.block_m), cdiv(d, ROWS.block_d), 1
    start(Launch(range_gradient, grid, arguments, {"K": k, **blocks}, compiled))
    return loss, dx if share is None else dx[share.own].contiguous()
