"""Marginal loss, and FD in its pairwise form, as tiles of S = U Uᵀ: one sweep for the loss and the gradient.

Both losses are symmetric in the pair, so only tiles on and above the diagonal are visited: 3·n²·d operations (n²·d for
S, 2·n²·d for dU += G·U both ways; n²·d without a gradient). Normalisation is redone for every tile, which costs less
than a pass over S and saves a copy of the features. Memory beyond the gradient: two tiles and their rows. With 16-bit
features there is no gradient to accumulate in, and all tiles are visited: 4·n²·d operations.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..terms import ALONE, Peers, Share
from .tiles import classes_of, directions, gradient_dtype, shaped, spans, take, taking_part, wide_dtype, work_dtype

TILE = 1024
FAR = 1e30  # so far from everything that no hinge of another class is open


def pairwise(
    x: Tensor,
    y: Tensor,
    class_difficulty: Tensor | None,
    epilogue: str,
    params: list[float],
    mean: bool,
    gradient: bool,
    peers: Peers = ALONE,
    share: Share | None = None,
) -> tuple[Tensor, Tensor]:
    """Σ over ordered pairs i ≠ j of the epilogue's loss at u_i·u_j, for the mean over its divisor: (loss, dx).

    x (n, d), or (k, n, d) for k embeddings of the same samples; y (n,); class_difficulty (C,) for "fd". Without it a
    negative label takes its row out. Of rows (n, d) that lie on several processes this one visits all pairs of its
    `share`, whose dx it gives: a pair's other half is another's.
    """
    rule = EPILOGUES[epilogue]
    dtype, n = work_dtype(x), len(y)
    out = None
    if class_difficulty is None:
        x, y, out = taking_part(x, y)
    if out is not None:
        n = n - out.sum(dtype=wide_dtype(x.device))
    stack = x.reshape(-1, *x.shape[-2:])
    labels = _Labels(
        classes_of(y).index[:, None].to(dtype),
        torch.zeros_like(y, dtype=dtype) if class_difficulty is None else class_difficulty.to(dtype)[y],
        out,
    )
    scale = 1 / rule.divisor(len(stack), n) if mean else 1.0
    own = slice(0, len(y)) if share is None else share.own
    shape = *x.shape[:-2], own.stop - own.start, x.shape[-1]
    dx = torch.empty(shape if gradient else (0,), dtype=gradient_dtype(x), device=x.device)
    targets = dx.view(len(stack), *shape[-2:]) if gradient else [None] * len(stack)
    sweeps = zip(stack, targets, strict=True)
    total = sum(_sweep(rows, labels, rule, params, scale, target, own) for rows, target in sweeps)
    total = peers.total(total.dtype, total)[0]
    return (total * scale).to(dtype), dx


class _Labels(NamedTuple):
    place: Tensor  # (n, 1), the number of each row's class in the dtype of a tile: compared at its speed
    weight: Tensor  # (n,), how hard that class is
    out: Tensor | None  # (n,), whether the row is left out; such a row is of no class

    def side(self, unit: Tensor, rows: slice) -> "_Side":
        squared = unit.square().sum(1)
        if self.out is not None:
            squared.masked_fill_(self.out[rows], FAR)
        return _Side(squared, self.weight[rows])


class _Side(NamedTuple):
    """What an epilogue may ask of the rows of a tile, or of its columns."""

    squared: Tensor  # ‖u‖²: 1, or 0 for a row without a direction; FAR of one that is left out
    weight: Tensor


class _Epilogue(NamedTuple):
    """`loss(s, sign, rows, columns, *params)` sums the loss of a tile and leaves dloss/ds over `slope` in `s`.

    sign is ±1 for the same / another class; both tiles may be overwritten.
    """

    loss: Callable[..., Tensor]
    divisor: Callable  # of the mean, from k and n, an integer or a tensor ()
    centred: bool  # whether u_i·u_j is a correlation or a cosine
    itself: float  # the value of s at which a row paired with itself loses nothing
    slope: float


def _marginal(s: Tensor, sign: Tensor, rows: _Side, columns: _Side, theta: float, xi: float) -> Tensor:
    """[ξ - y (θ - D)]₊ with D = ‖u_i‖² + ‖u_j‖² - 2 s; the slope is -2 y where the hinge is open."""
    s.mul_(-2).add_(rows.squared[:, None] - theta).add_(columns.squared)
    s.mul_(sign).add_(xi).clamp_min_(0)
    total = s.sum()
    s.sign_().mul_(sign)
    return total


def _fd(s: Tensor, sign: Tensor, rows: _Side, columns: _Side) -> Tensor:
    """Ω |Φ - s|, Ω = w_i + w_j; the slope is -Ω sign(Φ - s)."""
    torch.sub(sign, s, out=s)
    omega = torch.add(rows.weight[:, None], columns.weight, out=sign)
    total = torch.dot(s.abs().view(-1), omega.view(-1))
    s.sign_().mul_(omega)
    return total


EPILOGUES = {
    "marginal": _Epilogue(_marginal, lambda k, n: n * n - n + (n < 2), False, torch.inf, -2.0),
    "fd": _Epilogue(_fd, lambda k, n: k * n * n, True, 1.0, -1.0),
}


def _sweep(
    x: Tensor, labels: _Labels, rule: _Epilogue, params: list[float], scale: float, dx: Tensor | None, own: slice
) -> Tensor:
    """The sum of the loss over ordered pairs of own rows with rows of x (n, d); its gradient times `scale` goes into
    dx, that of own rows."""
    n, dtype = len(x), labels.place.dtype
    mirrored = (dx is None or dx.dtype == dtype) and own == slice(0, n)
    if dx is not None:
        dx.zero_()
    total = torch.zeros((), dtype=wide_dtype(x.device), device=x.device)
    tile, spare = labels.place.new_empty(2, min(n, TILE) ** 2).unbind()
    for block in spans(own.stop, TILE, own.start):
        anchors, at = (
            directions(take(x, block, dtype), rule.centred),
            slice(block.start - own.start, block.stop - own.start),
        )
        rows = labels.side(anchors.unit, block)
        grad = None if dx is None else dx[at] if mirrored else torch.zeros_like(anchors.unit)
        for span in spans(n, TILE, block.start if mirrored else 0):
            same = span == block
            unit = anchors.unit if same else directions(take(x, span, dtype), rule.centred).unit
            columns = rows if same else labels.side(unit, span)
            s = torch.mm(anchors.unit, unit.T, out=shaped(tile, len(anchors.unit), len(unit)))
            sign = torch.eq(labels.place[block], labels.place[span].T, out=shaped(spare, *s.shape)).mul_(2).sub_(1)
            s.diagonal(block.start - span.start).fill_(rule.itself)
            tile_loss = rule.loss(s, sign, rows, columns, *params)
            total += tile_loss if same or not mirrored else 2 * tile_loss
            if grad is not None:
                grad.addmm_(s, unit)
                if mirrored and not same:
                    dx[span].addmm_(s.T, anchors.unit)
        if grad is not None:
            dx[at] = anchors.backward_(grad.mul_(2 * rule.slope * scale))
    return total
