"""SelfCon, SupCon, ESC and ENSC as tiles of anchors by keys: an online log-sum-exp that also accumulates P·K.

Logits are to base 2, which costs a third of base e, and scaled by log₂e/τ in the fused multiply-add that takes their
maximum out: a large logit is never rounded by itself. Shapes: anchors (n, d), bank (M, d).
Operations: 4·n·M·d over the bank and 6·n²·d inside the batch; 2·n·(n+M)·d without a gradient. Memory beyond the
gradient: for each thread two tiles of logits and a tile of keys, the class sums of the batch, and for 16-bit features
with a bank the gradient once in float32.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..terms import ALONE, Peers, Setting, Share
from .running import LOG2E, Running, scaled
from .side_by_side import each_block, rows_each
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


def contrastive(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: Setting,
    mode: str,
    sample_weights: Tensor | None,
    reduction: str,
    gradient: bool,
    peers: Peers = ALONE,
    share: Share | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """L = Σ_i w_i l_i over anchors with a positive, l_i = log D_i - z_i·z̄_i/τ, z̄_i the mean of the other rows of i's
    class: (loss, dz, dτ).

    z (n, d), y (n,), bank_z (M, d), bank_y (M,); rows with a negative label take part in nothing. "selfcon" has rows i
    and i + n/2 for a class. D_i runs over the other rows of the batch, with "esc" also over the bank, with "ensc" over
    the bank's rows of other classes. w is `sample_weights` (n,), or one; the mean is over the weights of the anchors
    that count, and "none" gives w_i l_i (n,), 0 where an anchor does not count. τ has a gradient where it is learnt.

    Of rows that lie on several processes this one sweeps its `share`, and D of the others comes from them: dz, and what
    "none" gives, are of its rows.
    """
    batch = _Batch.of(z, y, bank_z, bank_y, temperature, mode, share)
    weight = (batch.positives > 0).to(batch.dtype)  # d loss / d log D_i
    if sample_weights is not None:
        weight = sample_weights.to(batch.dtype).where(batch.positives > 0, 0)
    if reduction == "mean":
        total = weight.sum()
        weight = weight / total.where(total != 0, 1)
    slopes = gradient and temperature.learnt is not None
    rows = _rows(batch, weight if gradient else None, True, slopes, sample_weights is not None, peers)
    losses = weight * rows.values
    loss = (losses[batch.own] if reduction == "none" else losses.sum()) + rows.spoiled
    dtemperature = _temperature_gradient(batch, weight, rows, temperature.learnt if slopes else None)
    return loss.to(batch.dtype), rows.dz, dtemperature


def log_denominator(
    z: Tensor, y: Tensor, bank_z: Tensor | None, bank_y: Tensor | None, temperature: Setting, mode: str
) -> Tensor:
    """log D_i of :func:`contrastive`: (n,).

    The denominator of a single row without a bank is empty, and so is that of a row with a negative label: -inf.
    """
    batch = _Batch.of(z, y, bank_z, bank_y, temperature, mode)
    return _rows(batch, None, False, False).values.to(batch.dtype)


def log_denominator_backward(
    grad: Tensor,
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: Setting,
    mode: str,
) -> tuple[Tensor, Tensor]:
    """Σ_i g_i d log D_i / dz (n, d), the rows of the batch being anchors and keys, and the same by τ."""
    batch = _Batch.of(z, y, bank_z, bank_y, temperature, mode)
    weight = batch.kept(grad.to(batch.dtype))
    rows = _rows(batch, weight, False, temperature.learnt is not None)
    return rows.dz.to(z.dtype), _temperature_gradient(batch, weight, rows, temperature.learnt)


class _Batch(NamedTuple):
    """The rows that are anchors and keys, and the bank, absent where no key comes from it."""

    z: Tensor  # zeros in the rows left out
    left_out: Tensor | None  # (n,), whose label is negative; None where none is
    classes: Classes
    positives: Tensor  # (n,), how many each row has
    place: Tensor  # (n, 1), the number of each row's class in the dtype of the logits: compared at their speed
    bank_z: Tensor | None
    bank_y: Tensor | None
    paired: bool  # whether positives are the two views of an image
    same_class_out: bool  # whether D leaves out the bank's rows of the anchor's class
    temperature: float | Tensor
    scale: float | Tensor  # log₂e / τ
    dtype: torch.dtype
    own: slice  # the rows whose part is computed here
    share: Share | None

    @classmethod
    def of(
        cls,
        z: Tensor,
        y: Tensor,
        bank_z: Tensor | None,
        bank_y: Tensor | None,
        temperature: Setting,
        mode: str,
        share: Share | None = None,
    ):
        dtype, left_out, paired = work_dtype(z), y < 0, mode == "selfcon"
        if paired:
            y = torch.arange(len(z) // 2, device=z.device).repeat(2).where(~left_out, -1)
        classes = classes_of(y)
        positives = (classes.counts[classes.index] - 1).to(dtype)
        if may_hold(left_out):
            z, positives = z.masked_fill(left_out[:, None], 0), positives.masked_fill(left_out, 0)
        else:
            left_out = None
        if mode not in ("esc", "ensc") or (bank_z is not None and len(bank_z) == 0):
            bank_z = bank_y = None
        learnt = temperature.learnt
        temperature = temperature.value if learnt is None else number(learnt, dtype)
        return cls(
            z,
            left_out,
            classes,
            positives,
            classes.index[:, None].to(dtype),
            bank_z,
            bank_y,
            paired,
            mode == "ensc",
            temperature,
            LOG2E / temperature,
            dtype,
            slice(0, len(z)) if share is None else share.own,
            share,
        )

    def kept(self, values: Tensor, otherwise: float = 0) -> Tensor:
        """Values (n,) but of rows left out."""
        return values if self.left_out is None else values.masked_fill(self.left_out, otherwise)

    def of_own(self, block: slice) -> slice:
        """Rows as those of a tensor that has own ones alone."""
        return slice(block.start - self.own.start, block.stop - self.own.start)

    def bank_place(self, span: slice) -> Tensor:
        """As `place` for rows of the bank, -1 for a class the batch does not have: (1, keys)."""
        labels, bank_y = self.classes.labels, self.bank_y[span].long().contiguous()
        found = torch.searchsorted(labels, bank_y).clamp_(max=len(labels) - 1)
        return found.where(labels[found] == bank_y, -1)[None].to(self.dtype)


def number(temperature: Tensor, dtype: torch.dtype) -> float | Tensor:
    """A temperature to compute with: looked at on the CPU, where that waits for nothing."""
    return temperature.item() if temperature.is_cpu else temperature.to(dtype)


class _Rows(NamedTuple):
    """What is found of each row of the batch."""

    values: Tensor  # (n,) wide: losses or log D
    slopes: Tensor  # (n,) wide: -τ d value / dτ, where asked for
    dz: Tensor  # (n, d), or (0,) without weights
    spoiled: Tensor  # (), 0 and NaN where a row of batch or bank is not finite, for a logit of -inf would not show it


def _rows(
    batch: _Batch,
    weight: Tensor | None,
    positives: bool,
    slopes: bool,
    uneven: bool = True,
    peers: Peers = ALONE,
) -> _Rows:
    """Loss or log D of each row and, with its `weight` (n,), the gradient of their weighted sum by own rows. Weights
    that are not `uneven` are the same for all rows of a class."""
    z, wide, counted, own = batch.z, wide_dtype(batch.z.device), batch.positives > 0, batch.own
    shape = own.stop - own.start, z.shape[1]
    dz = torch.empty((0,) if weight is None else shape, dtype=gradient_dtype(z), device=z.device)
    swept = weight is not None and batch.bank_z is not None
    # The bank's part of the gradient waits here until every D is known: in dz itself where that loses no digits.
    from_bank = torch.empty_like(dz, dtype=batch.dtype) if swept and dz.dtype != batch.dtype else dz
    parts = None
    if peers.sharded and batch.bank_z is not None:
        parts = _over_parts(batch, swept, slopes, peers)
        batch = batch._replace(bank_z=None)
    # Of each row log₂D, τ times its positives' mean logit, 0, or NaN where a key is not finite, and the mean logit.
    found = torch.zeros(3 + slopes, len(z), dtype=wide, device=z.device)
    if positives:
        others, pull = _pulls(batch, counted if weight is None else weight, uneven and weight is not None)

    log2_denominator, attraction, spoiled = found[:3]

    def sweep(block: slice) -> None:
        running = _sweep(batch, block, swept, slopes)
        if parts is not None:
            running.add(parts.rows(batch.of_own(block)), swept)
        log2_denominator[block] = running.log2_sum()
        if block.start == own.start:
            spoiled[block] = running.spoiled
        if positives:
            rest = others(block)
            attraction[block] = (take(z, block, rest.dtype) * rest).sum(1) / batch.positives[block].clamp(min=1)
        if slopes:
            found[3, block] = running.mean_logit()
        if swept:
            mean_key = running.mean_key(weight[block] / batch.temperature, log2_denominator[block])
            from_bank[batch.of_own(block)] = mean_key

    blocks = list(spans(own.stop, rows_each(max(shape[0], 1), ANCHORS, z.device), own.start))
    each_block(sweep, blocks, z.device)
    if batch.share is not None:
        found = peers.gather(batch.share, found[:, own].T)[0].T.contiguous()
        log2_denominator, attraction, spoiled = found[:3]
    log_denominator, mean_positive = log2_denominator / LOG2E, attraction / batch.temperature
    values = (log_denominator - mean_positive).where(counted, 0) if positives else log_denominator
    if weight is not None:
        in_batch = _batch_gradient(batch, weight / batch.temperature, log2_denominator)

        def write(block: slice) -> None:
            grad, at = in_batch(block), batch.of_own(block)
            if swept:
                grad += from_bank[at]
            if positives:
                grad -= pull(block)
            dz[at] = grad

        each_block(write, blocks, z.device)
    slope = found[3] / LOG2E - mean_positive if slopes else values[:0]
    return _Rows(values, slope, dz, spoiled.sum().to(batch.dtype))


def _temperature_gradient(batch: _Batch, weight: Tensor, rows: _Rows, learnt: Tensor | None) -> Tensor:
    """Σ_i w_i d l_i / dτ in the dtype that waits for the backward, (0,) where τ is not `learnt`."""
    if learnt is None:
        return batch.z.new_empty((0,), dtype=gradient_dtype(batch.z))
    total = (weight * rows.slopes).where(weight != 0, 0).sum()
    return (-total / batch.temperature).to(gradient_dtype(learnt))


def _other_view(batch: _Batch, weight: Tensor | None = None) -> Callable[[slice], Tensor]:
    """For a block of rows the row that is the other view of each, times its weight (n,): (r, d)."""
    half = len(batch.z) // 2

    def others(block: slice) -> Tensor:
        rows = (torch.arange(block.start, block.stop, device=batch.z.device) + half) % (2 * half)
        other = take(batch.z, rows, batch.dtype)
        return other if weight is None else other.mul_(weight[rows, None])

    return others


def _rest_of_class(batch: _Batch, weight: Tensor | None = None) -> Callable[[slice], Tensor]:
    """For a block of rows the sum of the other rows of each row's class, each times its weight (n,): (r, d), wide."""
    wide = wide_dtype(batch.z.device)

    def weighed(block: slice) -> Tensor:
        rows = take(batch.z, block, wide)
        return rows if weight is None else rows * weight[block, None]

    # In float32 as many equal rows as a batch holds would cost the sum three digits, all in one direction.
    sums = torch.zeros(len(batch.classes.labels), batch.z.shape[1], dtype=wide, device=batch.z.device)
    for block in spans(len(batch.z), KEYS):
        add_rows(sums, batch.classes.index[block], weighed(block))
    return lambda block: sums.index_select(0, batch.classes.index[block]).sub_(weighed(block))


