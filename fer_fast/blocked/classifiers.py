"""The classifier heads of the class-table engine: logits of a block of rows, their cross-entropy and its gradients.

A head says what the rows and the class table become before their product, and what becomes of the target's logit;
cross-entropy and its gradient products are the same for all. 6·n·C·d operations; 2·n·C·d without a gradient.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .tiles import add_rows, directions, gradient_dtype, wide_dtype

LOGITS = 2**20  # entries of a block of logits, however large C is: 4 MiB in float32

PullBack = Callable[[Tensor], Tensor]


class Target(NamedTuple):
    """The target's logit; where it is not a logit of the product shifted by a constant, its own derivatives."""

    logit: Tensor  # (r,)
    by_rows: Tensor | None = None  # (r, d)
    by_table: Tensor | None = None  # (r, d), by the target's row of the table


class Softmax:
    """f_j = w_j·x + b_j.   weight (C, d), bias (C,)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, params: list[float], gradient: bool, dtype: torch.dtype):
        self.weight, self.bias, self.gradient = weight, bias, gradient
        self.rows_per_block = max(LOGITS // len(weight), 1)
        self.table, self.to_weight = self.prepare_table(weight.to(dtype).contiguous())
        self.logits = torch.empty(self.rows_per_block, len(weight), dtype=dtype, device=weight.device)
        if gradient:
            self.table_grad = torch.zeros_like(self.table, memory_format=torch.contiguous_format)
            self.bias_grad = torch.zeros(len(weight) if bias is not None else 0, dtype=dtype, device=weight.device)
        self.configure(*params)

    def configure(self) -> None:
        """Take the hyper-parameters."""

    def prepare_table(self, weight: Tensor) -> tuple[Tensor, PullBack]:
        """What rows are multiplied by, (C, d), and the map from its gradient to the weight's."""
        return weight, _identity

    def prepare_rows(self, rows: Tensor) -> tuple[Tensor, PullBack]:
        """What is multiplied by the table, (r, d), and the map from its gradient to the rows'."""
        return rows, _identity

    def target(self, rows: Tensor, y: Tensor, logit: Tensor) -> Target:
        """The target's logit in force, from the one of the product (r,)."""
        return Target(logit)

    def visit(self, rows: Tensor, y: Tensor, weight: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Σ_i weight_i · cross-entropy_i of rows (r, d) with labels y (r,), and its gradient, in `out` where that is
        given. Adds to the table's."""
        features, to_rows = self.prepare_rows(rows)
        logits = torch.mm(features, self.table.T, out=self.logits[: len(rows)])
        if self.bias is not None:
            logits += self.bias
        target = self.target(rows, y, logits.gather(1, y[:, None])[:, 0])
        logits.scatter_(1, y[:, None], target.logit[:, None])
        # The maximum goes out before anything is added: a confident sample's small loss keeps its digits.
        highest = logits.amax(1, keepdim=True)
        own = target.logit - highest[:, 0]
        total = logits.sub_(highest).exp_().sum(1, keepdim=True)
        loss = (weight * (total[:, 0].log() - own)).sum(dtype=wide_dtype(rows.device))
        if not self.gradient:
            return loss, None
        residual = logits.mul_(weight[:, None] / total)
        return loss, self._backward(features, to_rows, y, target, weight, residual, out)

    def _backward(
        self,
        features: Tensor,
        to_rows: PullBack,
        y: Tensor,
        target: Target,
        weight: Tensor,
        residual: Tensor,
        out: Tensor | None,
    ) -> Tensor:
        """From the weighed probabilities (r, C), overwritten: the gradient of the rows; the table's is added up."""
        own = residual.gather(1, y[:, None]) - weight[:, None]
        residual.scatter_(1, y[:, None], own)
        if self.bias is not None:
            self.bias_grad += residual.sum(0)
        if target.by_rows is not None:
            residual.scatter_(1, y[:, None], 0)
            add_rows(self.table_grad, y, own * target.by_table)
        self.table_grad.addmm_(residual.T, features)
        grad = to_rows(torch.mm(residual, self.table, out=out))
        return grad if target.by_rows is None else grad.addcmul_(own, target.by_rows)

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Of weight (C, d) and bias (C,), in the dtypes they wait in."""
        bias_dtype = gradient_dtype(self.weight if self.bias is None else self.bias)
        return self.to_weight(self.table_grad).to(gradient_dtype(self.weight)), self.bias_grad.to(bias_dtype)


class LMCL(Softmax):
    """f_j = s·(cos θ_j - m·[j = y]).   weight (C, d)."""

    def configure(self, s: float, m: float) -> None:
        self.s, self.m = s, m

    def prepare_table(self, weight: Tensor) -> tuple[Tensor, PullBack]:
        rows = directions(weight)
        return rows.unit, rows.backward_

    def prepare_rows(self, rows: Tensor) -> tuple[Tensor, PullBack]:
        unit = directions(rows)
        return unit.unit * self.s, lambda grad: unit.backward_(grad.mul_(self.s))

    def target(self, rows: Tensor, y: Tensor, logit: Tensor) -> Target:
        return Target(logit - self.s * self.m)


class LSoftmax(Softmax):
    """f_j = ‖x‖ ‖w_j‖ cos θ_j, the target's cos θ_y replaced by (λ cos θ + ψ(θ)) / (1 + λ).   weight (C, d)."""

    unit_table = False

    def configure(self, m: float, lambda_: float) -> None:
        self.m, self.lambda_ = int(m), lambda_

    def target(self, rows: Tensor, y: Tensor, logit: Tensor) -> Target:
        own = self.table[y]
        u, v = directions(rows).unit, directions(own).unit
        # x·x̂ is a length whose square never exists, so it does not overflow.
        x_length, w_length = (rows * u).sum(1, keepdim=True), (own * v).sum(1, keepdim=True)
        cosine = (u * v).sum(1, keepdim=True)
        value, slope = blended_cosine(cosine, self.m, self.lambda_)
        logit = (x_length * w_length * value)[:, 0]
        if not self.gradient:
            return Target(logit)
        by_rows = w_length * (value * u + slope * (v - cosine * u))
        by_table = x_length * slope * (u - cosine * v)
        if not self.unit_table:  # on a unit row its chain rule takes this off again, and with it the sum's last digits
            by_table += x_length * value * v
        # A zero row has no direction to turn: it passes no gradient.
        return Target(logit, by_rows.masked_fill_(x_length == 0, 0), by_table.masked_fill_(w_length == 0, 0))


class ASoftmax(LSoftmax):
    """As L-softmax, with class weights of length one.   weight (C, d)."""

    unit_table = True

    def prepare_table(self, weight: Tensor) -> tuple[Tensor, PullBack]:
        rows = directions(weight)
        return rows.unit, rows.backward_


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
