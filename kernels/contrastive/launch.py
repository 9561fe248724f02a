"""SelfCon, SupCon, ESC and ENSC, launched."""

from typing import NamedTuple

import torch
from torch import Tensor

from fer_fast.terms import ALONE, Peers, Setting, Share

from ..common.pair_tiles import LOG2E
from ..host.chips import Tile, chip, launch_options, pick_tile
from ..host.launch import (
    Launch,
    cdiv,
    dense_rows,
    gradient_dtype,
    own_first,
    pick_splits,
    processors,
    product_kind,
    product_precision,
    recall,
    start,
)
from ..host.sweep_tiles import SWEEP_TILES
from ..survey.launch import survey
from .add_parts import add_parts
from .batch_gradient import batch_gradient
from .combine import combine
from .finish import finish
from .settings import (
    ADD_BLOCK,
    ADD_WARPS,
    BATCH_TILES,
    COMBINE_COLUMNS,
    COMBINE_ROWS,
    COMBINE_WARPS,
    FINISH_BLOCK,
    FINISH_WARPS,
    largest_bound,
    product_raise,
    weight_shift,
)
from .sweep import sweep

_empty = torch.empty


class Mode(NamedTuple):
    """Who is in the denominator and what makes a positive."""

    bank: bool
    own_label: bool = False  # whether bank rows of the anchor's label count
    paired: bool = False  # positives are the two views, rows i and i + n/2


MODES = {
    "selfcon": Mode(bank=False, paired=True),
    "supcon": Mode(bank=False),
    "esc": Mode(bank=True, own_label=True),
    "ensc": Mode(bank=True),
}


class _Call(NamedTuple):
    """One call's tensors and settings, shared by its launches."""

    z: Tensor
    y: Tensor
    anchors: int  # the first rows, those of this process; keys are all
    labels: Tensor | None  # y in 32 bits
    bank_z: Tensor
    bank_y: Tensor
    bank_labels: Tensor | None
    bound: Tensor
    mode: Mode
    bank: bool
    scale: float | Tensor  # log₂e / τ
    inverse: float | Tensor  # 1 / τ
    tile: Tile  # of the sweep
    batch_tile: Tile
    shared: dict  # constexprs of both
    splits: int
    compiled: dict  # of :class:`Launch`

    def grid(self, tile: Tile) -> tuple[int, int]:
        """Tiles of rows by chunks of columns."""
        return cdiv(self.anchors, tile.block_m), cdiv(self.z.shape[1], tile.block_d)


def _prepare(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: Setting,
    mode: str,
    compiled: dict,
    anchors: int | None = None,
) -> _Call:
    rule, anchors = MODES[mode], len(z) if anchors is None else anchors
    bank = rule.bank and bank_z is not None and len(bank_z) > 0
    kind, family, d = product_kind(z.dtype), chip(z.device), z.shape[1]
    tile = pick_tile(SWEEP_TILES, family, kind, d)
    keys = len(z) + (len(bank_z) if bank else 0)
    splits = pick_splits(cdiv(anchors, tile.block_m), cdiv(keys, tile.block_n), processors(z.device))
    z, y = dense_rows(z), y.contiguous()
    shared = {
        "BANK": bank,
        "PAIRED": rule.paired,
        "SHIFT": weight_shift(z.dtype),
        "MOST": largest_bound(z.dtype),
    }
    keys = (dense_rows(bank_z), bank_y.contiguous()) if bank else (None, None)
    if temperature.learnt is None:
        scale, inverse = LOG2E.value / temperature.value, 1 / temperature.value
    else:  # in float64, so that it is rounded once as the number is
        scale, inverse = ((of / temperature.learnt.double()).float() for of in (LOG2E.value, 1.0))
    labels, bank_labels, bound = survey(z, y, *keys, scale, compiled)
    bank_z, bank_y = keys if bank else (z, y)
    batch_tile = pick_tile(BATCH_TILES, family, kind, d)
    call = (z, y, anchors, labels, bank_z, bank_y, bank_labels, bound, rule, bank, scale, inverse, tile, batch_tile)
    return _Call(*call, shared, splits, compiled)


