"""SelfCon, SupCon, ESC and ENSC, launched."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..common.pair_tiles import LOG2E
from ..host.chips import Tile, chip, launch_options, pick_tile
from ..host.launch import cdiv, dense_rows, gradient_dtype, pick_splits, processors, product_kind
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


class _Launch(NamedTuple):
    """One call's tensors and settings, shared by its launches."""

    z: Tensor
    y: Tensor
    labels: Tensor | None  # y in 32 bits
    bank_z: Tensor
    bank_y: Tensor
    bank_labels: Tensor | None
    bound: Tensor
    mode: Mode
    bank: bool
    temperature: float
    tile: Tile  # of the sweep
    batch_tile: Tile
    shared: dict  # constexprs of both
    splits: int

    @property
    def scale(self) -> float:
        return LOG2E.value / self.temperature

    def grid(self, tile: Tile) -> tuple[int, int]:
        """Tiles of rows by chunks of columns."""
        return cdiv(len(self.z), tile.block_m), cdiv(self.z.shape[1], tile.block_d)


def _prepare(z: Tensor, y: Tensor, bank_z: Tensor | None, bank_y: Tensor | None, temperature: float, mode: str):
    rule = MODES[mode]
    bank = rule.bank and bank_z is not None and len(bank_z) > 0
    kind, family, d = product_kind(z.dtype), chip(z.device), z.shape[1]
    tile = pick_tile(SWEEP_TILES, family, kind, d)
    keys = len(z) + (len(bank_z) if bank else 0)
    splits = pick_splits(cdiv(len(z), tile.block_m), cdiv(keys, tile.block_n), processors(z.device))
    z, y = dense_rows(z), y.contiguous()
    shared = {
        "BANK": bank,
        "PAIRED": rule.paired,
        "SHIFT": weight_shift(z.dtype),
        "MOST": largest_bound(z.dtype),
    }
    keys = (dense_rows(bank_z), bank_y.contiguous()) if bank else (None, None)
    labels, bank_labels, bound = survey(z, None if rule.paired else y, *keys, LOG2E.value / temperature)
    bank_z, bank_y = keys if bank else (z, y)
    batch_tile = pick_tile(BATCH_TILES, family, kind, d)
    call = (z, y, labels, bank_z, bank_y, bank_labels, bound, rule, bank, temperature, tile, batch_tile, shared, splits)
    return _Launch(*call)


def _sweep_keys(call: _Launch, gradient: bool) -> tuple[Tensor, Tensor]:
    z, bank_z = call.z, call.bank_z
    statistics = _empty((4, call.splits, len(z)), dtype=torch.float32, device=z.device)
    shape = (call.splits, *z.shape) if gradient and call.bank else (0,)
    values = _empty(shape, dtype=torch.float32, device=z.device)
    row_tiles, chunks = call.grid(call.tile)
    sweep[row_tiles, call.splits, chunks if gradient and call.bank else 1](
        z, call.y, call.labels, bank_z, call.bank_y, call.bank_labels, call.bound, statistics, values,
        len(z), len(bank_z), call.scale, d=z.shape[1], z_stride=z.stride(0), bank_stride=bank_z.stride(0),
        OWN_LABEL=call.mode.own_label, GRADIENT=gradient,
        **call.shared, **call.tile.constexprs, **call.tile.options,
    )  # fmt: skip
    return statistics, values


class _Rows(NamedTuple):
    """What each row of the batch needs to know of all keys, (n,) each."""

    log_denominator: Tensor
    peak: Tensor
    share: Tensor
    pull: Tensor


def _combine_shares(
    call: _Launch, statistics: Tensor, values: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, _Rows]:
    """Each tile's losses and anchors that count, (2, tiles), and what rows need to know."""
    z = call.z
    rows = _Rows(*_empty((4, len(z)), dtype=torch.float32, device=z.device))
    tiles = cdiv(len(z), COMBINE_ROWS)
    partial = _empty((2, tiles), dtype=torch.float32, device=z.device)
    join = call.splits > 1 and values.numel() > 0
    combine[tiles, cdiv(z.shape[1], COMBINE_COLUMNS) if join else 1](
        z, call.bound, statistics, values, statistics if weight is None else weight, *rows, partial,
        *z.shape, z.stride(0), call.splits, call.scale,
        PAIRED=call.mode.paired, JOIN=join, WEIGHTED=weight is not None, RAISE=product_raise(z.dtype),
        BLOCK=COMBINE_ROWS, BLOCK_D=COMBINE_COLUMNS, **launch_options(COMBINE_WARPS),
    )  # fmt: skip
    return partial, rows


