"""SelfCon, SupCon, ESC and ENSC as tiles of anchors by keys: an online log-sum-exp that also accumulates P·K.

Logits are to base 2, which costs a third of base e, and scaled by log₂e/τ in the fused multiply-add that takes their
maximum out: a large logit is never rounded by itself. Shapes: anchors (n, d), bank (M, d).
Operations: 4·n·M·d over the bank and 6·n²·d inside the batch; 2·n·(n+M)·d without a gradient. Memory beyond the
gradient: two tiles of logits, a tile of keys, the class sums of the batch, and for 16-bit features with a bank the
gradient once in float32.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .tiles import (
    Classes,
    add_rows,
    classes_of,
    gradient_dtype,
    may_hold,
    shaped,
    spans,
    take,
    wide_dtype,
    work_dtype,
)

ANCHORS, KEYS = 512, 1024  # a float32 tile of logits is 2 MiB: the second-level caches of two cores
LOG2E = math.log2(math.e)


def contrastive(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: float,
    mode: str,
    mean: bool,
    gradient: bool,
) -> tuple[Tensor, Tensor]:
    """L = Σ_i (log D_i - z_i·z̄_i/τ), z̄_i the mean of the other rows of i's class: (loss, dz).

    z (n, d), y (n,), bank_z (M, d), bank_y (M,), negative where the bank is not filled. "selfcon" has rows i and
    i + n/2 for a class. D_i runs over the other rows of the batch, with "esc" also over the bank, with "ensc" over
    the bank's rows of other classes. The mean is over anchors that have a positive; the others lose nothing.
    """
    if mode == "selfcon":
        y = torch.arange(len(z) // 2, device=z.device).repeat(2)
    batch = _Batch.of(z, y, bank_z, bank_y, temperature, mode)
    positives = (batch.classes.counts[batch.classes.index] - 1).to(batch.dtype)
    counted = positives > 0
    weight = counted.to(batch.dtype)  # d loss / d log D_i
    if mean:
        weight /= counted.sum().clamp(min=1)
    pull = weight / (positives.clamp(min=1) * temperature)

    others = _other_view(batch) if mode == "selfcon" else _rest_of_class(batch)
    dz = torch.empty(z.shape if gradient else (0,), dtype=gradient_dtype(z), device=z.device)
    swept = gradient and batch.bank_z is not None
    # The bank's part of the gradient waits here until every D is known: in dz itself where that loses no digits.
    from_bank = torch.empty_like(dz, dtype=batch.dtype) if swept and dz.dtype != batch.dtype else dz
    attraction = torch.empty_like(weight)
    log2_denominator = torch.empty_like(weight, dtype=wide_dtype(z.device))
    for block in spans(len(z), ANCHORS):
        rows = take(z, block, batch.dtype)
        attraction[block] = (rows * others(block)).sum(1)
        running = _sweep(batch, block, weigh_keys=gradient)
        log2_denominator[block] = running.log2_sum()
        if swept:
            from_bank[block] = running.mean_key(weight[block] / temperature, log2_denominator[block])
    loss = (weight * log2_denominator / LOG2E - pull * attraction).where(counted, 0).sum()
    if gradient:
        for block, grad in _batch_gradient(batch, weight / temperature, log2_denominator):
            if swept:
                grad += from_bank[block]
            dz[block] = grad.sub_(others(block).mul_(2 * pull[block, None]))
    return loss.to(batch.dtype), dz


def contrastive_log_denominator(
    z: Tensor, y: Tensor, bank_z: Tensor | None, bank_y: Tensor | None, temperature: float, mode: str
) -> Tensor:
    """log D_i of :func:`contrastive`: (n,). A single row without a bank has an empty denominator: -inf."""
    batch = _Batch.of(z, y, bank_z, bank_y, temperature, mode)
    result = torch.empty(len(z), dtype=batch.dtype, device=z.device)
    for block in spans(len(z), ANCHORS):
        result[block] = _sweep(batch, block, weigh_keys=False).log2_sum() / LOG2E
    return result


def contrastive_log_denominator_backward(
    grad: Tensor,
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: float,
    mode: str,
    log_denominator: Tensor,
) -> Tensor:
    """Σ_i g_i d log D_i / dz, the rows of the batch being anchors and keys: (n, d).

    log D as given has lost digits: rounded to float32 it would put 1e-5 into every probability at τ = 0.005. It only
    says where a row's largest logits lie, and D is summed again beside the keys of the bank.
    """
    batch = _Batch.of(z, y, bank_z, bank_y, temperature, mode)
    weight = grad.to(batch.dtype) / temperature
    near = log_denominator.to(batch.dtype) * LOG2E
    dz = torch.empty(z.shape, dtype=z.dtype, device=z.device)
    from_bank = dz if dz.dtype == batch.dtype else torch.empty_like(dz, dtype=batch.dtype)
    log2_denominator = torch.empty_like(weight, dtype=wide_dtype(z.device))
    for block in spans(len(z), ANCHORS):
        running = _sweep(batch, block, weigh_keys=True, near=near[block])
        log2_denominator[block] = running.log2_sum()
        from_bank[block] = running.mean_key(weight[block], log2_denominator[block])
    for block, rows in _batch_gradient(batch, weight, log2_denominator):
        dz[block] = rows.add_(from_bank[block])
    return dz


class _Batch(NamedTuple):
    """The rows that are anchors and keys, and the bank, absent where no key comes from it."""

    z: Tensor
    classes: Classes
    place: Tensor  # (n, 1), the number of each row's class in the dtype of the logits: compared at their speed
    bank_z: Tensor | None
    bank_y: Tensor | None
    same_class_out: bool  # whether D leaves out the bank's rows of the anchor's class
    scale: float  # log₂e / τ
    dtype: torch.dtype

    @classmethod
    def of(cls, z: Tensor, y: Tensor, bank_z: Tensor | None, bank_y: Tensor | None, temperature: float, mode: str):
        dtype, classes = work_dtype(z), classes_of(y)
        if mode not in ("esc", "ensc") or (bank_z is not None and len(bank_z) == 0):
            bank_z = bank_y = None
        place = classes.index[:, None].to(dtype)
        return cls(z, classes, place, bank_z, bank_y, mode == "ensc", LOG2E / temperature, dtype)

    def bank_place(self, span: slice) -> Tensor:
        """As `place` for rows of the bank, -1 for a class the batch does not have: (1, keys)."""
        labels, bank_y = self.classes.labels, self.bank_y[span].long().contiguous()
        found = torch.searchsorted(labels, bank_y).clamp_(max=len(labels) - 1)
        return found.where(labels[found] == bank_y, -1)[None].to(self.dtype)


@dataclass
class _Running:
    """Of the logits seen so far: the maxima of the rows, Σ 2^(logit - maximum), and the same sum weighing the keys."""

    highest: Tensor  # (r, 1)
    total: Tensor  # (r, 1)
    weighted: Tensor  # (r, d)

    @classmethod
    def start(cls, rows: Tensor, near: Tensor | None) -> "_Running":
        # Finite: where every logit is -inf, differences from the maximum must not be NaN.
        lowest = torch.finfo(rows.dtype).min / 16
        highest = torch.full_like(rows[:, :1], lowest) if near is None else near[:, None].clamp(min=lowest)
        return cls(highest, torch.zeros_like(highest), torch.zeros_like(rows))

    def absorb(self, products: Tensor, scale: float, keys: Tensor | None) -> None:
        """Take in a tile of products (r, c), overwritten, and the keys (c, d) where they are to be weighed."""
        highest = torch.maximum(self.highest, products.amax(1, keepdim=True).mul_(scale))
        shrink = (self.highest - highest).exp2_()
        logits = torch.add(-highest, products, alpha=scale, out=products).exp2_()
        self.total.mul_(shrink).add_(logits.sum(1, keepdim=True))
        if keys is not None:
            self.weighted.mul_(shrink).addmm_(logits, keys)
        self.highest = highest

    def log2_sum(self) -> Tensor:
        """log₂ Σ 2^logit, wide: (r,)."""
        wide = wide_dtype(self.total.device)
        return (self.highest.to(wide) + self.total.to(wide).log2())[:, 0]

    def mean_key(self, weight: Tensor, log2_denominator: Tensor) -> Tensor:
        """w_i Σ (2^logit / D_i)·key over the keys weighed so far: (r, d). Overwrites the sums."""
        share = weight * (self.highest[:, 0] - log2_denominator).exp2_()
        share.masked_fill_(log2_denominator == -torch.inf, 0)  # no key has been weighed
        return self.weighted.mul_(share.to(self.weighted.dtype)[:, None])


def _other_view(batch: _Batch) -> Callable[[slice], Tensor]:
    """For a block of rows the row that is the other view of each: (r, d)."""
    half = len(batch.z) // 2

    def others(block: slice) -> Tensor:
        rows = torch.arange(block.start, block.stop, device=batch.z.device)
        return take(batch.z, (rows + half) % (2 * half), batch.dtype)

    return others


def _rest_of_class(batch: _Batch) -> Callable[[slice], Tensor]:
    """For a block of rows the sum of the other rows of each row's class: (r, d)."""
    sums = torch.zeros(len(batch.classes.labels), batch.z.shape[1], dtype=batch.dtype, device=batch.z.device)
    for block in spans(len(batch.z), KEYS):
        add_rows(sums, batch.classes.index[block], take(batch.z, block, batch.dtype))
    return lambda block: sums.index_select(0, batch.classes.index[block]) - take(batch.z, block, batch.dtype)


