"""What each loss of the center family adds to the class-table engine: its terms, their gradient, its move of centers.

All are Σ_i a_{y_i} ‖x_i - c_{y_i}‖², each with a scale a, plus a constant; the variant loss has anti-center terms.
A move is a step of every center, where the rule has one, plus what the rows of its class ask of a center.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from ..terms import CenterTerm
from .center_spread import CenterSpread, OtherCenters
from .tiles import (
    Classes,
    add_rows,
    classes_of,
    directions,
    rows_per_block,
    rows_per_sweep,
    spans,
    take,
    take_present,
    total_weight,
    wide_dtype,
)


class CenterTask(NamedTuple):
    """What an auxiliary loss is given."""

    x: Tensor  # (n, d)
    y: Tensor  # (n,)
    term: CenterTerm
    sample_weights: Tensor | None = None  # (n,), 0 for rows that are absent
    shared: bool = False  # whether other processes have rows, too: sums have a place for every class then

    @property
    def centers(self) -> Tensor:
        """(C, d), moved in place."""
        return self.term.centers


class Center:
    """½ Σ ‖x_i - c_{y_i}‖²; c_k moves by α Σ_{y_i=k} (x_i - c_k) / (1 + n_k).

    Touches the centers of the batch's classes only. x (n, d), y (n,), centers (C, d).
    """

    moves_every_center = False
    scale: Tensor | float = 0.5  # a: one number for all, or of every class (C,)

    def __init__(self, task: CenterTask, update: bool, dtype: torch.dtype):
        self.task, self.dtype, self.wide = task, dtype, wide_dtype(task.x.device)
        self.constant: Tensor | float = 0.0
        self.classes: Classes | None = None
        if update:
            self.classes = classes_of(task.y, len(task.centers), numbered=task.shared)
            size = len(self.classes.labels), task.x.shape[1]
            # Long sums are taken in float64; where classes have a row or two there is nothing to lose.
            long = task.shared or 4 * len(self.classes.labels) <= len(task.x)
            self.offsets = torch.zeros(size, dtype=self.wide if long else dtype, device=task.x.device)
            if task.sample_weights is not None:
                counts = torch.zeros((size[0], 1), dtype=self.wide, device=task.x.device)
                add_rows(counts, self.classes.index, task.sample_weights[:, None])
                self.classes = self.classes._replace(counts=counts[:, 0])
        self.configure(*task.term.params)

    def configure(self, alpha: float) -> None:
        self.alpha = alpha

    def before(self) -> Sequence[Tensor]:
        """Sums over the batch that are asked for before the sweep."""
        return ()

    def prepare(self, before: Sequence[Tensor], total: Tensor | int | None) -> None:
        """Take these sums over all rows, and what a mean divides by, None where there is no mean."""

    def visit(
        self, rows: Tensor, block: slice, factor: Tensor | float, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The losses of the samples of a block, (r,), and factor · d loss / d rows, (r, d), in `out` where that is
        given.

        Takes the samples into the move.
        """
        y = self.task.y[block]
        offset = torch.sub(rows, self.task.centers.index_select(0, y).to(self.dtype), out=out)
        squares = vector_norm(offset, dim=1).to(self.wide).square_()
        scale, weights = self.scale, self.weights(block)
        if self.classes is not None:
            add_rows(self.offsets, self.classes.index[block], offset if weights is None else offset * weights[:, None])
        if isinstance(scale, Tensor) and scale.ndim:
            scale = scale.index_select(0, y)
        if weights is not None:
            scale = scale * weights.to(self.wide)  # MVA's may be more than float32 holds
        slope = 2 * factor * scale
        if isinstance(slope, Tensor) and slope.ndim:
            slope = slope.to(self.dtype)[:, None]
        return scale * squares, offset.mul_(slope)

    def weights(self, block: slice) -> Tensor | None:
        """Of the samples of a block: (r,), None where all weigh one."""
        return None if self.task.sample_weights is None else self.task.sample_weights[block]

    @property
    def sums(self) -> list[Tensor]:
        """What the move asks for of the rows that were visited."""
        return [self.classes.counts, self.offsets]

    def move(self, counts: Tensor, offsets: Tensor) -> None:
        """Move the centers in place by the :attr:`sums`, those of the batch computed from their old values before any
        other moves.

        A center that would not be finite stays: a step that a gradient scaler skips is to spoil nothing.
        """
        labels = self.classes.labels
        first = torch.searchsorted(labels, labels)  # places that stand for no class repeat the last one
        centers = self.task.centers
        old = centers.index_select(0, labels)
        moved = self.attraction(old.to(self.wide), counts[first][:, None], offsets[first].to(self.wide), first)
        moved += old
        if self.moves_every_center:
            moved += self.step(old.to(self.wide), first)
            for block in spans(len(centers), rows_per_block(old.shape[1])):
                rows = centers[block]
                centers[block] = _where_finite(rows + self.step(rows.to(self.wide)), rows)
        centers.index_copy_(0, labels, _where_finite(moved, old))

    def attraction(self, old: Tensor, counts: Tensor, offsets: Tensor, places: Tensor) -> Tensor:
        """What moves the centers of the batch's classes besides :meth:`step`: (s, d)."""
        return self.alpha * offsets / (1 + counts)

    def step(self, old: Tensor, places: Tensor | None = None) -> Tensor:
        """What moves any center: (r, d) from the old centers (r, d), which have those `places` among the classes of the
        batch, or are of none."""
        raise NotImplementedError


