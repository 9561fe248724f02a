"""NFD, FD, MD, ED and Ad-Corre by their linear form: class sums of standardised rows, no pair is visited.

|Φ - corr| = 1 - Φ·corr because corr lies in [-1, 1] and Φ = ±1. Two sweeps over e (k, n, d) in blocks of samples: the
first sums rows by class, the second writes the gradient, which is a row of a (k, C, d) table passed through the chain
rule of standardisation. Floor: two reads and one write of e, O(k·n·d) operations. Memory beyond the gradient: tables
of (k, C, d) and pieces of a block. Unit rows wait for the second sweep where the gradient will lie: an allocator that
frees more than it keeps hands memory back, and every call would touch it anew, page by page.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from ..terms import ALONE, Peers
from .tiles import (
    Directions,
    add_rows,
    centred_directions_,
    directions,
    gradient_dtype,
    rows_per_sweep,
    spans,
    wide_dtype,
    work_dtype,
)

BLOCK = 2**19  # elements; its blocks are of k short runs each, and 2¹⁸ took a fifth longer
PIECE = 2**16  # elements of a block that temporaries are made of, unless one embedding has more


def ad_corre(
    e: Tensor,
    y: Tensor,
    class_difficulty: Tensor | None,
    num_classes: int,
    fd: float,
    md: float,
    ed: float,
    sample_weights: Tensor | None,
    reduction: str,
    gradient: bool,
    peers: Peers = ALONE,
) -> tuple[Tensor, Tensor]:
    """fd·FD + md·MD + ed·ED: (loss, de). A weight of 0 leaves its term out; class_difficulty w (C,) is FD's alone, and
    ED's are sample_weights (n,), by whose sum its mean divides, and "none", the losses of its rows (n,).

    e (k, n, d), y (n,). With u the standardised rows, s_c their sum over class c, v_c the p standardised class means:
    FD = Σ_{i≠j} Ω_ij - 4 Σ_c w_c ‖s_c‖² + 2 W·U + 2 Σ_i w_{y_i} ‖u_i‖², W = Σ_c w_c s_c, U = Σ_c s_c;
    MD = p(p-1) + ‖Σ_c v_c‖² - Σ_c ‖v_c‖²;  ED = Σ_i k(k-1) + ‖Σ_a u_ai‖² - Σ_a ‖u_ai‖².
    The 1 of a pair is taken as t_i + t_j, t = ½ ‖u‖² of a row that has a direction and ½ of one that has none: a pair
    of like rows is then ½ ‖u_i - u_j‖², in which the rounding of lengths cancels.
    """
    (k, n, _), mean, by_row = e.shape, reduction == "mean", reduction == "none"
    y = y.long()  # counts are scattered by it
    weights = None if sample_weights is None else sample_weights.to(work_dtype(e))
    with_fd, with_md, with_ed = fd != 0, md != 0, ed != 0 and k > 1  # a single embedding has no pair
    de = torch.empty(e.shape if gradient else (0,), dtype=gradient_dtype(e), device=e.device)
    units = _Units(e, weights, de)
    sums = _sum_by_class(units, y, num_classes, with_fd, with_md, with_ed, by_row)
    rows, total = n, n if weights is None or not mean else weights.sum(dtype=sums.counts.dtype)
    if peers.group:  # what is known of the rows is all that travels
        of_rows, rows = sums.embedding_loss, sums.counts.new_full((), rows)
        total = rows if weights is None or not mean else total
        *of_classes, rows, total, of_all = peers.total(
            sums.counts.dtype, *sums[:-1], rows, total, of_rows[:0] if by_row else of_rows
        )
        sums = _Sums(*of_classes, of_rows if by_row else of_all)
    if isinstance(total, Tensor):
        total = total.where(total != 0, 1)  # where nothing weighs anything, nothing is lost
    if mean:
        pairs = rows * rows + (rows == 0)
        fd, md, ed = fd / (k * pairs), md / (k * num_classes**2), ed / (total * k * k)
    loss, on_unit, on_row = (ed if with_ed else 0) * sums.embedding_loss, None, None
    if with_fd:
        lost, table = _feature_discriminator(sums, class_difficulty.to(loss), rows)
        fd = fd * (rows > 1)  # a single sample has no pair: exactly nothing, not what is left of sums that cancel
        loss, on_unit = loss + fd * lost, (fd * table).to(work_dtype(e))
    if with_md:
        lost, table = _mean_discriminator(sums)
        loss, on_row = loss + md * lost, (md * table).to(work_dtype(e))
    if gradient:
        _write_gradient(units, y, on_unit, on_row, ed if with_ed else None, de)
    return loss.to(work_dtype(e)), de


class _Units:
    """The unit rows of e (k, n, d), a block at a time; a row that weighs nothing is zero, whatever it holds.

    Where the gradient has their dtype the first sweep leaves them in its place, for the second to overwrite.
    """

    def __init__(self, e: Tensor, weights: Tensor | None, de: Tensor):
        self.e, self.weights = e, weights
        self.kept = de if de.ndim == e.ndim and de.dtype == work_dtype(e) else None
        self.inverse = de.new_empty((0 if self.kept is None else e.shape[0], e.shape[1], 1))

    def make(self, block: slice) -> Directions:
        rows = self.e[:, block]
        x = (
            torch.empty(rows.shape, dtype=work_dtype(rows), device=rows.device)
            if self.kept is None
            else self.kept[:, block]
        )
        x.copy_(rows)
        if self.weights is not None:
            x.masked_fill_((self.weights[block] == 0)[:, None], 0)
        made = centred_directions_(x)
        if self.kept is not None:
            self.inverse[:, block] = made.inverse
        return made

    def again(self, block: slice) -> Directions:
        """What :meth:`make` gave for these rows."""
        if self.kept is None:
            return self.make(block)
        return Directions(self.kept[:, block], self.inverse[:, block], True)


def _pieces(units: Tensor) -> Iterator[slice]:
    """A block (k, r, d) as few embeddings at a time."""
    return spans(len(units), max(1, PIECE // units[0].numel()))


class _Sums(NamedTuple):
    """What the first sweep leaves, in float64 where there is one; (0,) where no term asks for it."""

    counts: Tensor  # (C,)
    units: Tensor  # (k, C, d), s
    squares: Tensor  # (k, C), Σ ‖u_i‖² over a class
    halves: Tensor  # (k, C), Σ t_i over a class
    rows: Tensor  # (k, C, d), sums of the rows themselves
    embedding_loss: Tensor  # (), ED as a sum, or its terms (n,)


def _sum_by_class(units: _Units, y: Tensor, num_classes: int, fd: bool, md: bool, ed: bool, by_row: bool) -> _Sums:
    e, weights = units.e, units.weights
    k, n, d = e.shape
    zero = torch.zeros((), dtype=wide_dtype(e.device), device=e.device)
    sums = _Sums(
        y.new_zeros(num_classes).scatter_add_(0, y, torch.ones_like(y)).to(zero),
        zero.new_zeros((k, num_classes, d) if fd else 0),
        *zero.new_zeros((2, k, num_classes) if fd else (2, 0)),
        zero.new_zeros((k, num_classes, d) if md else 0),
        zero.new_zeros(n if by_row else ()),
    )
    width = k * d if fd or ed else d  # row sums alone need no temporaries
    for block in spans(n, rows_per_sweep(e, width, BLOCK)):
        if md:
            add_rows(sums.rows, y[block], e[:, block].to(work_dtype(e)))
        if not (fd or ed):
            continue
        u, inverse, _ = units.make(block)
        squares = zero.new_empty(inverse.shape) if fd else vector_norm(u, dim=-1, keepdim=True).square_()
        for piece in _pieces(u) if fd else ():
            # Of rows nearly alike FD is what is left of n² ones: float32 sums would leave their rounding.
            wide = u[piece].to(zero)
            squares[piece] = vector_norm(wide, dim=-1, keepdim=True).square_()
            add_rows(sums.units[piece], y[block], wide)
        halves = (squares + (inverse == 0)) / 2
        if fd:
            add_rows(sums.squares[..., None], y[block], squares)
            add_rows(sums.halves[..., None], y[block], halves)
        if ed:
            losses = (2 * (k - 1) * halves.sum(0) - squares.sum(0))[:, 0] + u.sum(0).square().sum(-1)
            if weights is not None:
                losses *= weights[block]
            if by_row:
                sums.embedding_loss[block] = losses
            else:
                sums.embedding_loss.add_(losses.sum(dtype=zero.dtype))
    return sums


def _feature_discriminator(sums: _Sums, w: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """FD as a sum, and d/du for a row of each class, (k, C, d), less a multiple of u that the chain rule removes."""
    weighted = w[:, None] * sums.units
    everything, weighed = sums.units.sum(1, keepdim=True), weighted.sum(1, keepdim=True)
    attraction = 4 * (weighted * sums.units).sum() - 2 * (weighed * everything).sum() - 2 * (w * sums.squares).sum()
    pairs = 2 * ((n - 2) * (w * sums.halves).sum() + (w * sums.counts).sum() * sums.halves.sum())
    return pairs - attraction, 2 * (w[:, None] * everything + weighed) - 8 * weighted


def _mean_discriminator(sums: _Sums) -> tuple[Tensor, Tensor]:
    """MD as a sum, and d/de for a row of each class: (k, C, d). A class sum has the direction of the mean, and turns
    with one of its rows as the mean with n_c of them."""
    means = directions(sums.rows, centred=True)
    others = means.unit.sum(1, keepdim=True) - means.unit
    present = (sums.counts > 0).sum()
    total = len(means.unit) * present * (present - 1) + (others * means.unit).sum()
    return total, means.backward_(others.mul_(2))


def _write_gradient(
    units: _Units, y: Tensor, on_unit: Tensor | None, on_row: Tensor | None, ed: Tensor | float | None, de: Tensor
) -> None:
    """Fill de (k, n, d) from the tables (k, C, d) of FD, on u, and of MD, on e; ED's gradient on u is 2 Σ_{b≠a} u_b."""
    k, n, d = de.shape
    if on_unit is None and ed is None:
        if on_row is None:
            de.zero_()
        else:
            torch.index_select(on_row.to(de.dtype), 1, y, out=de)
        return
    for block in spans(n, rows_per_sweep(de, d if units.kept is not None else k * d, BLOCK)):
        u, inverse, _ = units.again(block)
        labels, weights = y[block], None if units.weights is None else units.weights[block, None]
        together = None if ed is None else u.sum(0)
        for piece in _pieces(u):
            rows, grad = Directions(u[piece], inverse[piece], True), None
            if ed is not None:
                grad = (together - rows.unit).mul_(2 * ed)
                if weights is not None:
                    grad *= weights
            if on_unit is not None:
                own = on_unit[piece].index_select(1, labels)
                grad = own if grad is None else grad.add_(own)
            grad = rows.backward_(grad)
            if on_row is not None:
                grad += on_row[piece].index_select(1, labels)
            de[piece, block] = grad