def _batch_tiles(batch: _Batch, block: slice) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Spans of the batch with their rows as keys and their products with a block of anchors, -inf with itself."""
    anchors = take(batch.z, block, batch.dtype)
    tile = anchors.new_empty(len(anchors) * min(KEYS, len(batch.z)))
    for span in spans(len(batch.z), KEYS):
        keys = take(batch.z, span, batch.dtype)
        products = torch.mm(anchors, keys.T, out=shaped(tile, len(anchors), len(keys)))
        products.diagonal(block.start - span.start).fill_(-torch.inf)
        yield span, keys, products


def _sweep(batch: _Batch, block: slice, weigh_keys: bool, near: Tensor | None = None) -> _Running:
    """The sums of a block of anchors over every key of D; `near`, (r,), says where their largest logits may lie."""
    running = _Running.start(take(batch.z, block, batch.dtype), near)
    for _, _, products in _batch_tiles(batch, block):
        running.absorb(products, batch.scale, None)
    if batch.bank_z is not None:
        _sweep_bank(batch, block, running, weigh_keys)
    return running


def _sweep_bank(batch: _Batch, block: slice, running: _Running, weigh_keys: bool) -> None:
    anchors = take(batch.z, block, batch.dtype)
    tile, same = anchors.new_empty(2, len(anchors) * min(KEYS, len(batch.bank_z))).unbind()
    for span in spans(len(batch.bank_z), KEYS):
        keys = take(batch.bank_z, span, batch.dtype)
        unfilled = batch.bank_y[span] < 0
        some_unfilled = may_hold(unfilled)
        if some_unfilled:
            keys = keys.masked_fill(unfilled[:, None], 0)
        products = torch.mm(anchors, keys.T, out=shaped(tile, len(anchors), len(keys)))
        if some_unfilled:
            products.masked_fill_(unfilled, -torch.inf)
        if batch.same_class_out:
            # A comparison into floats and a subtraction run at the speed of memory; a bool mask costs ten times that.
            torch.eq(batch.place[block], batch.bank_place(span), out=shaped(same, *products.shape))
            products.sub_(shaped(same, *products.shape), alpha=torch.finfo(batch.dtype).max / 4)
        running.absorb(products, batch.scale, keys if weigh_keys else None)


def _batch_gradient(batch: _Batch, weight: Tensor, log2_denominator: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows and Σ_j (w_i P_ij + w_j P_ji) z_j over the batch, a row being an anchor and a key of others."""
    # 2^logit / D = 2^(logit - shift) · 2^(shift - log₂D), the shift a whole number: near logits lose nothing to it. A
    # row of weight 0 may have no denominator; 2^(logit - inf) is 0 whatever its logits are.
    counted = (weight != 0) & (log2_denominator != -torch.inf)
    shift = log2_denominator.round()
    weight = (weight * (shift - log2_denominator).exp2_()).where(counted, 0).to(batch.dtype)
    minus_shift = -shift.where(counted, torch.inf).to(batch.dtype)
    for block in spans(len(batch.z), ANCHORS):
        grad = torch.zeros_like(batch.z[block], dtype=batch.dtype, memory_format=torch.contiguous_format)
        second = grad.new_empty(len(grad) * min(KEYS, len(batch.z)))
        for span, keys, products in _batch_tiles(batch, block):
            as_key = torch.add(minus_shift[span], products, alpha=batch.scale, out=shaped(second, *products.shape))
            as_anchor = torch.add(minus_shift[block, None], products, alpha=batch.scale, out=products)
            as_anchor.exp2_().mul_(weight[block, None]).addcmul_(as_key.exp2_(), weight[span])
            grad.addmm_(as_anchor, keys)
        yield block, grad