def _sweep_keys(call: _Call, gradient: bool, slopes: bool) -> tuple[Tensor, Tensor]:
    z, bank_z, n = call.z, call.bank_z, call.anchors
    statistics = _empty((4 + slopes, call.splits, n), dtype=torch.float32, device=z.device)
    shape = (call.splits, n, z.shape[1]) if gradient and call.bank else (0,)
    values = _empty(shape, dtype=torch.float32, device=z.device)
    row_tiles, chunks = call.grid(call.tile)
    arguments = (
        z, call.y, call.labels, bank_z, call.bank_y, call.bank_labels, call.bound, statistics, values,
        n, len(z), len(bank_z), call.scale,
    )  # fmt: skip
    constants = {"d": z.shape[1], "z_stride": z.stride(0), "bank_stride": bank_z.stride(0)}
    constants |= {"OWN_LABEL": call.mode.own_label, "GRADIENT": gradient, "SLOPES": slopes}
    constants |= call.shared | call.tile.constexprs | call.tile.options
    grid = row_tiles, call.splits, chunks if gradient and call.bank else 1
    start(Launch(sweep, grid, arguments, constants, call.compiled))
    return statistics, values


class _Rows(NamedTuple):
    """What each row of the batch needs to know of all keys, (n,) each."""

    result: Tensor  # its loss or log D
    peak: Tensor
    share: Tensor
    pull: Tensor


def _combine_shares(
    call: _Call, statistics: Tensor, values: Tensor, weight: Tensor | None, positives: bool
) -> tuple[Tensor, _Rows]:
    """Each tile's losses, weights of the anchors that count and slopes, (3, tiles), and what rows need to know."""
    z, n = call.z, call.anchors
    rows = _Rows(*_empty((4, n), dtype=torch.float32, device=z.device))
    tiles = cdiv(n, COMBINE_ROWS)
    partial = _empty((3, tiles), dtype=torch.float32, device=z.device)
    join = call.splits > 1 and values.numel() > 0
    arguments = (
        z, call.y, call.bound, statistics, values, weight, *rows, partial,
        n, z.shape[1], z.stride(0), call.splits, call.scale,
    )  # fmt: skip
    constants = {"PAIRED": call.mode.paired, "JOIN": join, "POSITIVES": positives, "SLOPES": len(statistics) > 4}
    constants |= {"RAISE": product_raise(z.dtype), "BLOCK": COMBINE_ROWS, "BLOCK_D": COMBINE_COLUMNS}
    grid = tiles, cdiv(z.shape[1], COMBINE_COLUMNS) if join else 1, 1
    start(Launch(combine, grid, arguments, constants | launch_options(COMBINE_WARPS), call.compiled))
    return partial, rows


def _of_rows(call: _Call, positives: bool) -> Tensor:
    """Losses of anchors, 0 where one does not count, or without `positives` log D_i: (n,)."""
    return _combine_shares(call, *_sweep_keys(call, False, False), None, positives)[1].result


