"""Class-table engine on the host: tensors in, loss, gradients and moved centers out."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ..host.chips import launch_options
from ..host.launch import cdiv, gradient_dtype, processors, product_precision, rows_of
from .arguments import STATISTICS, SUMMED_PROGRAMS, Batch, Center, Head, Outputs, Sizes, Tables
from .centers import CENTERS
from .finish import finish
from .heads import HEADS
from .rows import rows
from .settings import FINISH_COLUMNS, MOST_CLASSES, MOST_COLUMNS, SMALL_BATCH, WARPS, Cut, cut
from .small import small
from .sums import sums
from .table_stats import LABELS, table_stats

_empty = torch.empty


class Plan(NamedTuple):
    """What a kind of call is compiled for."""

    cut: Cut
    statistics: int  # numbers that `table_stats` leaves, 0 where there is nothing to find
    flags: dict[str, Any]
    table_flags: dict[str, Any]
    repels: bool
    kinds: int
    block: int  # numbers of a block of partial sums


def _tuple(**fields: Any) -> Any:
    return NamedTuple("Params", [(name, float) for name in fields])(**fields)


NAMES = {
    "softmax": (), "lmcl": ("s", "m"), "center": ("alpha",), "island": ("lambda1", "alpha"),
    "variant": ("lambda1", "lambda2", "eps1", "eps2", "alpha"), "weighted-cluster": ("alpha", "gamma"),
    "affinity": ("alpha",), "mva": ("alpha",),
}  # fmt: skip
TYPES = {name: NamedTuple(name.replace("-", "_"), [(f, float) for f in fields]) for name, fields in NAMES.items() if fields}


def _head(name: str, params: list[float]) -> Head | tuple[()]:
    if not name:
        return ()
    if name in ("a-softmax", "l-softmax"):
        from .heads.angular_softmax import angular_softmax

        return HEADS[name]._replace(a=angular_softmax(*params))
    return HEADS[name]._replace(a=TYPES[name](*params) if params else None)


def _center(name: str, params: list[float]) -> Center | tuple[()]:
    if not name:
        return ()
    rule = CENTERS[name]
    if name == "variant":
        paper = params[5]
        params = params[:5]
        if not paper:
            rule = rule._replace(paper_slope=None)
    return rule._replace(a=TYPES[name](*params))


@cache
def _plan(
    num_classes: int, d: int, classifier: str, auxiliary: str, update: bool, gradient: bool, groups: int,
    weighted: bool, mean: bool, precision: str, tensor_cores: bool,
) -> Plan:  # fmt: skip
    head, rule = HEADS.get(classifier), CENTERS.get(auxiliary)
    push = update and rule.push is not None
    kinds = bool(head and gradient) + update + push
    repels = bool(rule and rule.anti.value)
    shape = cut(num_classes, d, kinds, repels)
    unit = bool(head and head.unit_w.value)
    found = bool(head and head.lengths.value) or bool(rule and (rule.spread.value or rule.directions.value))
    statistics = STATISTICS.value * shape.k + num_classes * d * (unit + 2 * repels) if found else 0
    slots = triton.next_power_of_2(2 + groups) if groups else int(weighted)
    tables = {"d": d, "K": shape.k, "SLOTS": slots, "WEIGHTED": weighted}
    flags = tables | {"KINDS": kinds, "UPDATE": update, "MEAN": mean, "FUSED": shape.fused}
    block = -(-(2 + (kinds + 1) * shape.k) // 4) * 4 + shape.fused * kinds * shape.k * d
    return Plan(shape, statistics, flags, tables, repels, kinds, block)


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
    """classifier(x, y) + auxiliary_weight · auxiliary(x, y): loss, dx, dweight, dbias, and the centers moved in place."""
    num_classes, d = (weight if classifier else centers).shape
    if x.dtype == torch.float64 or d > MOST_COLUMNS or num_classes > MOST_CLASSES:
        raise NotImplementedError("a table of more than 64 classes or 2048 columns, or features in float64")
    n, device, wanted = len(x), x.device, gradient and bool(classifier)
    x, y, update = rows_of(x), y.contiguous(), update and bool(auxiliary)
    weighted = mean and class_weights is not None
    precision, tensor_cores = product_precision()
    plan = _plan(
        num_classes, d, classifier, auxiliary, update, gradient, len(groups_x), weighted, mean, precision, tensor_cores
    )  # fmt: skip
    shape, flags = plan.cut, plan.flags
    groups_x = tuple(rows_of(g) for g in groups_x)
    table = centers.contiguous() if auxiliary else None
    head, rule = _head(classifier, classifier_params), _center(auxiliary, auxiliary_params)
    new = {"dtype": torch.float32, "device": device}
    alone = n <= SMALL_BATCH and not (plan.repels and shape.k > 16)
    tiles = cdiv(n, shape.r)
    programs = 1 if alone else max(1, min(cdiv(tiles, 2), processors(device) * WARPS // shape.warps))
    splits = 1 if alone else max(1, min(cdiv(tiles, 4), 2 * processors(device)))
    summed = 0
    if flags["SLOTS"]:
        per = shape.r if groups_x else LABELS.value
        longest = max(n, *(len(g) for g in groups_x)) if groups_x else n
        summed = 1 if alone else max(1, min(SUMMED_PROGRAMS.value, cdiv(longest, per)))
    if plan.repels and not alone:
        summed = max(summed, num_classes)
    held = plan.kinds * shape.k
    loss = _empty((), **new)
    dx = _empty((n, d), dtype=gradient_dtype(x), device=device) if gradient else None
    dweight = _empty((num_classes, d), dtype=gradient_dtype(weight), device=device) if wanted else None
    dbias = _empty((num_classes,), dtype=gradient_dtype(bias), device=device) if wanted and bias is not None else None
    batch = Batch(x, y, status, groups_x, tuple(g.contiguous() for g in groups_y))
    tables = Tables(
        weight.contiguous() if classifier else None, bias, class_weights, table, center_weights,
        _empty((plan.statistics,), **new) if plan.statistics else None,
        _empty((summed, flags["SLOTS"]), dtype=torch.float64, device=device) if flags["SLOTS"] else None,
    )  # fmt: skip
    out = Outputs(
        loss, dx, dweight, dbias, _empty((programs, plan.block), **new),
        None if shape.fused or not plan.kinds else _empty((n, held), **new),
        None if shape.fused or not plan.kinds else _empty((splits, held, d), **new),
    )  # fmt: skip
    sizes = Sizes(
        n, num_classes, n if mean and not weighted else 1, n if mean else 1, auxiliary_weight, programs, splits, summed,
        tuple(len(g) for g in groups_x),
    )  # fmt: skip
    strides = tuple(g.stride(0) for g in groups_x)
    given = {"R": shape.r, "P": shape.parts, "W": shape.d // shape.parts}
    row_given = {"M": shape.m, "PRECISION": precision, "TENSOR_CORES": tensor_cores, **given}
    chunks = {"BLOCK_D": shape.block_d, "CHUNKS": cdiv(d, shape.block_d)}
    found = bool(plan.statistics or flags["SLOTS"])
    if alone:
        small[(1,)](
            batch, tables, out, head, rule, sizes, x.stride(0), strides, STATS=found, **flags, **row_given, **chunks,
            **launch_options(shape.warps),
        )  # fmt: skip
    else:
        if found:
            table_stats[(max(1, summed),)](
                batch, tables, head, rule, sizes, x.stride(0), strides, **plan.table_flags, **given, **chunks,
                **launch_options(8),
            )  # fmt: skip
        rows[(programs,)](
            batch, tables, out, head, rule, sizes, x.stride(0), **flags, **row_given, **launch_options(shape.warps)
        )  # fmt: skip
        if plan.kinds and not shape.fused:
            width = shape.sums_block_d
            sums[(splits, cdiv(d, width))](
                batch, out, sizes, x.stride(0), d, shape.k, plan.kinds, wanted, update, R=32, BLOCK_D=width,
                CHUNKS=cdiv(d, width), TENSOR_CORES=tensor_cores, **launch_options(4),
            )  # fmt: skip
        width = min(shape.d, FINISH_COLUMNS)
        finish[(cdiv(d, width),)](
            batch, tables, out, head, rule, sizes, BLOCK_D=width, CHUNKS=cdiv(d, width), **flags, **launch_options(4)
        )  # fmt: skip
    if update and table is not centers:
        centers.copy_(table)
    # An operator's results may not share memory: each missing gradient is an empty tensor of its own.
    missing = ((dx, x), (dweight, x if weight is None else weight), (dbias, x if bias is None else bias))
    return loss, *(_empty((0,), dtype=gradient_dtype(t), device=device) if g is None else g for g, t in missing)
