"""Class-table engine on the host: tensors in, loss, gradients and moved centers out."""

from functools import cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ..host.chips import chip, launch_options
from ..host.launch import Launch, cdiv, dense_rows, gradient_dtype, kind_of, processors, product_precision, start
from ..large_centers.launch import large_centers
from ..large_classifier.launch import Sweep
from .arguments import STATISTICS, SUMMED_PROGRAMS, Batch, Center, Head, Outputs, Sizes, Tables
from .centers import CENTERS, center_rule
from .finish import finish
from .heads import HEADS, head_rule
from .rows import block_size, rows
from .settings import (
    FINISH_COLUMNS,
    FINISH_OPTIONS,
    MOST_CLASSES,
    MOST_COLUMNS,
    PROGRAM_WARPS,
    QUADRATIC_CLASSES,
    SMALL_BATCH,
    SUMS_COLUMNS,
    SUMS_OPTIONS,
    SUMS_ROWS,
    TABLE_OPTIONS,
    Cut,
    cut,
    fits,
)
from .small import small
from .sums import sums
from .table_stats import LABELS, table_stats

_empty = torch.empty


class Asked(NamedTuple):
    """What a kind of call is: everything that a kernel is compiled for, but for the types of tensors."""

    family: str  # of the chip
    element_size: int
    num_classes: int
    d: int
    classifier: str
    auxiliary: str
    update: bool
    gradient: bool
    groups: int  # of MVA
    weighted: bool  # a mean that divides by Σ W_y
    mean: bool
    precision: tuple[str, bool]


class Plan(NamedTuple):
    """How a kind of call is launched: its cut, what is kept between its kernels, and their constants and options."""

    cut: Cut
    kinds: int
    statistics: int  # numbers that `table_stats` leaves for rows
    block: int  # numbers of a program's partial sums
    slots: int  # of sums known before the first row
    alone: bool  # small batches in one launch
    small: dict[str, Any]
    table_stats: dict[str, Any]
    rows: dict[str, Any]
    sums: dict[str, Any]
    finish: dict[str, Any]


