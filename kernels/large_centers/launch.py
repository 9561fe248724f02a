"""Centers of many classes on the host: tensors in, loss, gradient and moved centers out."""

from collections.abc import Callable

import torch
from torch import Tensor

from fer_fast.terms import CenterTerm

from ...blocked.center_family import first, group_weight
from ..class_table.arguments import Center
from ..class_table.centers import center_rule
from ..host.launch import Launch, cdiv, gradient_dtype, processors, rows_of, start
from .arguments import Batch, ByClass, Outputs, Sizes, Table
from .finish import finish
from .rows import rows
from .settings import WARPS, class_cut, row_cut, slice_rows
from .slices import slices
from .table_stats import table_stats

_empty = torch.empty
Run = Callable[[Launch], None]


def large_centers(
    x: Tensor,
    y: Tensor,
    term: CenterTerm,
    sample_weights: Tensor | None,
    reduction: str,
    update: bool,
    gradient: bool,
    status: Tensor | None,
    run: Run = start,
) -> tuple[Tensor, Tensor]:
    """factor · the loss of the term: loss () and dx (n, d), or (0,) without; its contiguous centers move in place.

    x (n, d), y (n,). float32 sample_weights w (n,) multiply rows, and the mean divides by Σ w; "none" gives the losses
    of the rows (n,). A label outside [0, C) makes the loss NaN and goes to `status` (1,).
    """
    (n, d), num_classes, device = x.shape, len(term.centers), x.device
    rule, mean = center_rule(term.name, tuple(term.params)), reduction == "mean"
    batch, push = Batch(rows_of(x), y.contiguous(), status, sample_weights), update and rule.push is not None
    table = _table(term.centers, term.class_weights, rule, run)
    sizes = Sizes(n, num_classes, _total(batch) if mean else 1, term.factor, _programs(n, d, device), slice_rows(n))
    if term.groups_x:
        groups = [
            Batch(rows_of(g), of.contiguous(), status, first(term.group_rows, v, of))
            for v, (g, of) in enumerate(zip(term.groups_x, term.groups_y, strict=True))
        ]
        losses = _affinities([batch, *groups], table, rule, mean, run)
        table = table._replace(factor=group_weight(losses, term.group_rows).float())
    wide = {"dtype": torch.float32, "device": device}
    out = Outputs(
        _empty((), **wide),
        _empty((sizes.programs,), dtype=torch.float64, device=device),
        _empty((n, d), dtype=gradient_dtype(x), device=device) if gradient else None,
        _empty((n,), **wide) if update else None,
        torch.zeros((sizes.programs, d), **wide) if push else None,
        _empty((n,), **wide) if reduction == "none" else None,
    )
    run(_rows(batch, table, out, rule, sizes))
    by_class, cut = None, class_cut(d)
    constants, chunks = cut.constants(d), cdiv(d, cut.block_d)
    if update:
        by_class = _by_class(batch.y, num_classes, out, sizes.slice_rows, d)
        if len(by_class.slices):
            arguments = batch, table, out.weights, by_class, num_classes, sizes.slice_rows, batch.x.stride(0)
            run(Launch(slices, (len(by_class.slices), chunks), arguments, {"PUSH": push, **constants}))
    grid = (num_classes, chunks) if update else (1, 1)
    arguments = batch, table, out, by_class, rule, *sizes, batch.x.stride(0)
    run(Launch(finish, grid, arguments, {"UPDATE": update, **constants}))
    dx = _empty((0,), dtype=gradient_dtype(x), device=device) if out.dx is None else out.dx
    return out.loss if out.row_losses is None else out.row_losses, dx


def _total(batch: Batch) -> Tensor | int:
    """What a mean divides by; 1 where no row weighs anything, and nothing is lost."""
    if batch.sample_weights is None:
        return len(batch.x)
    total = batch.sample_weights.sum()
    return total.where(total != 0, 1)


