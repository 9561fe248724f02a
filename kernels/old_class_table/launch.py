"""Class-table engine: classifier and center-family losses of one feature batch, launched."""

from functools import cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ..ad_corre.slabs import BLOCK_ROWS, FAN_IN
from ..host.chips import LEAST_ROWS, chip, launch_options
from ..host.launch import (
    MOST_PROGRAMS,
    arrival_counters,
    cdiv,
    gradient_dtype,
    max_programs,
    product_precision,
    rows_of,
)
from ..large_classifier.launch import large_classifier
from .epilogues.center import no_push
from .epilogues.class_table import AUXILIARIES, CLASSIFIERS, NO_AUXILIARY, NO_CLASSIFIER, Auxiliary, Classifier
from .large import class_table_large
from .rows import class_table_rows
from .scales import class_table_scales
from .settings import (
    CLASS_TILES,
    PUSHED_TILES,
    SCALES_WARPS,
    SLAB_CLASSES,
    SLAB_COLUMNS,
    STORED_ELEMENTS,
    STORED_TILES,
    SUMS_TILES,
    ClassTile,
)
from .sums import class_table_sums

FUSED_CLASSES, FUSED_COLUMNS = 64, 2048


SUMS_FLAGS = ("K", "KINDS", "UNIT_W", "LENGTHS", "MOVE", "UPDATE", "PUSH", "PRECISION", "TENSOR_CORES")
_empty = torch.empty


class _Plan(NamedTuple):
    """The two rows of the tables of epilogues, the tile of one program, and what the kernels are compiled for."""

    classifier: Classifier
    auxiliary: Auxiliary
    tile: ClassTile
    constexprs: dict[str, Any]