@cache
def plan(asked: Asked) -> Plan:
    """Remembered: at batch 64 a call costs what its host does."""
    d, num_classes, update = asked.d, asked.num_classes, asked.update
    head = HEADS[asked.classifier][0] if asked.classifier else Head()
    rule = CENTERS[asked.auxiliary][0] if asked.auxiliary else Center()
    of_head = bool(asked.classifier) and asked.gradient
    kinds = of_head + update + bool(update and rule.push)
    repels, unit = rule.anti.value, head.unit_w.value
    shape = cut(asked.family, asked.element_size, num_classes, d, kinds, bool(asked.classifier), repels)
    found = head.lengths.value or rule.spread.value or rule.directions.value
    slots = triton.next_power_of_2(2 + asked.groups) if asked.groups else int(asked.weighted)
    sizes = {"d": d, "K": shape.k, "SLOTS": slots, "WEIGHTED": asked.weighted}
    tile, small_tile = (
        {"R": of.block_n, "P": of.parts, "W": shape.d // of.parts} for of in (shape.tile, shape.small_tile)
    )
    every = sizes | {"KINDS": kinds, "UPDATE": update, "FUSED": shape.fused}
    precision, tensor_cores = asked.precision
    of_rows = every | {"M": shape.m, "MEAN": asked.mean, "HELD": shape.held}
    of_rows |= {"PRECISION": precision, "TENSOR_CORES": tensor_cores}
    of_table = {"BLOCK_D": shape.block_d, "CHUNKS": cdiv(d, shape.block_d)}
    narrow, sums_narrow = min(shape.d, FINISH_COLUMNS), min(shape.d, SUMS_COLUMNS)
    of_sums = {"d": d, "K": shape.k, "KINDS": kinds, "HEAD": of_head, "UPDATE": update}
    of_sums |= {"R": SUMS_ROWS, "TENSOR_CORES": tensor_cores, **_chunks(d, sums_narrow)}
    return Plan(
        cut=shape,
        kinds=kinds,
        statistics=(STATISTICS.value * shape.k + num_classes * d * (unit + 2 * repels)) * found,
        block=block_size(d, shape.k, kinds, shape.fused),
        slots=slots,
        # On sm_90 a product of 64 classes by 8 warps would have a side of 32, which was reported to corrupt silently.
        alone=(shape.fused or shape.k < 64) and not (repels and num_classes > QUADRATIC_CLASSES),
        small={
            **of_rows,
            **small_tile,
            **of_table,
            "STATS": found or slots > 0,
            **launch_options(shape.small_tile.num_warps),
        },
        table_stats={**sizes, **tile, **of_table, **TABLE_OPTIONS},
        rows={**of_rows, **tile, **launch_options(shape.tile.num_warps)},
        sums={**of_sums, **SUMS_OPTIONS},
        finish={**every, **_chunks(d, narrow), **FINISH_OPTIONS},
    )


def _chunks(d: int, width: int) -> dict[str, int]:
    return {"BLOCK_D": width, "CHUNKS": cdiv(d, width)}


def class_table(
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    class_weights: Tensor | None,
    centers: Tensor | None,
    center_weights: Tensor | None,
    groups_x: list[Tensor],
    groups_y: list[Tensor],
    classifier: str,
    classifier_params: list[float],
    auxiliary: str,
    auxiliary_params: list[float],
    auxiliary_weight: float,
    mean: bool,
    update: bool,
    gradient: bool,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """classifier(x, y) + auxiliary_weight · auxiliary(x, y): loss, dx, dweight, dbias, and the centers moved in place.

    x (n, d), y (n,), weight and centers (C, d), MVA's groups_x of (n_v, d) and groups_y of (n_v,). Large tables are
    :mod:`..large_classifier`'s and :mod:`..large_centers`'. A label outside [0, C) makes the loss NaN and goes to
    `status` (1,).
    """
    if x.dtype == torch.float64:
        raise NotImplementedError("features in float64")
    num_classes, d = (weight if classifier else centers).shape
    family, update = chip(x.device), update and bool(auxiliary)
    table = centers.contiguous() if auxiliary else None
    if classifier and not fits(family, x.element_size(), num_classes, d):
        loss, dx, dweight, dbias = Sweep(
            x, y, weight, bias, class_weights, classifier, classifier_params, mean, gradient, status
        ).whole()
        if auxiliary:
            more, pull, *_ = class_table(
                x, y, None, None, None, table, center_weights, groups_x, groups_y, "", [], auxiliary, auxiliary_params,
                auxiliary_weight, mean, update, gradient, status,
            )  # fmt: skip
            loss, dx = loss + more, dx.add_(pull)
        results = loss, dx, dweight, dbias
    elif auxiliary and (num_classes > MOST_CLASSES or d > MOST_COLUMNS):
        rule = center_rule(auxiliary, tuple(auxiliary_params))
        loss, dx = large_centers(
            x, y, table, center_weights, groups_x, groups_y, rule, auxiliary_weight, mean, update, gradient, status
        )
        results = loss, dx, *(_empty((0,), dtype=gradient_dtype(x), device=x.device) for _ in range(2))
    else:
        asked = Asked(
            family, x.element_size(), num_classes, d, classifier, auxiliary, update, gradient, len(groups_x),
            mean and class_weights is not None, mean, product_precision(),
        )  # fmt: skip
        results, launches = launches_of(
            plan(asked), asked, x, y, weight, bias, class_weights, table, center_weights, groups_x, groups_y,
            tuple(classifier_params), tuple(auxiliary_params), auxiliary_weight, status,
        )  # fmt: skip
        for launch in launches:
            start(launch)
    if update and table is not centers:
        centers.copy_(table)
    return results


def launches_of(
    plan: Plan,
    asked: Asked,
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    class_weights: Tensor | None,
    centers: Tensor | None,
    center_weights: Tensor | None,
    groups_x: list[Tensor],
    groups_y: list[Tensor],
    classifier_params: tuple[float, ...],
    auxiliary_params: tuple[float, ...],
    auxiliary_weight: float,
    status: Tensor | None,
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], list[Launch]]:
    """Loss, dx, dweight and dbias, still empty, and the launches that fill them."""
    (n, d), device, shape, mean = x.shape, x.device, plan.cut, asked.mean
    x, wide = dense_rows(x), {"dtype": torch.float32, "device": device}
    groups_x = tuple(dense_rows(group) for group in groups_x)
    group_sizes = tuple(len(group) for group in groups_x)
    wanted, held, split = asked.gradient and weight is not None, plan.kinds * shape.k, plan.kinds and not shape.fused
    alone, tiles = plan.alone and n <= SMALL_BATCH, cdiv(n, shape.tile.block_n)
    programs, splits, summed = 1, 1, 1
    if not alone:
        # Two tiles each at least: a block of sums is as long as a tile.
        programs = max(1, min(tiles // 2, processors(device) * PROGRAM_WARPS // shape.tile.num_warps))
        splits = max(1, min(n // (4 * SUMS_ROWS), 2 * processors(device)))
        summed = max(asked.num_classes, min(SUMMED_PROGRAMS.value, cdiv(max(n, *group_sizes, 1), LABELS.value)))
        if groups_x:
            summed = max(
                asked.num_classes, min(SUMMED_PROGRAMS.value, cdiv(max(n, *group_sizes), 4 * shape.tile.block_n))
            )
    loss = _empty((), **wide)
    dx = _empty((n, d), dtype=gradient_dtype(x), device=device) if asked.gradient else None
    dweight = _empty(weight.shape, dtype=gradient_dtype(weight), device=device) if wanted else None
    dbias = _empty(bias.shape, dtype=gradient_dtype(bias), device=device) if wanted and bias is not None else None
    batch = Batch(x, y.contiguous(), status, groups_x, tuple(group_y.contiguous() for group_y in groups_y))
    tables = Tables(
        None if weight is None else weight.contiguous(),
        bias,
        class_weights,
        centers,
        center_weights,
        _empty((plan.statistics,), **wide) if plan.statistics else None,
        _empty((summed, plan.slots), dtype=torch.float64, device=device) if plan.slots else None,
    )
    out = Outputs(
        loss,
        dx,
        dweight,
        dbias,
        _empty((programs, plan.block), **wide),
        _empty((n, held), **wide) if split else None,
        _empty((splits, held, d), **wide) if split else None,
    )
    divisor = n if mean else 1
    sizes = Sizes(
        n, asked.num_classes, 1 if asked.weighted else divisor, divisor, auxiliary_weight, programs, splits, summed,
        tuple(map(float, group_sizes)),
    )  # fmt: skip
    head, rule = head_rule(asked.classifier, classifier_params), center_rule(asked.auxiliary, auxiliary_params)
    given, rules = (batch, tables, out), (head, rule, *sizes)
    strides = x.stride(0), tuple(group.stride(0) for group in groups_x)
    kind = None
    if x.stride(0) % 16 == 0 and not groups_x:
        kind = kind_of(batch.x, batch.y, status, *tables[:5], dx, dweight, dbias)
        thresholds = [len(value) for value in head.a or () if isinstance(value, tuple)]
        kind = kind and (asked, rule.paper_slope is None, *thresholds, kind)
    if alone:
        launches = [Launch(small, (1, 1, 1), (*given, *rules, *strides), plan.small, kind)]
    else:
        launches = [Launch(rows, (programs, 1, 1), (*given, *rules, x.stride(0)), plan.rows, kind)]
        if plan.statistics or plan.slots:
            arguments = (batch, tables, head, rule, n, asked.num_classes, sizes.group_sizes, *strides)
            launches.insert(0, Launch(table_stats, (summed, 1, 1), arguments, plan.table_stats, kind))
        if split:
            grid = (splits, plan.sums["CHUNKS"], 1)
            launches.append(Launch(sums, grid, (batch, out, n, x.stride(0)), plan.sums, kind))
        arguments = (tables, out, head, rule, *sizes[1:-1])  # all but n and MVA's
        launches.append(Launch(finish, (plan.finish["CHUNKS"], 1, 1), arguments, plan.finish, kind))
    # An operator's results may not share memory: each missing gradient is an empty tensor of its own.
    missing = ((dx, x), (dweight, x if weight is None else weight), (dbias, x if bias is None else bias))
    return (
        loss,
        *(_empty((0,), dtype=gradient_dtype(like), device=device) if t is None else t for t, like in missing),
    ), launches
