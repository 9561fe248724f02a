"""Marginal loss and FD, launched."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fer_fast.terms import ALONE, Peers, Share

from ..directions.launch import TakingPart, chain_rule, normalise
from ..host.chips import chip, pick_tile
from ..host.launch import (
    Launch,
    cdiv,
    dense_rows,
    own_first,
    pick_splits,
    processors,
    product_kind,
    product_precision,
    recall,
    start,
)
from ..survey.launch import survey
from .fd import FDArguments, fd_pairwise
from .marginal import MarginalArguments, marginal
from .settings import PAIR_TILES
from .sweep import sweep

_empty = torch.empty


class Epilogue(NamedTuple):
    """A loss: (s, same class, weight_i, weight_j, arguments) → (loss, dloss/ds), symmetric in i and j."""

    function: Callable
    arguments: type
    standardise: bool
    by_pairs: bool  # whether the mean divides by the pairs of rows, or by k n²; and whether a row may be taken out


EPILOGUES = {
    "marginal": Epilogue(marginal, MarginalArguments, standardise=False, by_pairs=True),
    "fd": Epilogue(fd_pairwise, FDArguments, standardise=True, by_pairs=False),
}


def pairwise(
    x: Tensor,
    y: Tensor,
    class_difficulty: Tensor | None,
    epilogue: str,
    params: list[float],
    mean: bool,
    gradient: bool,
    peers: Peers = ALONE,
    share: Share | None = None,
    kind: dict | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss () in float32 and dx of `marginal` (params θ, ξ; x (n, d)) or `fd` (no params; x (k, n, d)).

    A negative label in y (n,) takes its row out of marginal loss; FD takes w(y) from class_difficulty (C,), and a label
    outside it makes the loss NaN. Without `gradient` dx is (0,). Of rows (n, d) that lie on several processes this one
    visits the pairs of its `share`, whose dx it gives. `kind` remembers what was compiled for calls alike in all but
    the values of tensors, all of them aligned.
    """
    compiled = recall(kind, (product_precision(), gradient), dict)
    rule = EPILOGUES[epilogue]
    batch, d = x.shape[-2:]
    k, n = x.numel() // (batch * d), batch
    if share is not None:
        (x, y), n = own_first(share, x, y), share.own.stop - share.own.start
    x, y = dense_rows(x), y.contiguous()
    part = TakingPart.of(x, y) if rule.by_pairs else None
    u, weights = normalise(x, y, class_difficulty, rule.standardise, part=part, compiled=compiled)
    y = part.labels if part else y
    labels, long_label = (y, None) if y.dtype == torch.int32 else survey(None, y, compiled=compiled)[::2]
    tile = pick_tile(PAIR_TILES, chip(x.device), product_kind(x.dtype), d)
    tiles, key_tiles = cdiv(n, tile.block_m), cdiv(batch, tile.block_n)
    splits = pick_splits(tiles * k, key_tiles, processors(x.device))
    own = x if share is None else x[:n]
    gradients = _empty((splits, *own.shape) if gradient else (0,), dtype=torch.float32, device=x.device)
    partial = _empty((k, splits, tiles), dtype=torch.float32, device=x.device)
    chunks = cdiv(d, tile.block_d) if gradient else 1
    arguments = u, y, labels, long_label, weights, gradients, partial, n, batch, rule.arguments(*params)
    constants = {"d": d, "EPILOGUE": rule.function, "GRADIENT": gradient, **tile.constexprs, **tile.options}
    start(Launch(sweep, (tiles, splits, k * chunks), arguments, constants, compiled))
    scale = 1 / (k * n * n) if mean and not rule.by_pairs else 1.0
    gradients = gradients if gradient else None
    by_pairs = mean and rule.by_pairs
    loss, dx = chain_rule(own, gradients, partial, rule.standardise, scale, 2 * scale, part, by_pairs, compiled)
    return peers.total(torch.float32, loss)[0], dx
