"""The classifier heads of the class-table engine: logits of a block of rows, their cross-entropy and its gradients.

A head says what the rows become before their product with the class table, whether the table's rows count as unit rows,
and what becomes of the target's logit; cross-entropy and its gradient products are the same for all. 6·n·C·d
operations; 2·n·C·d without a gradient.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .tiles import (
    add_rows,
    directions,
    gradient_dtype,
    inverse_lengths,
    rows_per_block,
    spans,
    turn_,
    wide_dtype,
)

LOGITS = 2**20  # entries of a block of logits: 4 MiB in float32 ...
ROWS = 128  # ... or more: fewer rows make the products thin. At C = 100 000 49 MiB, 128/d of the weight's own size

PullBack = Callable[[Tensor], Tensor]


class Target(NamedTuple):
    """The target's logit where it is not the product's less a constant, with derivatives of its own.

    With `unit_table` they are by the unit row, and that by the rows is times the row's length: as a product's are.
    """

    logit: Tensor  # (r, 1)
    by_rows: Tensor  # (r, d)
    by_table: Tensor  # (r, d), by the target's row of the table


class Softmax:
    """f_j = w_j·x + b_j.   weight (C, d), bias (C,)."""

    unit_table = False  # whether the table's rows count as unit rows: then their lengths divide the logits
    copies_rows = False  # whether it makes tensors as large as the rows
    margin = 0.0  # taken off the target's logit

    def __init__(self, weight: Tensor, bias: Tensor | None, params: list[float], gradient: bool, dtype: torch.dtype):
        self.weight, self.bias, self.gradient = weight, bias, gradient
        self.rows_per_block = max(LOGITS // len(weight), ROWS)
        self.table = weight.to(dtype).contiguous()
        self.inverse = inverse_lengths(self.table) if self.unit_table else None
        self.logits: Tensor | None = None
        self.loss = torch.zeros((), dtype=wide_dtype(weight.device), device=weight.device)
        if gradient:
            self.table_grad = torch.zeros_like(self.table)
            self.bias_grad = torch.zeros(len(weight) if bias is not None else 0, dtype=dtype, device=weight.device)
        self.configure(*params)

    def configure(self) -> None:
        """Take the hyper-parameters."""

    def prepare_rows(self, rows: Tensor) -> tuple[Tensor, PullBack]:
        """What is multiplied by the table, (r, d), and the map from its gradient to the rows'."""
        return rows, _identity

    def target(self, rows: Tensor, y: Tensor) -> Target | None:
        """The target's logit of rows (r, d) with labels y (r,), where it is none of the product."""

    def visit(self, rows: Tensor, y: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor | None:
        """Add Σ_i weight_i · cross-entropy_i of rows (r, d) with labels y (r,) to the loss and its gradients to the
        table's; give the rows', in `out` where that is given."""
        features, to_rows = self.prepare_rows(rows)
        if self.logits is None:  # the first block is as large as any
            self.logits = features.new_empty(len(rows), len(self.table))
        logits = torch.mm(features, self.table.T, out=self.logits[: len(rows)])
        target, index, weight = self.target(rows, y), y[:, None], weight[:, None]
        # Passes over logits take so few rows at a time that these stay in a CPU's cache; a GPU would wait for launches.
        for part in spans(len(rows), rows_per_block(len(self.table)) if rows.is_cpu else len(rows)):
            own = None if target is None else target.logit[part]
            self._cross_entropy_(logits[part], index[part], weight[part], own)
        if not self.gradient:
            return None
        if target is not None:
            pull = logits.gather(1, index)
            logits.scatter_(1, index, 0)
            add_rows(self.table_grad, y, pull * target.by_table)
        self.table_grad.addmm_(logits.T, features)
        grad = to_rows(torch.mm(logits, self.table, out=out))
        return grad if target is None else grad.addcmul_(pull, target.by_rows)

    def _cross_entropy_(self, logits: Tensor, y: Tensor, weight: Tensor, own: Tensor | None) -> None:
        """Add Σ weight · cross-entropy of some rows to the loss, from their products with the table (r, C), labels and
        weights (r, 1), and targets' logits (r, 1) where these are others. The loss's derivatives by the products take
        their place."""
        if self.inverse is not None:
            logits *= self.inverse
        if self.bias is not None:
            logits += self.bias
        if self.margin:
            logits.scatter_add_(1, y, weight.new_full(y.shape, -self.margin))
        if own is not None:
            logits.scatter_(1, y, own)
        # The maximum goes out before anything is added: a confident sample's small loss keeps its digits.
        logits -= logits.amax(1, keepdim=True)
        own = logits.gather(1, y)
        total = logits.exp_().sum(1, keepdim=True)
        self.loss += (weight * (total.log() - own)).sum(dtype=self.loss.dtype)
        if self.gradient:
            logits *= weight / total
            logits.scatter_add_(1, y, -weight)
            if self.bias is not None:
                self.bias_grad += logits.sum(0)
            if self.inverse is not None:
                logits *= self.inverse

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Of weight (C, d) and bias (C,), in the dtypes they wait in."""
        bias_dtype = gradient_dtype(self.weight if self.bias is None else self.bias)
        if self.inverse is not None:
            for block in spans(len(self.table), rows_per_block(self.table.shape[1])):
                turn_(self.table_grad[block], self.table[block] * self.inverse[block, None])
        return self.table_grad.to(gradient_dtype(self.weight)), self.bias_grad.to(bias_dtype)


class LMCL(Softmax):
    """f_j = s·(cos θ_j - m·[j = y]).   weight (C, d)."""

    unit_table = True
    copies_rows = True

    def configure(self, s: float, m: float) -> None:
        self.s, self.margin = s, s * m

    def prepare_rows(self, rows: Tensor) -> tuple[Tensor, PullBack]:
        unit = directions(rows)
        return unit.unit * self.s, lambda grad: unit.backward_(grad.mul_(self.s))


class LSoftmax(Softmax):
    """f_j = ‖x‖ ‖w_j‖ cos θ_j, the target's cos θ_y replaced by (λ cos θ + ψ(θ)) / (1 + λ).   weight (C, d)."""

    copies_rows = True

    def configure(self, m: float, lambda_: float) -> None:
        self.m, self.lambda_ = int(m), lambda_

    def target(self, rows: Tensor, y: Tensor) -> Target:
        own = self.table.index_select(0, y)
        u, v = directions(rows).unit, directions(own).unit
        # x·x̂ is a length whose square never exists, so it does not overflow.
        x_length, w_length = (rows * u).sum(1, keepdim=True), (own * v).sum(1, keepdim=True)
        cosine = (u * v).sum(1, keepdim=True)
        value, slope = blended_cosine(cosine, self.m, self.lambda_)
        logit = x_length * value * (w_length.sign() if self.unit_table else w_length)
        by_rows = w_length * (value * u + slope * (v - cosine * u))
        by_table = x_length * slope * (u - cosine * v)
        if not self.unit_table:  # on a unit row its chain rule takes this off again, and with it the sum's last digits
            by_table += x_length * value * v
        # A zero row has no direction to turn: it passes no gradient.
        return Target(logit, by_rows.masked_fill_(x_length == 0, 0), by_table.masked_fill_(w_length == 0, 0))


class ASoftmax(LSoftmax):
    """As L-softmax, with class weights of length one.   weight (C, d)."""

    unit_table = True


def blended_cosine(cosine: Tensor, m: int, lambda_: float) -> tuple[Tensor, Tensor]:
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


def _identity(grad: Tensor) -> Tensor:
    return grad


HEADS: dict[str, type[Softmax]] = {"softmax": Softmax, "lmcl": LMCL, "a-softmax": ASoftmax, "l-softmax": LSoftmax}