def _finish(call: _Launch, partial: Tensor, mean: bool) -> tuple[Tensor, Tensor]:
    """The loss () and dz's factor ()."""
    loss, factor = (_empty((), dtype=torch.float32, device=partial.device) for _ in range(2))
    scale = 2.0 ** -product_raise(call.z.dtype) / call.temperature
    options = launch_options(FINISH_WARPS)
    finish[1,](partial, loss, factor, partial.shape[1], scale, MEAN=mean, BLOCK=FINISH_BLOCK, **options)
    return loss, factor


def _gradient(
    call: _Launch, values: Tensor, rows: _Rows, factor: Tensor, positives: bool, dtype: torch.dtype
) -> Tensor:
    n, d = call.z.shape
    dz = _empty((n, d), dtype=dtype, device=call.z.device)
    tile = call.batch_tile
    row_tiles, chunks = call.grid(tile)
    splits = pick_splits(row_tiles * chunks, cdiv(n, tile.block_n), processors(dz.device))
    parts = dz if splits == 1 else _empty((splits, n, d), dtype=torch.float32, device=dz.device)
    batch_gradient[row_tiles, splits, chunks](
        call.z, call.y, call.labels, call.bound, *rows[1:], values, factor, parts, n, call.scale,
        d=d, z_stride=call.z.stride(0), POSITIVES=positives, **call.shared, **tile.constexprs, **tile.options,
    )  # fmt: skip
    if splits > 1:
        add_parts[cdiv(n * d, ADD_BLOCK),](parts, dz, n * d, splits, BLOCK=ADD_BLOCK, **launch_options(ADD_WARPS))
    return dz


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
    """Loss () in float32 and dz (n, d) of SelfCon, SupCon, ESC or ENSC; the package's docstring has the equations.

    z (n, d) of any length, y (n,) any int64 (SelfCon ignores it: rows i and i + n/2 are the pair); the bank, frozen,
    bank_z (M, d) of any float dtype and bank_y (M,), negative where a row is not filled. Without `gradient` dz is (0,).
    dz of float16 rows is float32: it still awaits the loss scale.
    """
    call = _prepare(z, y, bank_z, bank_y, temperature, mode)
    statistics, values = _sweep_keys(call, gradient)
    partial, rows = _combine_shares(call, statistics, values)
    loss, factor = _finish(call, partial, mean)
    if not gradient:
        return loss, _empty((0,), dtype=gradient_dtype(z), device=z.device)
    return loss, _gradient(call, values, rows, factor, True, gradient_dtype(z))


def contrastive_log_denominator(
    z: Tensor, y: Tensor, bank_z: Tensor | None, bank_y: Tensor | None, temperature: float, mode: str
) -> Tensor:
    """log D_i (n,) in float32; -inf for a single row without a bank."""
    call = _prepare(z, y, bank_z, bank_y, temperature, mode)
    statistics, values = _sweep_keys(call, gradient=False)
    return _combine_shares(call, statistics, values)[1].log_denominator


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
    """dz (n, d) of Σ_i grad_i log D_i: P with the weights grad_i in place of the loss's.

    The sweep that sums the bank's values finds D again, in more digits than the given `log_denominator` has.
    """
    call = _prepare(z, y, bank_z, bank_y, temperature, mode)
    statistics, values = _sweep_keys(call, gradient=True)
    # Weights of at most 1, whatever the scale of the incoming gradient: float16 products could overflow.
    largest = grad.abs().amax().float()
    weight = grad.float() / largest.where(largest != 0, 1)
    rows = _combine_shares(call, statistics, values, weight)[1]
    return _gradient(call, values, rows, largest / temperature * 2.0 ** -product_raise(z.dtype), False, z.dtype)
