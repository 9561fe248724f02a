"""SupCon between two towers: anchors against the keys of another set of rows, both with a gradient.

Two passes over tiles of anchors by keys, as in :mod:`.contrastive`: the first finds each anchor's denominator, the
second gives both gradients. Positives are class sums. Operations: 8·n·M·d, 2·n·M·d without a gradient. Memory beyond
the gradients: two tiles of logits, a block of anchors and of keys, the class sums of both sets.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from . import contrastive
from .contrastive import LOG2E, Running, number, scaled
from .tiles import add_rows, classes_of, gradient_dtype, may_hold, shaped, spans, take, wide_dtype, work_dtype


def cross_contrastive(
    z: Tensor,
    y: Tensor,
    ref_z: Tensor,
    ref_y: Tensor,
    row_weights: Tensor | None,
    learnt: Tensor | None,
    temperature: float,
    mean: bool,
    gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(loss, dz, dref_z, dτ) of :func:`fer_fast.reference.cross_supcon`, the last three (0,) without a gradient.

    z (n, d), y (n,), ref_z (M, d), ref_y (M,); rows with a negative label take part in nothing.
    """
    towers = _Towers.of(z, y, ref_z, ref_y, temperature if learnt is None else learnt)
    weight = (towers.positives > 0).to(towers.dtype)
    if row_weights is not None:
        weight = row_weights.to(towers.dtype).where(towers.positives > 0, 0)
    if mean:
        total = weight.sum()
        weight = weight / total.where(total != 0, 1)
    slopes = gradient and learnt is not None
    losses, mean_logits, log2_denominator, spoiled = _forward(towers, slopes)
    loss = ((weight * losses).where(weight != 0, 0).sum() + spoiled).to(towers.dtype)
    none = [t.new_empty((0,), dtype=gradient_dtype(t)) for t in (z, ref_z, z)]
    if not gradient:
        return loss, *none
    dz, dref = _gradients(towers, weight / towers.temperature, log2_denominator)
    dtemperature = none[2]
    if slopes:
        total = (weight * mean_logits).where(weight != 0, 0).sum()
        dtemperature = (-total / towers.temperature).to(gradient_dtype(learnt))
    return loss, dz.to(gradient_dtype(z)), dref.to(gradient_dtype(ref_z)), dtemperature