class Island(Center):
    """Center + λ₁ Σ_j Σ_{k≠j} (cos(c_j, c_k) + 1), every center moving by -α λ₁/(C-1) Σ_{k≠j} ∂cos(c_j, c_k)/∂c_j."""

    moves_every_center = True

    def configure(self, lambda1: float, alpha: float) -> None:
        self.alpha = alpha
        num_classes, d = self.task.centers.shape
        self.repulsion = alpha * lambda1 / max(num_classes - 1, 1)
        self.directions = self.task.centers.new_zeros(d, dtype=self.wide)
        squares = self.directions.new_zeros(())
        for block in spans(num_classes, rows_per_block(d)):
            unit = directions(take(self.task.centers, block, self.wide)).unit
            self.directions += unit.sum(0)
            squares += unit.square().sum()
        self.constant = lambda1 * (self.directions.square().sum() - squares + num_classes * (num_classes - 1))

    def step(self, old: Tensor, places: Tensor | None = None) -> Tensor:
        rows = directions(old)
        return rows.backward_(self.directions - rows.unit).mul_(-self.repulsion)


class Variant(Center):
    """½ Σ_i (‖x_i - c_{y_i}‖² + λ₁/(ε₁ + S_i)) + λ₂/(ε₂ + T), with S by :class:`OtherCenters` and T = 2·C·V.

    `paper` adds the printed third term, -2 λ₂ Σ_n (c_{y_i} - c_n)/(ε₂ + T)², to the gradient of the features. With the
    weights p_i = (ε₁ + S_i)⁻², P = Σ p_i and X = Σ p_i x_i over the rows of the other classes, every center moves by
    α λ₁ (P c - X) + α λ₂ Σ_n (c - c_n)/(2 (ε₂ + T)²).
    """

    moves_every_center = True

    def configure(self, lambda1: float, lambda2: float, eps1: float, eps2: float, alpha: float, paper: float) -> None:
        self.alpha, self.lambda1, self.eps1 = alpha, lambda1, eps1
        self.spread = CenterSpread.of(self.task.centers)
        self.others = OtherCenters.of(self.task.centers, self.spread)
        between = eps2 + 2 * self.spread.count * self.spread.spread
        self.constant = lambda2 / between
        self.apart = lambda2 / between.square()
        self.paper = bool(paper)
        if self.classes is not None:
            s, d = self.offsets.shape
            self.pushes = self.offsets.new_zeros((s, d + 1), dtype=self.wide)  # Σ p x and Σ p of each class

    def visit(
        self, rows: Tensor, block: slice, factor: Tensor | float, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        losses, grad = super().visit(rows, block, factor, out)
        of_rows = self.weights(block)
        y = self.task.y[block]
        own_centers = self.task.centers.index_select(0, y).to(self.wide)
        anti, apart = self.others.anti(rows, y, own_centers)
        inverse = 1 / (self.eps1 + anti)
        push_losses = 0.5 * self.lambda1 * inverse
        losses += push_losses if of_rows is None else push_losses * of_rows
        weights = inverse.square_()[:, None]
        if of_rows is not None:
            weights *= of_rows[:, None]
        if self.classes is not None:
            pushes = torch.cat([rows.to(self.wide), torch.ones_like(weights)], 1).mul_(weights)
            add_rows(self.pushes, self.classes.index[block], pushes)
        push = apart.mul_(weights * self.lambda1)
        if self.paper:
            printed = 2 * self.apart * self._from_others(own_centers)
            push += printed if of_rows is None else printed * of_rows[:, None]
        return losses, grad.sub_(push.mul_(factor))

    @property
    def sums(self) -> list[Tensor]:
        return [*super().sums, self.pushes]

    def move(self, counts: Tensor, offsets: Tensor, pushes: Tensor) -> None:
        self.all_pushes, self.pushes = pushes.sum(0), _of_others(pushes)
        super().move(counts, offsets)

    def step(self, old: Tensor, places: Tensor | None = None) -> Tensor:
        pushes = self.all_pushes if places is None else self.pushes[places]
        push = pushes[..., -1:] * old - pushes[..., :-1]
        return self.alpha * (self.lambda1 * push + self.apart / 2 * self._from_others(old))

    def _from_others(self, centers: Tensor) -> Tensor:
        """Σ_n (c - c_n) for some of the centers: (r, d)."""
        return self.spread.count * (centers - self.spread.mean)


class WeightedCluster(Center):
    """½ Σ_i W_{y_i} ‖x_i - c_{y_i}‖² / (Σ_j ‖c_j - c_{y_i}‖² + α); c_k moves by γ W_k/(…) Σ_{y_i=k} (x_i - c_k)."""

    def configure(self, alpha: float, gamma: float) -> None:
        self.gamma = gamma
        self.scale = 0.5 / (CenterSpread.of(self.task.centers).to_others + alpha)
        if self.task.term.class_weights is not None:
            self.scale *= self.task.term.class_weights

    def attraction(self, old: Tensor, counts: Tensor, offsets: Tensor, places: Tensor) -> Tensor:
        return self.gamma * 2 * self.scale.index_select(0, self.classes.labels)[:, None] * offsets


class Affinity(Center):
    """Σ_i ‖x_i - c_{y_i}‖² / σ², σ² = V/(C-1) the unbiased variance of the centers over all dimensions."""

    def configure(self, alpha: float) -> None:
        self.alpha = alpha
        spread = CenterSpread.of(self.task.centers)
        self.scale = (spread.count - 1) / spread.spread if spread.count > 1 else spread.spread / 0


class MVA(Affinity):
    """α_v times affinity, α_v = 1 + the variance of affinity over the batch and the groups of the bank.

    α_v scales every gradient, so the batch's own affinity is taken in a sweep before: two reads of x.
    """

    def before(self) -> Sequence[Tensor]:
        return [self._squares(self.task.x, self.task.y, self.task.sample_weights)]

    def prepare(self, before: Sequence[Tensor], total: Tensor | int | None) -> None:
        sums, totals, rows = [*before], [total], self.task.term.group_rows
        for v, (x, y) in enumerate(zip(self.task.term.groups_x, self.task.term.groups_y, strict=True)):
            weights = first(rows, v, y)
            sums.append(self._squares(x, y, weights))
            totals.append(len(x) if weights is None else total_weight(weights))
        if total is not None:
            sums = [of / n for of, n in zip(sums, totals, strict=True)]
        self.scale = self.scale * group_weight(self.scale * torch.stack(sums), rows)

    def _squares(self, x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        """Σ_i w_i ‖x_i - c_{y_i}‖²: ()."""
        total = torch.zeros_like(self.scale)
        absent = None if weights is None else (weights == 0)[:, None]
        for block in spans(len(x), rows_per_sweep(x, x.shape[1])):
            own_centers = self.task.centers.index_select(0, y[block]).to(self.dtype)
            offset = own_centers.sub_(take_present(x, block, self.dtype, absent))
            squares = vector_norm(offset, dim=1).to(self.wide).square_()
            total += squares.sum() if weights is None else (weights[block] * squares).sum()
        return total


def first(rows: Tensor | None, v: int, y: Tensor) -> Tensor | None:
    """Weights (n_v,) of the rows of group v with labels y: 1 for the first rows[v], 0 for the others; None for all."""
    return None if rows is None else (torch.arange(y.shape[0], device=y.device) < rows[v]).float()


def group_weight(losses: Tensor, rows: Tensor | None) -> Tensor:
    """α_v = 1 + (1/V) Σ_v (A_v - Ā)² of MVA: (), of the affinity loss of the batch and its groups, (V,), those left out
    of which no `rows` (V-1,) are real."""
    if rows is None:
        return 1 + losses.var(correction=0)
    real = torch.cat([rows.new_ones(1), rows]) > 0
    mean = losses.where(real, 0).sum() / real.sum()
    return 1 + (losses - mean).where(real, 0).square().sum() / real.sum()


def _of_others(parts: Tensor) -> Tensor:
    """Σ_{j≠k} of (s, d), for each k: of those before and those after, for in the sum of all one may hide the others."""
    others = torch.zeros_like(parts)
    others[1:] = parts[:-1].cumsum(0)
    others[:-1] += parts[1:].flip(0).cumsum(0).flip(0)
    return others


def _where_finite(moved: Tensor, old: Tensor) -> Tensor:
    """Rows of centers as they move, or as they were where a moved one would not be finite in their dtype."""
    moved = moved.to(old.dtype)
    return moved.where(moved.isfinite().all(1, keepdim=True), old)


RULES: dict[str, type[Center]] = {
    "center": Center,
    "island": Island,
    "variant": Variant,
    "weighted-cluster": WeightedCluster,
    "affinity": Affinity,
    "mva": MVA,
}