def _programs(n: int, d: int, device: torch.device) -> int:
    cut = row_cut(d)
    return min(cdiv(n, cut.r), processors(device) * WARPS // cut.warps)


def _rows(batch: Batch, table: Table, out: Outputs, rule: Center, sizes: Sizes) -> Launch:
    cut = row_cut(batch.x.shape[1])
    arguments = batch, table, out, rule, *sizes, batch.x.stride(0)
    return Launch(rows, (sizes.programs,), arguments, cut.constants(batch.x.shape[1]))


def _affinities(groups: list[Batch], table: Table, rule: Center, mean: bool, run: Run) -> Tensor:
    """The affinity loss of every group: (V,)."""
    losses, (num_classes, d) = [], table.c.shape
    for group in groups:
        n, device = len(group.x), group.x.device
        sizes = Sizes(n, num_classes, 1, 1.0, _programs(n, d, device), 1)
        parts = _empty((sizes.programs,), dtype=torch.float64, device=device)
        run(_rows(group, table, Outputs(parts, parts), rule, sizes))
        losses.append(parts.sum() / (_total(group) if mean else 1))
    return torch.stack(losses)


def _by_class(y: Tensor, num_classes: int, out: Outputs, slice_rows: int, d: int) -> ByClass:
    labels, order = y.sort(stable=True)
    starts = torch.searchsorted(labels, torch.arange(num_classes + 1, dtype=y.dtype, device=y.device))
    kinds = 1 if out.pushed is None else 2
    parts = _empty((len(y) // slice_rows, kinds, d), dtype=torch.float32, device=y.device)
    if out.pushed is None:
        return ByClass(labels, order, starts, parts)
    return ByClass(labels, order, starts, parts, out.weights.sum(), out.pushed.sum(0))


def _table(centers: Tensor, class_weights: Tensor | None, rule: Center, run: Run) -> Table:
    """What the loss asks of the table, on its device. Means are taken in float64: an offset common to all centers costs
    no digits. Nor does one center far from all others, the outlier, which is kept apart where a loss repels rows."""
    table, others = Table(centers, class_weights), max(len(centers) - 1, 1)
    if rule.directions:
        wide, new = centers.float(), {"dtype": torch.float32, "device": centers.device}
        lengths = torch.linalg.vector_norm(wide, dim=1)
        inverse = torch.where(lengths == 0, 0, 1 / lengths)
        # Into tensors of their own: autocast would else round the products.
        directions = torch.mv(wide.T, inverse, out=_empty(wide.shape[1:], **new))
        along = inverse * torch.mv(wide, directions, out=_empty(lengths.shape, **new)) - (lengths != 0).float()
        table = table._replace(inverse=inverse, along=along / others, directions=directions, cosines=along.sum())
    if rule.spread:
        total = centers.sum(0, dtype=torch.float64)
        squared = _squared(centers, _in_two(total / len(centers)), run)
        table = table._replace(squared=squared, spread=squared.sum())
        if rule.anti:
            outlier = squared.argmax()
            farthest = centers.index_select(0, outlier[None])[0].float()
            mean = _in_two((total - farthest) / others if len(centers) > 1 else total)  # or it would be nowhere near
            rest = _squared(centers, mean, run).index_fill_(0, outlier[None], 0).sum()
            table = table._replace(outlier=outlier, farthest=farthest, mean=mean, rest=rest)
    return table


def _in_two(row: Tensor) -> Tensor:
    """A row (d,) in float64 as the sum of two in float32: (2, d)."""
    high = row.float()
    return torch.stack((high, (row - high).float()))


def _squared(centers: Tensor, mean: Tensor, run: Run) -> Tensor:
    (num_classes, d), cut = centers.shape, row_cut(centers.shape[1])
    squared = _empty((num_classes,), dtype=torch.float32, device=centers.device)
    arguments = centers, mean, squared, num_classes
    run(Launch(table_stats, (cdiv(num_classes, cut.r),), arguments, cut.constants(d)))
    return squared