class _Towers(NamedTuple):
    """Both sets of rows, zeros in those left out, and where their classes are in the tables of class sums."""

    z: Tensor
    index: Tensor  # (n,)
    keys: Tensor
    keys_left_out: Tensor | None  # (M,); None where none is
    place: Tensor  # (M,), the last, `slots` - 1, for keys of no anchor's class
    slots: int
    positives: Tensor  # (n,), how many each anchor has
    temperature: float | Tensor
    scale: float | Tensor  # log₂e / τ
    dtype: torch.dtype

    @classmethod
    def of(cls, z: Tensor, y: Tensor, keys: Tensor, key_y: Tensor, temperature: float | Tensor) -> "_Towers":
        dtype, left_out, keys_left_out = work_dtype(z, keys), y < 0, key_y < 0
        classes, key_y = classes_of(y), key_y.long().contiguous()
        slots = len(classes.labels) + 1
        place = torch.searchsorted(classes.labels, key_y).clamp_(max=slots - 2)
        place = place.where((classes.labels[place] == key_y) & ~keys_left_out, slots - 1)
        counts = torch.zeros(slots, dtype=torch.int64, device=z.device).scatter_add_(0, place, torch.ones_like(place))
        positives = counts[classes.index].masked_fill(left_out, 0).to(dtype)
        if may_hold(left_out):
            z = z.masked_fill(left_out[:, None], 0)
        if may_hold(keys_left_out):
            keys = keys.masked_fill(keys_left_out[:, None], 0)
        else:
            keys_left_out = None
        if isinstance(temperature, Tensor):
            temperature = number(temperature, dtype)
        scale = LOG2E / temperature
        return cls(z, classes.index, keys, keys_left_out, place, slots, positives, temperature, scale, dtype)

    def tiles(self, rows: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Spans of the keys, their rows, and their products with anchors (r, d), -inf with keys left out."""
        tile = rows.new_empty(len(rows) * min(contrastive.KEYS, len(self.keys)))
        for span in spans(len(self.keys), contrastive.KEYS):
            keys = take(self.keys, span, self.dtype)
            products = torch.mm(rows, keys.T, out=shaped(tile, len(rows), len(keys)))
            if self.keys_left_out is not None:
                products.masked_fill_(self.keys_left_out[span], -torch.inf)
            yield span, keys, products

    def class_sums(self, rows: Tensor, place: Tensor, weight: Tensor | None = None) -> Tensor:
        """Sums of rows, times their weights, by their place: (slots, d), wide."""
        wide = wide_dtype(rows.device)
        sums = torch.zeros(self.slots, rows.shape[1], dtype=wide, device=rows.device)
        for block in spans(len(rows), contrastive.KEYS):
            taken = take(rows, block, wide)
            add_rows(sums, place[block], taken if weight is None else taken * weight[block, None])
        return sums


def _forward(towers: _Towers, slopes: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each anchor its loss, the mean logit of D less that of its positives, and log₂D, (n,), wide; and 0, or NaN
    where a row is not finite."""
    wide = wide_dtype(towers.z.device)
    positives = towers.class_sums(towers.keys, towers.place)
    denominator, mean_logit, attraction = torch.zeros(3, len(towers.z), dtype=wide, device=towers.z.device).unbind()
    spoiled = torch.zeros((), dtype=towers.dtype, device=towers.z.device)
    for block in spans(len(towers.z), contrastive.ANCHORS):
        rows = take(towers.z, block, towers.dtype)
        running = Running.start(rows, slopes)
        spoiled += rows.sum() * 0
        for _, keys, products in towers.tiles(rows):
            running.absorb(products, towers.scale, None)
            if block.start == 0:
                spoiled += keys.sum() * 0
        denominator[block] = running.log2_sum()
        attraction[block] = (rows * positives[towers.index[block]]).sum(1)
        if slopes:
            mean_logit[block] = running.mean_logit()
    attraction /= towers.positives.clamp(min=1) * towers.temperature
    return denominator / LOG2E - attraction, mean_logit / LOG2E - attraction, denominator, spoiled


def _gradients(towers: _Towers, weight: Tensor, log2_denominator: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_m w_i (P_im - p_im) k_m and Σ_i w_i (P_im - p_im) z_i, p_im = 1/|P(i)| for positives: (n, d), (M, d)."""
    pull = weight / towers.positives.clamp(min=1)
    of_keys = towers.class_sums(towers.keys, towers.place)
    of_anchors = towers.class_sums(towers.z, towers.index, pull)
    of_anchors[-1] = 0  # no anchor is of a class that has none
    # The shift a whole number, as in `contrastive`; 2^(logit - inf) is 0 whatever the logits of an anchor of weight 0.
    shift = log2_denominator.round()
    share = (weight * (shift - log2_denominator).exp2_()).where(weight != 0, 0).to(towers.dtype)
    minus_shift = -shift.where(weight != 0, torch.inf).to(towers.dtype)
    dz = torch.zeros(towers.z.shape, dtype=towers.dtype, device=towers.z.device)
    dkeys = torch.zeros(towers.keys.shape, dtype=towers.dtype, device=towers.z.device)
    for block in spans(len(dz), contrastive.ANCHORS):
        rows = take(towers.z, block, towers.dtype)
        for span, keys, products in towers.tiles(rows):
            p = scaled(products, towers.scale, minus_shift[block, None], products).exp2_().mul_(share[block, None])
            dz[block].addmm_(p, keys)
            dkeys[span].addmm_(p.T, rows)
        dz[block] -= of_keys[towers.index[block]] * pull[block, None]
    for span in spans(len(dkeys), contrastive.KEYS):
        dkeys[span] -= of_anchors[towers.place[span]]
    return dz, dkeys
