"""Class-table engine on the host: tensors in, loss, gradients and moved centers out."""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from fer_fast.terms import ALONE, CenterTerm, Classifier, Peers

from ..host.chips import chip, launch_options
from ..host.launch import Launch, cdiv, dense_rows, gradient_dtype, processors, product_precision, recall, start
from ..large_centers.launch import large_centers
from .arguments import STATISTICS, SUMMED_PROGRAMS, Batch, Center, Head, Outputs, Tables
from .centers import center_rule
from .finish import finish
from .heads import head_rule, scales
from .rows import block_size, rows
from .settings import (
    FINISH_COLUMNS,
    FINISH_OPTIONS,
    HEAD_WARPS,
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
from .shared import divisors_of, large_classifier, over_all, parts_of_means
from .small import small
from .sums import sums
from .table_stats import LABELS, table_stats

_empty = torch.empty


class Rules(NamedTuple):
    """A head, a center loss, and what of their settings other kernels are compiled for."""

    head: Head
    center: Center
    variant: tuple


def rules_of(classifier: Classifier, auxiliary: CenterTerm) -> Rules:
    """What kernels take of two losses, their settings filled in."""
    params, of_center = tuple(classifier.params), (auxiliary.name, tuple(auxiliary.params))
    if classifier.setting is None and not classifier.label_smoothing:
        return _plain_rules(classifier.name, params, *of_center)
    return _rules(head_rule(classifier.name, params, classifier.setting, classifier.label_smoothing), *of_center)


@lru_cache(64)
def _plain_rules(
    classifier: str, classifier_params: tuple[float, ...], auxiliary: str, auxiliary_params: tuple[float, ...]
) -> Rules:
    return _rules(head_rule(classifier, classifier_params), auxiliary, auxiliary_params)


def _rules(head: Head, auxiliary: str, auxiliary_params: tuple[float, ...]) -> Rules:
    rule = center_rule(auxiliary, auxiliary_params)
    kinds = [len(value) if isinstance(value, tuple) else isinstance(value, Tensor) for value in head.a or ()]
    return Rules(head, rule, (rule.paper_slope is None, head.smoothing is None, *kinds))


class Asked(NamedTuple):
    """What is asked of a call beside its tensors; other kernels are compiled for each."""

    family: str  # of the chip
    variant: tuple  # of :class:`Rules`
    mean: bool
    update: bool
    gradient: bool
    precision: tuple[str, bool]
    by_row: bool = False
    learns: bool = False  # whether a setting gets a gradient
    shared: bool = False  # whether other processes have rows, too
    waits: bool = False  # whether these are divided by a mean's divisor after the sweep


class Plan(NamedTuple):
    """How calls of a kind are launched: sizes, what is kept between kernels, and their constants and options."""

    sizes: tuple[tuple, tuple]  # :class:`Sizes` before and behind the weight of the auxiliary loss
    memory: tuple[tuple[tuple, dict] | None, ...]  # arguments of `empty` for the last of `Tables`, then for `Outputs`
    absent: tuple[torch.dtype, ...]  # dtypes of dx, dweight and dbias where they are not wanted
    alone: bool  # all in one launch
    small: dict[str, Any]
    table_stats: dict[str, Any]
    rows: dict[str, Any]
    sums: dict[str, Any]
    finish: dict[str, Any]
    compiled: dict  # of :class:`Launch`


def plan(asked: Asked, batch: Batch, given: tuple[Tensor | None, ...], head: Head, rule: Center) -> Plan:
    """`given` are the first of `Tables`."""
    weight, bias, class_weights, centers, _ = given
    (n, d), num_classes, device = batch.x.shape, len(centers if weight is None else weight), batch.x.device
    group_sizes = tuple([float(len(group)) for group in batch.groups_x])
    of_head, weighted = weight is not None and asked.gradient, asked.mean and class_weights is not None
    weighted = weighted and batch.sample_weights is None and batch.soft_labels is None and not asked.shared
    kinds = of_head + asked.update + bool(asked.update and rule.push)
    repels, unit, lengths = rule.anti.value, head.unit_w.value, head.lengths.value
    beside = "repelling" if repels else "lengths" if lengths else "" if centers is None else "centers"
    beside = None if weight is None else beside
    shape = cut(asked.family, batch.x.element_size(), num_classes, d, kinds, beside, repels)
    # On sm_90 a product of 64 classes by 8 warps would have a side of 32, which was reported to corrupt silently.
    alone = (
        not asked.shared
        and n <= SMALL_BATCH
        and (shape.fused or shape.k < 64)
        and not (repels and num_classes > QUADRATIC_CLASSES)
    )
    resident = PROGRAM_WARPS if weight is None else HEAD_WARPS
    parts = (1, 1, 1) if alone else _parts(shape, num_classes, n, group_sizes, resident, device)
    programs, splits, summed = parts

    found = lengths or rule.spread.value or rule.directions.value
    statistics = (STATISTICS.value + d * (unit + 3 * repels)) * shape.k * found
    slots = triton.next_power_of_2(2 + len(group_sizes)) if group_sizes else int(weighted)
    held, split = kinds * shape.k, kinds > 0 and not shape.fused
    wide, double = ({"dtype": dtype, "device": device} for dtype in (torch.float32, torch.float64))
    leaves = batch.x, weight, bias
    absent = tuple([gradient_dtype(batch.x if t is None else t) for t in leaves])
    if asked.waits:  # dx is rounded once, when it was divided
        absent = torch.float32, *absent[1:]
    memory = (
        ((statistics,), wide) if statistics else None,
        ((summed, slots), double) if slots else None,
        (((),), wide),
        *[
            (tuple(t.shape), {"dtype": dtype, "device": device}) if t is not None and asked.gradient else None
            for t, dtype in zip(leaves, absent, strict=True)
        ],
        ((programs, block_size(d, shape.k, kinds, shape.fused)), wide),
        ((n, held), wide) if split else None,
        ((splits, held, d), wide) if split else None,
        ((n,), wide) if asked.by_row else None,
        ((n,), wide) if asked.learns else None,
    )
    divisor = n if asked.mean and not asked.shared else 1
    sizes = (n, num_classes, 1 if weighted else divisor, divisor), (*parts, group_sizes)
    constants = _constants(asked, shape, d, kinds, of_head, slots, weighted, found or slots > 0)
    return Plan(sizes, memory, absent, alone, **constants, compiled={})


def _constants(
    asked: Asked, shape: Cut, d: int, kinds: int, of_head: bool, slots: int, weighted: bool, stats: bool
) -> dict[str, dict[str, Any]]:
    """Constants and options by the kernel's name."""
    sizes = {"d": d, "K": shape.k, "SLOTS": slots, "WEIGHTED": weighted}
    tile, small_tile = (
        {"R": of.block_n, "P": of.parts, "W": shape.d // of.parts} for of in (shape.tile, shape.small_tile)
    )
    every = sizes | {"KINDS": kinds, "UPDATE": asked.update, "FUSED": shape.fused}
    precision, tensor_cores = asked.precision
    of_rows = every | {"M": shape.m, "MEAN": asked.mean, "HELD": shape.held}
    of_rows |= {"PRECISION": precision, "TENSOR_CORES": tensor_cores}
    of_table = _chunks(d, shape.block_d)
    of_sums = {"d": d, "K": shape.k, "KINDS": kinds, "HEAD": of_head, "UPDATE": asked.update}
    of_sums |= {"R": SUMS_ROWS, "TENSOR_CORES": tensor_cores, **_chunks(d, min(shape.d, SUMS_COLUMNS))}
    return {
        "small": of_rows | small_tile | of_table | {"STATS": stats} | launch_options(shape.small_tile.num_warps),
        "table_stats": sizes | tile | of_table | TABLE_OPTIONS,
        "rows": of_rows | tile | launch_options(shape.tile.num_warps),
        "sums": of_sums | SUMS_OPTIONS,
        "finish": every | _chunks(d, min(shape.d, FINISH_COLUMNS)) | FINISH_OPTIONS,
    }


def _chunks(d: int, width: int) -> dict[str, int]:
    return {"BLOCK_D": width, "CHUNKS": cdiv(d, width)}


def class_table(
    x: Tensor,
    y: Tensor,
    classifier: Classifier,
    auxiliary: CenterTerm,
    sample_weights: Tensor | None,
    soft_labels: Tensor | None,
    reduction: str,
    update: bool,
    gradient: bool,
    status: Tensor | None = None,
    kind: dict | None = None,
    peers: Peers = ALONE,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """classifier(x, y) + factor · auxiliary(x, y): loss, dx, dweight, dbias, dsetting; centers move in place.

    x (n, d), y (n,). Large tables are :mod:`..large_classifier`'s and :mod:`..large_centers`'. sample_weights w (n,)
    multiply rows, soft_labels (n, C) are a classifier's in place of y, then the largest of each. The mean divides by
    Σ w, a classifier's with class weights by Σ w W_y; "none" gives the losses of the rows (n,). A label outside [0, C)
    makes the loss NaN and goes to `status` (1,). `kind` remembers the plans of calls alike in all but the values of
    tensors, all of them aligned. Sums over rows are taken over all `peers`, between the kernels that leave them and the
    one that makes use of them.
    """
    if x.dtype == torch.float64:
        raise NotImplementedError("features in float64")
    num_classes, d = (classifier.weight if classifier.name else auxiliary.centers).shape
    large = num_classes > MOST_CLASSES or d > MOST_COLUMNS
    if peers.group and (auxiliary.groups_x or (auxiliary.name and large)):
        raise NotImplementedError("groups or many centers over several processes")
    if sample_weights is not None:
        sample_weights = sample_weights.float().contiguous()
    family, update, centers = chip(x.device), update and bool(auxiliary.name), auxiliary.centers
    if auxiliary.name and not centers.is_contiguous():
        auxiliary = auxiliary._replace(centers=centers.contiguous())
    if classifier.name and not fits(family, x.element_size(), num_classes, d):
        if soft_labels is not None:
            raise NotImplementedError("soft labels of many classes")
        results = large_classifier(x, y, classifier, sample_weights, reduction, gradient, status, peers)
        if auxiliary.name:
            more, pull, *_ = class_table(
                x, y, Classifier(), auxiliary, sample_weights, None, reduction, update, gradient, status, kind, peers
            )
            results = results[0] + more, results[1].add_(pull), *results[2:]
    elif auxiliary.name and large:
        loss, dx = large_centers(x, y, auxiliary, sample_weights, reduction, update, gradient, status)
        results = loss, dx, _none(x), _none(x), _none(x)
    else:
        batch = batch_of(x, y, auxiliary, sample_weights, soft_labels, status)
        results = _small_table(batch, classifier, auxiliary, reduction, update, gradient, kind, peers)
    if update and auxiliary.centers is not centers:
        centers.copy_(auxiliary.centers)
    return results


def batch_of(
    x: Tensor,
    y: Tensor,
    auxiliary: CenterTerm,
    sample_weights: Tensor | None,
    soft_labels: Tensor | None,
    status: Tensor | None,
) -> Batch:
    """What kernels read of the rows and of MVA's groups, laid out as they want it."""
    groups = tuple(map(dense_rows, auxiliary.groups_x)), tuple([of.contiguous() for of in auxiliary.groups_y])
    soft = None if soft_labels is None else soft_labels.contiguous()
    return Batch(dense_rows(x), y.contiguous(), status, *groups, sample_weights, soft, auxiliary.group_rows)


def _small_table(
    batch: Batch,
    classifier: Classifier,
    auxiliary: CenterTerm,
    reduction: str,
    update: bool,
    gradient: bool,
    kind: dict | None,
    peers: Peers,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """:func:`class_table` of tables that a program holds."""
    mean, setting, rules = reduction == "mean", classifier.setting, rules_of(classifier, auxiliary)
    weight = None if classifier.weight is None else classifier.weight.contiguous()
    given = weight, classifier.bias, classifier.class_weights, auxiliary.centers, auxiliary.class_weights
    learns = gradient and setting is not None and scales(rules.head.a)
    family, shared = chip(batch.x.device), bool(peers.group)
    two_means = bool(classifier.name and auxiliary.name) and classifier.class_weights is not None
    waits = shared and mean and not two_means
    asked = family, rules.variant, mean, update, gradient, product_precision(), reduction == "none", learns
    asked += shared, waits
    found = recall(kind, asked, lambda: plan(Asked(*asked), batch, given, *rules[:2]))
    divisors = found.sizes[0][2:]
    if mean and (shared or batch.sample_weights is not None):
        parts = parts_of_means(batch.y, batch.sample_weights, None if batch.soft_labels is not None else given[2])
        if not waits:
            divisors = divisors_of(*peers.total(torch.float32, *parts))
    results, launches, along_logits = launches_of(found, batch, given, *rules[:2], auxiliary.factor, divisors)
    for launch in launches[:-1] if shared else launches:
        start(launch)
    along = along_logits.double().sum() if learns else batch.x.new_zeros(0)
    if shared:
        last, waiting, along = over_all(launches[-1], peers, parts[not classifier.name] if waits else along[:0], along)
        start(last)
        if waits:
            divisors = waiting, waiting
            results = results[0], (results[1] / waiting).to(gradient_dtype(batch.x)), *results[2:]
    dsetting = _none(batch.x) if setting is None else torch.zeros_like(setting) if gradient else _none(setting)
    if learns:  # a scale: the logits are proportional to it
        dsetting = (along / (setting * divisors[0])).to(dsetting.dtype)
    return *results, dsetting


def launches_of(
    plan: Plan,
    batch: Batch,
    given: tuple[Tensor | None, ...],
    head: Head,
    rule: Center,
    auxiliary_weight: float,
    divisors: tuple[Tensor | int, Tensor | int],
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], list[Launch], Tensor | None]:
    """Loss, dx, dweight and dbias, still empty, the launches that fill them, and Σ_j d loss/d f_j f_j of the rows where
    a setting learns; `given` are the first of `Tables`."""
    (before, behind), memory, absent, *_ = plan
    sizes = (*before[:2], *divisors, auxiliary_weight, *behind)
    statistics, known, *rest = [None if of is None else _empty(*of[0], **of[1]) for of in memory]
    tables, out = Tables(*given, statistics, known), Outputs(*rest)
    x_stride, group_strides = batch.x.stride(0), tuple([group.stride(0) for group in batch.groups_x])
    if plan.alone:
        arguments = (batch, tables, out, head, rule, *sizes, x_stride, group_strides)
        launches = [Launch(small, (1, 1, 1), arguments, plan.small, plan.compiled)]
    else:
        n, num_classes, *_, programs, splits, summed, group_sizes = sizes
        arguments = (batch, tables, out, head, rule, *sizes, x_stride)
        launches = [Launch(rows, (programs, 1, 1), arguments, plan.rows, plan.compiled)]
        if statistics is not None or known is not None:
            arguments = (batch, tables, head, rule, n, num_classes, group_sizes, x_stride, group_strides)
            launches.insert(0, Launch(table_stats, (summed, 1, 1), arguments, plan.table_stats, plan.compiled))
        if out.sums is not None:
            grid = (splits, plan.sums["CHUNKS"], 1)
            launches.append(Launch(sums, grid, (batch, out, n, x_stride), plan.sums, plan.compiled))
        arguments = (tables, out, head, rule, *sizes[1:-1])  # all but n and MVA's
        launches.append(Launch(finish, (plan.finish["CHUNKS"], 1, 1), arguments, plan.finish, plan.compiled))
    # An operator's results may not share memory: each missing gradient is an empty tensor of its own.
    gradients = zip(out[1:4], absent, strict=True)
    results = [_empty(0, dtype=dtype, device=batch.x.device) if t is None else t for t, dtype in gradients]
    return (out.loss if out.losses is None else out.losses, *results), launches, out.along_logits


def _none(like: Tensor) -> Tensor:
    return _empty(0, dtype=gradient_dtype(like), device=like.device)


def _parts(
    shape: Cut, num_classes: int, n: int, group_sizes: tuple[float, ...], warps: int, device: torch.device
) -> tuple[int, int, int]:
    """Programs of `rows`, splits of `sums` and programs of `table_stats` of a large batch."""
    # Two tiles each at least: a block of sums is as long as a tile.
    programs = min(cdiv(n, shape.tile.block_n) // 2, processors(device) * max(1, warps // shape.tile.num_warps))
    splits = min(n // (4 * SUMS_ROWS), 2 * processors(device))
    share = 4 * shape.tile.block_n if group_sizes else LABELS.value
    summed = min(SUMMED_PROGRAMS.value, cdiv(max(n, *map(int, group_sizes), 1), share))
    return max(1, programs), max(1, splits), max(num_classes, summed)