def _pulls(batch: _Batch, weight: Tensor, uneven: bool) -> tuple[Callable[[slice], Tensor], Callable[[slice], Tensor]]:
    """For a block of rows the sums of their positives, and Σ_p (w_i + w_p) z_p / (|P_i| τ), (r, d) each."""
    of_positives = _other_view if batch.paired else _rest_of_class
    others, pull = of_positives(batch), weight / (batch.positives.clamp(min=1) * batch.temperature)
    if not uneven:
        return others, lambda block: others(block).mul_(2 * pull[block, None])
    weighted = of_positives(batch, pull)
    return others, lambda block: others(block).mul_(pull[block, None]).add_(weighted(block))


def _batch_tiles(batch: _Batch, block: slice) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Spans of the batch with their rows as keys and their products with a block of anchors, -inf with itself and where
    one of the two is left out."""
    anchors, left_out = take(batch.z, block, batch.dtype), batch.left_out
    tile = anchors.new_empty(len(anchors) * min(KEYS, len(batch.z)))
    for span in spans(len(batch.z), KEYS):
        keys = take(batch.z, span, batch.dtype)
        products = torch.mm(anchors, keys.T, out=shaped(tile, len(anchors), len(keys)))
        products.diagonal(block.start - span.start).fill_(-torch.inf)
        if left_out is not None:
            products.masked_fill_(left_out[block, None] | left_out[span], -torch.inf)
        yield span, keys, products


def _sweep(batch: _Batch, block: slice, weigh_keys: bool, slopes: bool) -> Running:
    """The sums of a block of anchors over every key of D. The first own block looks whether the keys are finite."""
    running = Running.start(take(batch.z, block, batch.dtype), slopes)
    for _, keys, products in _batch_tiles(batch, block):
        running.absorb(products, batch.scale, None)
        if block.start == batch.own.start:
            running.spoiled += keys.sum() * 0
    if batch.bank_z is not None:
        _sweep_bank(batch, block, running, weigh_keys)
    return running


def _sweep_bank(batch: _Batch, block: slice, running: Running, weigh_keys: bool) -> None:
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
        if batch.left_out is not None:
            products.masked_fill_(batch.left_out[block, None], -torch.inf)
        if batch.same_class_out:
            # A comparison into floats and a subtraction run at the speed of memory; a bool mask costs ten times that.
            torch.eq(batch.place[block], batch.bank_place(span), out=shaped(same, *products.shape))
            products.sub_(shaped(same, *products.shape), alpha=torch.finfo(batch.dtype).max / 4)
        running.absorb(products, batch.scale, keys if weigh_keys else None)
        if block.start == batch.own.start:
            running.spoiled += keys.sum() * 0


def _over_parts(batch: _Batch, weigh_keys: bool, slopes: bool, peers: Peers) -> Running:
    """The sums of own rows over a bank that lies on the processes in parts.

    Every row meets the part that is here. Its largest logit goes to all, and the sums from it to the row's process.
    """
    share, z = batch.share, batch.z
    everyone = batch._replace(own=slice(0, len(z)))  # of whom the first block looks whether the keys are finite
    sums = z.new_zeros(share.size * share.most, 1 + slopes + weigh_keys * z.shape[1], dtype=batch.dtype)
    found = Running.beside(sums, slopes)
    blocks, shifts = [], {}
    for rank in range(share.size):
        rows = share.of(rank)
        of_rank = list(spans(rows.stop, rows_each(len(z), ANCHORS, z.device), rows.start))
        shifts |= {block.start: rank * share.most - rows.start for block in of_rank}
        blocks += of_rank

    def sweep(block: slice) -> None:
        shift = shifts[block.start]
        at = slice(block.start + shift, block.stop + shift)
        running = found.rows(at)
        _sweep_bank(everyone, block, running, weigh_keys)
        found.highest[at] = running.highest

    each_block(sweep, blocks, z.device)
    found.total += found.spoiled
    found.raise_to(peers.maximum(found.highest), weigh_keys)
    own = Running.beside(peers.sum_of_part(share, sums), slopes)
    own.highest = found.highest[share.rank * share.most :][: len(own.total)]
    own.spoiled = own.total.sum() * 0
    return own


def _batch_gradient(batch: _Batch, weight: Tensor, log2_denominator: Tensor) -> Callable[[slice], Tensor]:
    """For a block of rows Σ_j (w_i P_ij + w_j P_ji) z_j over the batch, a row being an anchor and a key of others."""
    # 2^logit / D = 2^(logit - shift) · 2^(shift - log₂D), the shift a whole number: near logits lose nothing to it. A
    # row of weight 0 may have no denominator; 2^(logit - inf) is 0 whatever its logits are.
    counted = (weight != 0) & (log2_denominator != -torch.inf)
    shift = log2_denominator.round()
    weight = (weight * (shift - log2_denominator).exp2_()).where(counted, 0).to(batch.dtype)
    minus_shift = -shift.where(counted, torch.inf).to(batch.dtype)

    def of_rows(block: slice) -> Tensor:
        grad = torch.zeros_like(batch.z[block], dtype=batch.dtype, memory_format=torch.contiguous_format)
        second = grad.new_empty(len(grad) * min(KEYS, len(batch.z)))
        for span, keys, products in _batch_tiles(batch, block):
            as_key = scaled(products, batch.scale, minus_shift[span], shaped(second, *products.shape))
            as_anchor = scaled(products, batch.scale, minus_shift[block, None], products)
            as_anchor.exp2_().mul_(weight[block, None]).addcmul_(as_key.exp2_(), weight[span])
            grad.addmm_(as_anchor, keys)
        return grad

    return of_rows