def _finish(
    call: _Call, partial: Tensor, mean: bool, positives: bool, largest: float | Tensor, learnt: Tensor | None
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """The loss (), if there are `positives`, dz's factor () and the derivative () by what is `learnt`."""
    loss, factor, slope = (_empty((), dtype=torch.float32, device=partial.device) for _ in range(3))
    loss, slope = loss if positives else None, None if learnt is None else slope
    arguments = partial, loss, factor, slope, partial.shape[1], call.inverse, largest
    constants = {"MEAN": mean, "RAISE": product_raise(call.z.dtype), "BLOCK": FINISH_BLOCK}
    start(Launch(finish, (1, 1, 1), arguments, constants | launch_options(FINISH_WARPS), call.compiled))
    return loss, factor, slope


def _exchanged(partial: Tensor, rows: _Rows, peers: Peers, share: Share) -> tuple[Tensor, _Rows]:
    """The sums of each process (3, R), and what is known of the rows of all, own ones first: in one buffer, in which
    each process's sums stand behind its rows."""
    counts = share.counts or (share.most,) * share.size
    more = share._replace(most=share.most + 1, counts=tuple(count + 1 for count in counts))
    own = torch.cat([torch.stack(rows[1:], 1), partial.sum(1)[None]])
    parts = peers.gather(more, own)[0].split(more.counts)
    of_rows = torch.cat([part[:-1] for part in (*parts[share.rank :], *parts[: share.rank])])
    return torch.stack([part[-1] for part in parts], 1), _Rows(rows.result, *of_rows.T.contiguous())


def _gradient(
    call: _Call, values: Tensor, rows: _Rows, factor: Tensor, weighted: bool, positives: bool, dtype: torch.dtype
) -> Tensor:
    n, d = call.anchors, call.z.shape[1]
    dz = _empty((n, d), dtype=dtype, device=call.z.device)
    tile = call.batch_tile
    row_tiles, chunks = call.grid(tile)
    splits = pick_splits(row_tiles * chunks, cdiv(len(call.z), tile.block_n), processors(dz.device))
    parts = dz if splits == 1 else _empty((splits, n, d), dtype=torch.float32, device=dz.device)
    arguments = call.z, call.y, call.labels, call.bound, *rows[1:], values, factor, parts, n, len(call.z), call.scale
    constants = {"d": d, "z_stride": call.z.stride(0), "POSITIVES": positives, "WEIGHTED": weighted}
    constants |= call.shared | tile.constexprs | tile.options
    start(Launch(batch_gradient, (row_tiles, splits, chunks), arguments, constants, call.compiled))
    if splits > 1:
        constants = {"BLOCK": ADD_BLOCK, **launch_options(ADD_WARPS)}
        start(Launch(add_parts, (cdiv(n * d, ADD_BLOCK), 1, 1), (parts, dz, n * d, splits), constants, call.compiled))
    return dz


def _evaluate(
    call: _Call,
    weight: Tensor | None,
    learnt: Tensor | None,
    mean: bool,
    positives: bool,
    gradient: bool,
    dtype: torch.dtype,
    peers: Peers = ALONE,
    share: Share | None = None,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Loss (), if there are `positives`, dz (n, d) in `dtype` and the derivative () by what is `learnt`; (0,) without
    a `gradient`."""
    none, largest = _empty((0,), dtype=dtype, device=call.z.device), 1.0
    if weight is not None:
        # Weights of at most 1, whatever the scale of a gradient: float16 products could overflow.
        largest = weight.abs().amax().float()
        weight = weight.float() / largest.where(largest != 0, 1)
    learnt = learnt if gradient else None
    statistics, values = _sweep_keys(call, gradient, learnt is not None)
    partial, rows = _combine_shares(call, statistics, values, weight, positives)
    if share is not None:
        partial, rows = _exchanged(partial, rows, peers, share)
    loss, factor, slope = _finish(call, partial, mean, positives, 1.0 if mean else largest, learnt)
    dz = _gradient(call, values, rows, factor, weight is not None, positives, dtype) if gradient else none
    return loss, dz, none if slope is None else slope.to(gradient_dtype(learnt))


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
    kind: dict | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss () in float32, dz (n, d) and dτ () of SelfCon, SupCon, ESC or ENSC; the package's docstring has the
    equations.

    z (n, d) of any length, y (n,) (of SelfCon, whose rows i and i + n/2 are the pair, only the sign counts); the bank,
    frozen, bank_z (M, d) of any float dtype and bank_y (M,). Rows with a negative label take part in nothing. w is
    `sample_weights` (n,) or one. The reduction "none" gives w_i l_i (n,), 0 where an anchor does not count. Without
    `gradient` dz is (0,), and so is dτ unless it is learnt. dz of float16 rows is float32: it still awaits the loss
    scale. Of rows that lie on several processes this one's `share` are the anchors: dz, and what "none" gives, are of
    them. `kind` remembers what was compiled for calls alike in all but the values of tensors, all of them aligned.
    """
    if peers.sharded and bank_z is not None and MODES[mode].bank:
        raise NotImplementedError("a bank that lies in parts on several processes")
    compiled, anchors = recall(kind, (product_precision(), gradient), dict), len(z)
    if share is not None:
        z, y, sample_weights = own_first(share, z, y, sample_weights)
        anchors = share.own.stop - share.own.start
    call = _prepare(z, y, bank_z, bank_y, temperature, mode, compiled, anchors)
    learnt, dtype = temperature.learnt, gradient_dtype(z)
    if reduction == "none":
        losses = _of_rows(call, positives=True)
        losses = losses if sample_weights is None else losses * sample_weights[:anchors].float()
        of_temperature = gradient_dtype(z if learnt is None else learnt)
        return losses, *(_empty((0,), dtype=of, device=z.device) for of in (dtype, of_temperature))
    return _evaluate(call, sample_weights, learnt, reduction == "mean", True, gradient, dtype, peers, share)


def log_denominator(
    z: Tensor, y: Tensor, bank_z: Tensor | None, bank_y: Tensor | None, temperature: Setting, mode: str
) -> Tensor:
    """log D_i: (n,) in float32, -inf for a single row without a bank, and for a row with a negative label."""
    return _of_rows(_prepare(z, y, bank_z, bank_y, temperature, mode, {}), positives=False)


def log_denominator_backward(
    grad: Tensor,
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: Setting,
    mode: str,
) -> tuple[Tensor, Tensor]:
    """dz (n, d) and dτ () of Σ_i grad_i log D_i, whose D are found again."""
    call = _prepare(z, y, bank_z, bank_y, temperature, mode, {})
    return _evaluate(call, grad, temperature.learnt, False, False, True, z.dtype)[1:]
