"""Ad-Corre on the host: tensors in, loss and gradient out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from fer_fast.terms import ALONE, Peers

from ..host.chips import chip, launch_options
from ..host.launch import Launch, cdiv, gradient_dtype, max_programs, recall, rows_of, start
from .arguments import Batch, Kept
from .rows import rows
from .settings import EMBEDDING_TILES, MOST_CLASS_ELEMENTS, MOST_CLASSES, MOST_EMBEDDINGS, TABLE_OPTIONS
from .sums import sums
from .tables import tables

_empty = torch.empty
Run = Callable[[Launch], None]


class Plan(NamedTuple):
    """How a kind of call is launched: classes, numbers of a block of sums, rows of a tile, constants and options."""

    classes: int
    size: int
    sum_rows: int
    row_rows: int
    sums: dict[str, Any]
    tables: dict[str, Any]
    rows: dict[str, Any]
    compiled: dict  # of :class:`Launch`


def plan(family: str, e: Tensor, num_classes: int, fd: bool, md: bool, ed: bool, by_row: bool) -> Plan:
    """On a chip, of embeddings e (k, n, d) and the terms that are not off; `by_row` keeps ED's of each row."""
    k, _, d = e.shape
    classes, width = max(16, triton.next_power_of_2(num_classes)), max(16, triton.next_power_of_2(d))
    if (
        (family, e.element_size(), width) not in EMBEDDING_TILES
        or classes > MOST_CLASSES
        or classes * width > MOST_CLASS_ELEMENTS
        or k > MOST_EMBEDDINGS
    ):
        raise NotImplementedError("too many classes or embeddings for one program, rows too wide for it, or float64")
    config = EMBEDDING_TILES[family, e.element_size(), width]
    size = 2 * classes + (fd + md) * classes * d
    of_sums = {"BLOCK_N": config.block_n, "BLOCK_D": config.block_d, "CHUNKS": width // config.block_d}
    of_sums["TENSOR_CORES"] = torch.version.hip is None
    of_rows = {"EMBEDDINGS": k, "BLOCK_N": config.row_block_n, "BLOCK_D": width, "ED": ed, "BY_ROW": by_row}
    shared = {"D": d, "K": classes, "FD": fd, "MD": md}
    return Plan(
        classes=classes,
        size=size,
        sum_rows=config.block_n,
        row_rows=config.row_block_n,
        sums={**shared, "SIZE": size, **of_sums, **launch_options(config.num_warps, config.num_stages)},
        tables={**shared, "SIZE": size, "BLOCK_D": width, **TABLE_OPTIONS},
        rows={**shared, **of_rows, **launch_options(config.row_warps)},
        compiled={},
    )


def ad_corre(
    e: Tensor,
    y: Tensor,
    class_difficulty: Tensor | None,
    num_classes: int,
    fd: float,
    md: float,
    ed: float,
    sample_weights: Tensor | None,
    reduction: str,
    gradient: bool,
    status: Tensor | None = None,
    kind: dict | None = None,
    peers: Peers = ALONE,
    run: Run = start,
    family: str = "",
) -> tuple[Tensor, Tensor]:
    """fd·FD + md·MD + ed·ED of e (k, n, d), y (n,), class_difficulty w (C,): the loss and de. A weight 0 is a term off.

    `class_difficulty` None is NFD's 0.5 everywhere. ED alone has `sample_weights` (n,), by whose sum its mean divides,
    and "none", the losses of its rows (n,). A label outside [0, C) makes the loss NaN and goes to `status` (1,); ED
    alone reads no label. `kind` remembers the plans of calls alike in all but the values of tensors, all of them
    aligned. `run` starts launches in the tiles of a chip `family`, by default the device's. Class sums are taken over
    all `peers`, between the sweeps, and ED's loss after them.
    """
    (k, n, d), device, by_class = e.shape, e.device, bool(fd or md)
    mean, by_row = reduction == "mean", reduction == "none"
    ed = 0.0 if k == 1 else ed  # a single embedding has no pair
    batch = Batch(rows_of(e), y.contiguous(), class_difficulty if fd else None, status if by_class else None)
    if sample_weights is not None:
        weights = sample_weights.float().contiguous()
        batch = batch._replace(sample_weights=weights, total=weights.sum() if mean and not peers.group else None)
    sizes = (n, num_classes, batch.e.stride(0), batch.e.stride(1))
    asked = fd != 0, md != 0, ed != 0, by_row, gradient
    cut = recall(kind, asked, lambda: plan(family or chip(device), e, num_classes, *asked[:4]))
    de = _empty((k, n, d), dtype=gradient_dtype(e), device=device) if gradient else None
    programs, count = min(cdiv(n, cut.row_rows), max_programs(device)), n
    parts = n if by_row else by_class * k + (ed != 0) * programs
    kept = Kept((_empty if ed or by_class else torch.zeros)((parts,), dtype=torch.float32, device=device))
    ed_divisor: Tensor | int = n * k**2 if mean else 1
    if by_class:
        kept = _class_sums(cut, batch, kept, sizes, run)
    if peers.group:
        kept, count, total = _over_all(peers, batch, kept, by_class)
        ed_divisor = total * k**2 if mean else 1
    if by_class:
        scales = fd / (k * count**2) if mean else fd, md / (k * num_classes**2) if mean else md
        scales = scales[0] * (count != 1), scales[1]  # a single row has no pair
        run(Launch(tables, (k, 1, 1), (batch, kept, count, num_classes, *scales), cut.tables, cut.compiled))
    if (gradient or ed) and programs:
        arguments = (batch, kept, de, *sizes, ed / ed_divisor)
        run(Launch(rows, (programs, 1, 1), arguments, cut.rows, cut.compiled))
    loss = kept.losses if by_row else kept.losses.sum()
    if peers.group and ed and not by_row:
        of_ed = kept.losses[by_class * k :].sum()
        loss = kept.losses[: by_class * k].sum() + peers.total(torch.float32, of_ed)[0]
    return loss, _empty((0,), dtype=gradient_dtype(e), device=device) if de is None else de


def _over_all(peers: Peers, batch: Batch, kept: Kept, by_class: bool) -> tuple[Kept, Tensor, Tensor]:
    """Class sums of all processes, their rows, and what ED's mean divides by: () both."""
    rows = torch.full((), batch.e.shape[1], dtype=torch.float64, device=batch.e.device)
    total = rows if batch.sample_weights is None else batch.sample_weights.sum(dtype=torch.float64)
    sums, rows, total = peers.total(torch.float64, kept.sums if by_class else rows[None][:0], rows, total)
    rows = rows.clamp(min=1)  # without any, as of one, there is no pair
    return kept._replace(sums=sums if by_class else None), rows, total.where(total != 0, 1)


def _class_sums(cut: Plan, batch: Batch, kept: Kept, sizes: tuple[int, ...], run: Run) -> Kept:
    """Moments of rows and sums of classes; what `tables` fills is still empty."""
    (k, n, d), wide = batch.e.shape, {"dtype": torch.float32, "device": batch.e.device}
    # Four tiles each at least: a block of sums is as long as two.
    programs = max(1, min(cdiv(n, cut.sum_rows) // 4, cdiv(max_programs(batch.e.device), k)))
    partials = _empty((programs, k, cut.size), **wide)
    kept = kept._replace(
        moments=_empty((n, k, 2), **wide),
        partials=partials,
        sums=partials[0] if programs == 1 else _empty((k, cut.size), dtype=torch.float64, device=batch.e.device),
        tables=_empty((k, 2, cut.classes, d), **wide),
    )
    run(Launch(sums, (programs, k, 1), (batch, kept, *sizes), cut.sums, cut.compiled))
    if programs > 1:
        torch.sum(partials, 0, dtype=torch.float64, out=kept.sums)
    return kept