@cache
def plan_of(
    family: str, num_classes: int, d: int, element_size: int,
    classifier: str, auxiliary: str, paper: bool, update: bool, gradient: bool, precision: str, tensor_cores: bool,
) -> _Plan:  # fmt: skip
    """How a kind of call is launched. Remembered: at batch 64 a call costs what its host does."""
    head = CLASSIFIERS[classifier] if classifier else NO_CLASSIFIER
    rule = AUXILIARIES[auxiliary] if auxiliary else NO_AUXILIARY
    push = update and rule.push is not no_push
    k = max(16, triton.next_power_of_2(num_classes))
    width = max(64 if k == 64 else 16, triton.next_power_of_2(d))  # no side below 64 for the unit of sm_90
    tile = CLASS_TILES[family, element_size, width]
    # What a program holds, in sums per class; a margin in float32 and its angle take as much again as two, and so do
    # the products with more than 32 classes.
    sums = bool(classifier and gradient) * (3 if head.exact_own or k == 64 else 1) + update + 3 * push
    resident = sums * k <= 16 * tile.accumulators
    fused = resident or (k <= SLAB_CLASSES and d <= SLAB_COLUMNS)
    if fused and classifier and push:
        tile = PUSHED_TILES.get((element_size, width), tile)
    if not fused:
        stored = STORED_TILES[family]
        tile = stored._replace(block_d=min(stored.block_d, tile.block_d, STORED_ELEMENTS[element_size] // k))
    tile = tile._replace(block_n=max(tile.block_n, LEAST_ROWS))
    constexprs = {
        "K": k,
        "BLOCK_N": tile.block_n,
        "BLOCK_D": tile.block_d,
        "CHUNKS": cdiv(d, tile.block_d),
        "PARTS": max(1, min(tile.num_warps, tile.block_d // 16)),
        "CLASSIFIER": bool(classifier),
        "LOGITS": head.logits,
        "CHAIN": head.chain,
        "UNIT_X": head.unit_x,
        "UNIT_W": head.unit_w,
        "LENGTHS": head.lengths,
        "EXACT_OWN": head.exact_own and element_size < 4,
        "AUXILIARY": bool(auxiliary),
        "ROW_LOSS": rule.loss,
        "CLASS_SCALAR": rule.scalar,
        "CONSTANT": rule.constant,
        "PUSH_WEIGHT": rule.push,
        "PAPER_SLOPE": rule.paper_slope,
        "MOVE": rule.move,
        "SPREAD": rule.spread,
        "ANTI": rule.anti,
        "DIRECTIONS": rule.directions,
        "PAPER": paper,
        "UPDATE": update,
        "PUSH": push,
        "KINDS": bool(classifier and gradient) + update + push,
        "FUSED": fused,
        "RESIDENT": resident,
        "PRECISION": precision,
        "TENSOR_CORES": tensor_cores,
    }
    return _Plan(head, rule, tile, constexprs)


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

    x (n, d), y (n,), weight and centers (C, d). One launch and one read of x for C <= 16 and d <= 1024. A launch and a
    read more where the sums of more classes or columns outgrow registers and caches; a program then visits its tile of
    rows several times, in the L1. A launch before, for the factors of MVA (a read of x and of the groups, lists of
    (n_v, d) and (n_v,), where they lie) and of a weighted mean (a read of the labels alone). Centers of more than 64
    classes take :mod:`.large`, such classifiers, and those of wide features, :mod:`..large_classifier`. A label outside
    [0, C) makes the loss NaN and goes to `status` (1,). Floor: n·d elements read and written, n labels read; 6·n·C·d
    operations for a classifier.
    """
    num_classes, d = (weight if classifier else centers).shape
    if num_classes > FUSED_CLASSES or d > FUSED_COLUMNS:
        attract = (center_weights, auxiliary, auxiliary_params, auxiliary_weight, mean, update, gradient, status)
        classify = (weight, bias, class_weights, classifier, classifier_params, mean, gradient, status)
        return _many_classes(x, y, centers, attract, classify)
    if x.dtype == torch.float64:
        raise NotImplementedError("features in float64")
    n, new = len(x), {"device": x.device}
    x, y, update = rows_of(x), y.contiguous(), update and bool(auxiliary)
    paper = auxiliary == "variant" and auxiliary_params[5] != 0
    asked = (classifier, auxiliary, paper, update, gradient)
    plan = plan_of(chip(x.device), num_classes, d, x.element_size(), *asked, *product_precision())
    tile, flags = plan.tile, plan.constexprs
    weight = weight.contiguous() if classifier else None
    table = centers.contiguous() if auxiliary else None
    by_weights, scales = mean and class_weights is not None, None
    if by_weights or auxiliary == "mva":
        summed = class_weights if mean else None
        scales = _scales(plan, x, y, summed, table, groups_x, groups_y, num_classes, mean, status)
    loss = _empty((), dtype=torch.float32, **new)
    dx = _empty((n, d), dtype=gradient_dtype(x), **new) if gradient else None
    dweight = _empty((num_classes, d), dtype=gradient_dtype(weight), **new) if gradient and classifier else None
    dbias = _empty((num_classes,), dtype=gradient_dtype(bias), **new) if gradient and bias is not None else None
    fused, k, programs = flags["FUSED"], flags["K"], min(cdiv(n, tile.block_n), max_programs(x.device))
    blocks = _blocks(programs)
    # Sums per class, of which slabs are those of rows, and what is found of the tables: `scratch_of` lays it out.
    scratch = k * ((blocks + 2) * BLOCK_ROWS.value + (blocks * flags["KINDS"] * d if fused else 0))
    scratch += num_classes * d * (plan.classifier.unit_w + plan.auxiliary.anti)
    arguments = {
        "x_ptr": x,
        "y_ptr": y,
        "w_ptr": weight,
        "bias_ptr": bias,
        "class_weights_ptr": class_weights,
        "c_ptr": table,
        "center_weights_ptr": center_weights,
        "scales_ptr": scales,
        "status_ptr": status,
        "losses_ptr": _empty((programs, 2), dtype=torch.float64, **new),
        "loss_ptr": loss,
        "dx_ptr": dx,
        "dw_ptr": dweight,
        "dbias_ptr": dbias,
        "scratch_ptr": _empty((scratch,), dtype=torch.float32, **new),
        "counters_ptr": arrival_counters(x.device),
        "g_ptr": None if fused or dweight is None else _empty((n, k), dtype=torch.float32, **new),
        "push_ptr": None if fused or not flags["PUSH"] else _empty((n,), dtype=torch.float32, **new),
        "classifier": plan.classifier.arguments(*classifier_params),
        "auxiliary": plan.auxiliary.arguments(*auxiliary_params),
        "n": n,
        "num_classes": num_classes,
        "d": d,
        "x_stride": x.stride(0),
        "classifier_divisor": n if mean and not by_weights else 1,
        "divisor": n if mean else 1,
        "auxiliary_weight": auxiliary_weight,
    }
    class_table_rows[(programs,)](**arguments, **flags, **tile.options)
    if not fused:
        stats = arguments["scratch_ptr"][(blocks - 1) * BLOCK_ROWS.value * k :]
        _sum_rows(plan, arguments, stats)
    if update and table is not centers:
        centers.copy_(table)
    # An operator's results may not share memory: each missing gradient is an empty tensor of its own.
    given = ((dx, x), (dweight, x if weight is None else weight), (dbias, x if bias is None else bias))
    return loss, *(_empty((0,), dtype=gradient_dtype(t), **new) if g is None else g for g, t in given)


def _many_classes(
    x: Tensor, y: Tensor, centers: Tensor | None, attract: tuple, classify: tuple
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """:func:`class_table` of large tables: a sweep for the centers and one for the classifier, whose dx are added."""
    auxiliary, update, wide = attract[1], attract[5], x.shape[1] > FUSED_COLUMNS
    if x.dtype == torch.float64 or auxiliary == "mva" or (auxiliary and wide):
        raise NotImplementedError(
            "features in float64, MVA of more than 64 classes, or centers of more than 2048 columns"
        )
    results = large_classifier(x, y, *classify) if classify[0] is not None else None
    if not auxiliary:
        return results
    table = centers.contiguous()
    loss, dx = class_table_large(chip(x.device), x, y, table, *attract)
    if update and table is not centers:
        centers.copy_(table)
    if results is None:
        return loss, dx, *(_empty((0,), dtype=x.dtype, device=x.device) for _ in range(2))
    of_classifier, dx_of_classifier, dweight, dbias = results
    return of_classifier + loss, dx_of_classifier.add_(dx), dweight, dbias


def _blocks(programs: int) -> int:
    """Blocks of sums: of every program, of every group of programs, and the finished one."""
    return programs + cdiv(programs, FAN_IN.value) + 1


def _sum_rows(plan: _Plan, rows: dict[str, Any], stats: Tensor) -> None:
    """The second launch: sums over rows by chunks of columns, from what the first stored."""
    x, n, d, flags = rows["x_ptr"], rows["n"], rows["d"], plan.constexprs
    tile = SUMS_TILES[chip(x.device), x.element_size(), flags["K"]]
    chunks = cdiv(d, tile.block_d)
    programs = min(cdiv(n, tile.block_n), max(1, 2 * max_programs(x.device) // chunks))
    slabs = _empty((flags["KINDS"], _blocks(programs), flags["K"], d), dtype=torch.float32, device=x.device)
    shared = ("x_ptr", "y_ptr", "w_ptr", "c_ptr", "dw_ptr", "g_ptr", "push_ptr", "counters_ptr", "auxiliary")
    sizes = ("n", "num_classes", "d", "x_stride", "scales_ptr", "classifier_divisor")
    class_table_sums[(programs, chunks)](
        **{name: rows[name] for name in shared + sizes},
        **{name: flags[name] for name in SUMS_FLAGS},
        stats_ptr=stats,
        slabs_ptr=slabs,
        BLOCK_N=tile.block_n,
        BLOCK_D=tile.block_d,
        **tile.options,
    )


def _scales(
    plan: _Plan,
    x: Tensor,
    y: Tensor,
    class_weights: Tensor | None,
    centers: Tensor | None,
    groups_x: list[Tensor],
    groups_y: list[Tensor],
    num_classes: int,
    mean: bool,
    status: Tensor | None,
) -> Tensor:
    """1 / Σ W_y of a weighted mean and α_v of MVA, on the device: one launch for both."""
    mva = plan.auxiliary is AUXILIARIES["mva"]
    groups = [rows_of(group_x) for group_x in groups_x] if mva else []
    slots = triton.next_power_of_2(max(2, 1 + len(groups)))
    scales = _empty((2,), dtype=torch.float32, device=x.device)
    sizes = tuple(len(group_x) for group_x in groups)
    programs = min(cdiv(max(len(x), *sizes, 1), plan.tile.block_n), max_programs(x.device), MOST_PROGRAMS)
    class_table_scales[(programs,)](
        x,
        y,
        class_weights,
        centers,
        tuple(groups),
        tuple(group_y.contiguous() for group_y in groups_y[: len(groups)]),
        sizes,
        tuple(group_x.stride(0) for group_x in groups),
        status,
        scales,
        _empty((programs, 2, slots), dtype=torch.float64, device=x.device),
        arrival_counters(x.device),
        len(x),
        num_classes,
        x.shape[1],
        x.stride(0),
        **{name: plan.constexprs[name] for name in ("K", "BLOCK_N", "BLOCK_D", "CHUNKS")},
        GROUPS=slots,
        WEIGHTED=class_weights is not None,
        MVA=mva,
        MEAN=mean,
        PROGRAMS=MOST_PROGRAMS,
        **launch_options(SCALES_WARPS),
    )
    return scales
