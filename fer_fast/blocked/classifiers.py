"""The classifier heads of the class-table engine: logits of a block of rows, their cross-entropy and its gradients.

A head says what the rows become before their product with the class table, whether the table's rows count as unit rows,
and what becomes of the target's logit; cross-entropy and its gradient products are the same for all. 6·n·C·d
operations; 2·n·C·d without a gradient. Where even the logits of few rows are too many they go by in tiles, once for
the softmax's sum and once for the gradient: 8·n·C·d.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..terms import Classifier
from .targets import Targets
from .tiles import (
    add_rows,
    directions,
    inverse_lengths,
    row_products,
    rows_per_block,
    shaped,
    spans,
    turn_,
)

LOGITS = 2**21  # entries of a tile of logits on a CPU, 8 MiB in float32: fewer cost more in calls
KEPT = 13 * 2**20  # of the fewest rows of all classes there, 52 MiB: LMCL of 100 000 takes 0.7 of its time in tiles
ON_DEVICE = 2**5  # times as many where a launch costs more than a pass through memory
ROWS = 128  # of a tile of all classes at least: with fewer the products are thin

PullBack = Callable[[Tensor], Tensor]


class Margin(NamedTuple):
    """The target's logit where it is not the product's less a constant, with derivatives of its own."""

    logit: Tensor  # (r, 1)
    by_rows: Tensor  # (r, d)
    by_table: Tensor  # (r, d), by the target's row of the table, of length one where `unit_table`


class Softmax:
    """f_j = w_j·x + b_j.   weight (C, d), bias (C,)."""

    unit_table = False  # whether the table's rows are scaled to length one
    copies_rows = False  # whether it makes tensors as large as the rows
    bare = True  # whether products, with the bias, are the logits
    margin: Tensor | float | None = None  # taken off the target's logit
    s: Tensor | float = 1.0  # scale of the logits; a tensor gets a gradient

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        params: list[Tensor | float],
        gradient: bool,
        dtype: torch.dtype,
        classes: int | None = None,
    ):
        self.bias, self.gradient = bias, gradient
        self.table = weight.to(dtype).contiguous()
        self.inverse = inverse_lengths(self.table)[:, 0] if self.unit_table else None
        entries, width = LOGITS if weight.is_cpu else LOGITS * ON_DEVICE, classes or len(weight)
        self.rows_per_block = entries // width
        self.few = self.rows_per_block >= ROWS
        # A second table may be large: its rows count as unit rows by the columns of the product, or tile by tile.
        self.by_columns = False
        if not self.few and weight.is_cpu and ROWS * width <= KEPT:
            self.rows_per_block, self.by_columns = ROWS, self.unit_table
        elif not self.few:
            self.rows_per_block = width = math.isqrt(entries)
        elif self.unit_table:
            self.table = directions(self.table).unit
        self.tiles = list(spans(len(weight), width))
        self.buffer: Tensor | None = None
        self.setting_grad: Tensor | float = 0.0
        if gradient:
            self.table_grad, self.visited = torch.empty_like(self.table), False
            self.bias_grad = self.table.new_empty(0 if bias is None else len(weight))
        self.configure(*params)

    def configure(self) -> None:
        """Take the hyper-parameters."""

    def prepare_rows(self, rows: Tensor) -> tuple[Tensor, PullBack]:
        """What is multiplied by the table, (r, d), and the map from its gradient to the rows'."""
        return rows, _identity

    def with_margin(self, rows: Tensor, y: Tensor) -> Margin | None:
        """The target's logit of rows (r, d) with labels y (r,), where it is none of the product."""

    def visit(
        self,
        rows: Tensor,
        targets: Targets,
        out: Tensor | None = None,
        exchange: Callable[["Block"], None] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The losses of rows (r, d), (r,), and their gradients, in `out` where that is given; the table's are added
        up. Where others have more of the classes, `exchange` takes in what they have of the rows' softmax."""
        if self.bare and self.few and targets.plain and exchange is None:
            return self._visit_bare(rows, targets.y[None], targets.own, out)
        features, to_rows = self.prepare_rows(rows)
        block = Block(targets, self.with_margin(rows, targets.y) if self.tiles else None)
        for tile in self.tiles:
            table = self._factor(tile)
            logits = self._product(features, table)
            block.place(tile, len(self.table))
            self._exponentials_(logits, tile, block)
        if exchange is not None:
            exchange(block)
        losses = block.losses()
        if not self.gradient:
            return losses, None
        grad, again = None if self.tiles else torch.zeros_like(features), len(self.tiles) > 1
        if again:
            block.shift = block.highest + (block.total / block.weight.abs()).log_()
        for tile in self.tiles:
            if again:
                table = self._factor(tile)
                logits = self._product(features, table)
                block.place(tile, len(self.table))
            self._derivatives_(logits, tile, block, again)
            self.table_grad[tile].addmm_(logits.T, features, beta=int(self.visited))
            if self.by_columns:
                logits *= self.inverse
            grad = torch.mm(logits, table, out=out) if grad is None else grad.addmm_(logits, table)
        self.visited = True
        if isinstance(self.s, Tensor):  # products are proportional to it, the target's logit is besides
            along = (features * grad).sum() / self.s  # no product that autocast would round
            self.setting_grad = self.setting_grad + along + block.by_scale
        grad = to_rows(grad)
        if block.margin is None:
            return losses, grad
        add_rows(self.table_grad, targets.y, block.pull * block.margin.by_table)
        return losses, grad.addcmul_(block.pull, block.margin.by_rows)

    def _visit_bare(self, rows: Tensor, y: Tensor, weight: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """:meth:`visit` in few calls, with labels (1, r): beside products with few classes they are what takes time.

        Classes come first, (C, r), for a sum over a handful of neighbours takes five times as long as one over rows.
        """
        logits = self._product(rows, self.table).T.contiguous()
        if self.bias is not None:
            logits += self.bias[:, None]
        own = logits.sub_(logits.amax(0)).gather(0, y)
        total = logits.exp_().sum(0)
        losses = weight * (total.log() - own)[0]
        if not self.gradient:
            return losses, None
        logits.mul_(weight / total).scatter_add_(0, y, -weight[None])
        self.table_grad.addmm_(logits, rows, beta=int(self.visited))
        self._add_bias_grad(logits.T, self.tiles[0])
        self.visited = True
        return losses, torch.mm(logits.T, self.table, out=out)

    def _add_bias_grad(self, p: Tensor, tile: slice) -> None:
        """Take in the derivatives by a tile's logits (r, c)."""
        if self.bias is not None:
            if self.visited:
                self.bias_grad[tile] += p.sum(0)
            else:
                torch.sum(p, 0, out=self.bias_grad[tile])

    def rows_of_table(self, places: slice | Tensor) -> Tensor:
        """Some rows of the table, of length one where they count as such."""
        rows = self.table[places]
        return rows if self.few or not self.unit_table else rows * self.inverse[places, None]

    def _factor(self, tile: slice) -> Tensor:
        """What rows are multiplied by for a tile of logits."""
        return self.table if self.by_columns else self.rows_of_table(tile)

    def _product(self, features: Tensor, table: Tensor) -> Tensor:
        """Of rows with some of the table's: (r, c), in memory used again by the next."""
        if self.buffer is None:  # the first tile is as large as any
            self.buffer = features.new_empty(len(features) * len(table))
        product = torch.mm(features, table.T, out=shaped(self.buffer, len(features), len(table)))
        return product.mul_(self.inverse) if self.by_columns else product

    def _logits_(self, logits: Tensor, tile: slice, block: "Block") -> None:
        """Make logits of a tile's products (r, c)."""
        if self.bias is not None:
            logits += self.bias[tile]
        if self.margin is not None:
            logits.scatter_add_(1, block.column, block.inside * -self.margin)
        if block.margin is not None:
            own = block.margin.logit.where(block.inside != 0, logits.gather(1, block.column))
            logits.scatter_(1, block.column, own)

    def _exponentials_(self, logits: Tensor, tile: slice, block: "Block") -> None:
        """Take a tile's products into the rows' softmax; exponentials of the logits take their place."""
        self._logits_(logits, tile, block)
        # The maximum goes out before anything is added: a confident sample's small loss keeps its digits.
        highest, own = logits.amax(1, keepdim=True), logits.gather(1, block.column)
        if tile.start:
            highest, own = torch.maximum(highest, block.highest), own.where(block.inside != 0, block.own)
        logits.sub_(highest)
        if not block.targets.plain:
            along, mass = block.targets.times(logits, tile)
            if tile.start:
                along += block.along + block.mass * (block.highest - highest)
                mass = mass + block.mass
            block.along, block.mass = along, mass
        total = logits.exp_().sum(1, keepdim=True)
        if tile.start:
            total += block.total * (block.highest - highest).exp_()
        block.highest, block.own, block.total, block.norm = highest, own, total, total

    def _derivatives_(self, logits: Tensor, tile: slice, block: "Block", again: bool) -> None:
        """Put the loss's derivatives by a tile's products in the place of the exponentials, or of the products
        themselves where these were computed again."""
        if again:
            self._logits_(logits, tile, block)
            logits.sub_(block.shift).exp_()
            if block.targets.sign is not None:
                logits *= block.targets.sign[:, None]
        else:
            logits *= block.weight / block.norm
        logits.scatter_add_(1, block.column, block.inside * -block.of_own)
        if not block.targets.plain:
            block.targets.taken_off_(logits, tile)
        self._add_bias_grad(logits, tile)
        if isinstance(self.s, Tensor):
            of_own = logits.gather(1, block.column) * block.inside
            block.by_scale = block.by_scale + (of_own * self.besides(block)).sum()
        if block.margin is not None:  # whose derivatives are its own: the products get none
            pull = logits.gather(1, block.column)
            block.pull = block.pull + pull * block.inside
            logits.scatter_(1, block.column, pull * (1 - block.inside))

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Of weight (C, d) and bias (C,)."""
        if not self.visited:  # there was no row
            self.table_grad.zero_()
            self.bias_grad.zero_()
        if self.by_columns:
            along = row_products(self.table_grad, self.table) * self.inverse * self.inverse
            self.table_grad.addcmul_(along[:, None], self.table, value=-1).mul_(self.inverse[:, None])
        elif self.unit_table:
            for block in spans(len(self.table), rows_per_block(self.table.shape[1])):
                turn_(self.table_grad[block], self.rows_of_table(block)).mul_(self.inverse[block, None])
        return self.table_grad, self.bias_grad


class LMCL(Softmax):
    """f_j = s·(cos θ_j - m·[j = y]).   weight (C, d)."""

    unit_table = True
    copies_rows = True
    bare = False

    def configure(self, s: Tensor | float, m: float) -> None:
        self.s, self.m, self.margin = s, m, s * m

    def prepare_rows(self, rows: Tensor) -> tuple[Tensor, PullBack]:
        unit = directions(rows)
        return unit.unit * self.s, lambda grad: unit.backward_(grad.mul_(self.s))

    def besides(self, block: "Block") -> Tensor | float:
        """The derivative of the targets' logits by s, less what their products have of it."""
        return -self.m


class ArcFace(LMCL):
    """f_j = s·cos θ_j, f_y = s·cos(θ_y + m), past θ_y = π - m s·(cos θ_y - m·sin m).   weight (C, d)."""

    def configure(self, s: Tensor | float, m: float) -> None:
        self.s, self.m = s, m

    def _logits_(self, logits: Tensor, tile: slice, block: "Block") -> None:
        product = logits.gather(1, block.column)
        cosine = product / self.s
        turned, slope = turned_cosine(cosine, self.m)
        logits.scatter_(1, block.column, (self.s * turned).where(block.inside != 0, product))
        block.slope, block.turned = slope.where(block.inside != 0, 1), turned - slope * cosine

    def _derivatives_(self, logits: Tensor, tile: slice, block: "Block", again: bool) -> None:
        super()._derivatives_(logits, tile, block, again)
        logits.scatter_(1, block.column, logits.gather(1, block.column) * block.slope)

    def besides(self, block: "Block") -> Tensor:
        return block.turned


def turned_cosine(cosine: Tensor, m: float) -> tuple[Tensor, Tensor]:
    """cos(θ + m), past π - m cos θ - m·sin m, and its derivative by cos θ, that of a constant sin θ where this is 0."""
    sine = ((1 - cosine) * (1 + cosine)).clamp_(min=0).sqrt_()
    falls = cosine > -math.cos(m)
    value = (math.cos(m) * cosine - math.sin(m) * sine).where(falls, cosine - m * math.sin(m))
    slope = math.cos(m) + math.sin(m) * cosine / sine.where(sine > 0, math.inf)
    return value, slope.where(falls, 1)


class LSoftmax(Softmax):
    """f_j = ‖x‖ ‖w_j‖ cos θ_j, the target's cos θ_y replaced by (λ cos θ + ψ(θ)) / (1 + λ).   weight (C, d)."""

    copies_rows = True
    bare = False

    def configure(self, m: float, lambda_: Tensor | float) -> None:
        self.m, self.lambda_ = int(m), lambda_

    def with_margin(self, rows: Tensor, y: Tensor) -> Margin:
        own = self.rows_of_table(y)
        u, v = directions(rows).unit, directions(own).unit
        # x·x̂ is a length whose square never exists, so it does not overflow.
        x_length, w_length = (rows * u).sum(1, keepdim=True), (own * v).sum(1, keepdim=True)
        cosine = (u * v).sum(1, keepdim=True)
        value, slope = blended_cosine(cosine, self.m, self.lambda_)
        logit = x_length * w_length * value
        by_rows = w_length * (value * u + slope * (v - cosine * u))
        by_table = x_length * slope * (u - cosine * v)
        if not self.unit_table:  # on a unit row its chain rule takes this off again, and with it the sum's last digits
            by_table += x_length * value * v
        # A zero row has no direction to turn: it passes no gradient.
        return Margin(logit, by_rows.masked_fill_(x_length == 0, 0), by_table.masked_fill_(w_length == 0, 0))


class ASoftmax(LSoftmax):
    """As L-softmax, with class weights of length one.   weight (C, d)."""

    unit_table = True


def blended_cosine(cosine: Tensor, m: int, lambda_: Tensor | float) -> tuple[Tensor, Tensor]:
    """(λ c + ψ) / (1 + λ) at c = cos θ and its derivative by c, ψ(θ) = (-1)^k cos(mθ) - 2k on [kπ/m, (k+1)π/m].

    cos(mθ) is the Chebyshev polynomial T_m(c); k counts the thresholds cos(jπ/m) that c lies below.
    """
    previous, multiple = torch.ones_like(cosine), cosine
    previous_slope, slope = torch.zeros_like(cosine), torch.ones_like(cosine)
    for _ in range(m - 1):
        previous_slope, slope = slope, 2 * (multiple + cosine * slope) - previous_slope
        previous, multiple = multiple, 2 * cosine * multiple - previous
    k = sum(((cosine < math.cos(j * math.pi / m)).to(cosine.dtype) for j in range(1, m)), torch.zeros_like(cosine))
    sign = 1 - 2 * k.remainder(2)
    return (lambda_ * cosine + sign * multiple - 2 * k) / (1 + lambda_), (lambda_ + sign * slope) / (1 + lambda_)


class Block:
    """Some rows on their way through the tiles of the class table: (r, 1) of each."""

    highest: Tensor  # the largest logit so far
    total: Tensor  # Σ exp(logit - highest)
    norm: Tensor  # Σ of all, in units of the exponentials at hand
    own: Tensor  # the target's logit
    along: Tensor | float = 0.0  # Σ_j b_j (logit - highest) so far, of targets that are not plain
    mass: Tensor | float = 0.0  # Σ_j b_j so far
    shift: Tensor  # what, taken off a logit, leaves the logarithm of its softmax times the row's weight
    pull: Tensor | float = 0.0  # the derivative by it, where it is none of the product
    slope: Tensor  # of its logit by the product
    turned: Tensor  # its logit less slope · product, over s
    by_scale: Tensor | float = 0.0  # the derivative by s, beside what the products have of it
    column: Tensor  # in the present tile, of the target
    inside: Tensor  # 1, or 0 where the target lies in another tile, or is none

    def __init__(self, targets: Targets, margin: Margin | None):
        self.targets, self.margin = targets, margin
        self.y, self.weight, self.of_own = targets.y[:, None], targets.weight[:, None], targets.own[:, None]
        self.hard = torch.ones_like(self.weight) if targets.hard is None else targets.hard[:, None]

    def losses(self) -> Tensor:
        """Of the rows, once all tiles are in: (r,)."""
        own = self.of_own * (self.own - self.highest)
        return (self.weight * self.total.log() - own - self.along)[:, 0]

    def place(self, tile: slice, num_classes: int) -> None:
        """Find the targets in a tile of the table."""
        width = tile.stop - tile.start
        if width == num_classes:
            self.column, self.inside = self.y, self.hard
            return
        column = self.y - tile.start
        self.inside = ((column >= 0) & (column < width)) * self.hard
        self.column = column.clamp_(0, width - 1)


def _identity(grad: Tensor) -> Tensor:
    return grad


HEADS: dict[str, type[Softmax]] = {
    "softmax": Softmax,
    "lmcl": LMCL,
    "arcface": ArcFace,
    "a-softmax": ASoftmax,
    "l-softmax": LSoftmax,
}


def head_of(classifier: Classifier, gradient: bool, dtype: torch.dtype, classes: int | None = None) -> Softmax:
    """The head of a classifier; of one that has part of the classes, `classes` are how many any has at most."""
    setting = classifier.setting
    params = [setting.to(dtype) if value != value else value for value in classifier.params]
    return HEADS[classifier.name](classifier.weight, classifier.bias, params, gradient, dtype, classes)
