"""The contrastive kernels' cases for ahead-of-time compilation."""

from collections.abc import Iterator

import torch

from ..host.aot import TYPES, aot_case, mark, products_to_compile
from ..host.chips import launch_options, pick_tile
from ..host.sweep_tiles import SWEEP_TILES
from .add_parts import add_parts
from .batch_gradient import batch_gradient
from .combine import combine
from .finish import finish
from .launch import MODES
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


def aot_cases(family: str) -> Iterator[tuple]:
    """Every kernel at every setting of a chip family, for the audit."""
    shared = dict.fromkeys(("n", "batch", "m", "splits", "parts", "size", "tiles"), "i32")
    shared |= dict.fromkeys(("scale", "inverse", "largest"), "fp32")
    shared |= dict.fromkeys(("y", "bank_y"), "*i64") | dict.fromkeys(("labels", "bank_labels"), "*i32")
    buffers = ("bound", "statistics", "values", "row_peak", "row_share", "row_pull", "partial", "result")
    shared |= dict.fromkeys((*buffers, "loss", "factor"), "*fp32") | {"weight": None, "slope": None}
    learnt = dict.fromkeys(("scale", "inverse", "largest", "weight", "slope"), "*fp32")
    parts = {"gradients": "*fp32", "dz": "*bf16"}
    yield aot_case("add-parts*", add_parts, shared | parts, {"BLOCK": ADD_BLOCK}, launch_options(ADD_WARPS))
    sums = {"MEAN": True, "RAISE": 0, "BLOCK": FINISH_BLOCK}
    yield aot_case("finish*", finish, shared, sums, launch_options(FINISH_WARPS))
    yield aot_case("finish-learnt*", finish, shared | learnt, sums | {"MEAN": False}, launch_options(FINISH_WARPS))
    for name, tile, dtype, d in products_to_compile(SWEEP_TILES, family):
        types = shared | dict.fromkeys(("z", "bank_z", "gradients"), f"*{TYPES[dtype]}")
        flags = dict.fromkeys(("d", "z_stride", "bank_stride"), d) | {"GRADIENT": True, "SLOPES": False}
        flags |= {"SHIFT": weight_shift(dtype), "MOST": largest_bound(dtype), "POSITIVES": True, "WEIGHTED": False}
        rows = {
            "PAIRED": False,
            "JOIN": True,
            "POSITIVES": True,
            "SLOPES": False,
            "RAISE": product_raise(dtype),
            "BLOCK": COMBINE_ROWS,
            "BLOCK_D": COMBINE_COLUMNS,
        }
        common = (dtype, d) == (torch.bfloat16, 256) or (tile.precision, d) == ("bf16x6", 128)
        sizes = types | {"d": "i32", "z_stride": "i32"}
        yield aot_case(mark(f"combine-{name}", common), combine, sizes, rows, launch_options(COMBINE_WARPS))
        rows |= {"PAIRED": True, "SLOPES": True}
        yield aot_case(f"combine-learnt-{name}", combine, sizes | learnt, rows, launch_options(COMBINE_WARPS))
        batch_tile = pick_tile(BATCH_TILES, family, name.split("-")[1], d)
        for mode, rule in MODES.items():
            given = flags | {"BANK": rule.bank, "PAIRED": rule.paired, "OWN_LABEL": rule.own_label}
            case = mark(f"{mode}-{name}", common and mode == "ensc")
            yield aot_case(f"sweep-{case}", sweep, types, given | tile.constexprs, tile.options)
            yield aot_case(f"batch-{case}", batch_gradient, types, given | batch_tile.constexprs, batch_tile.options)
            of, constants = types | learnt, given | {"SLOPES": True, "WEIGHTED": True}
            case = mark(f"{mode}-{name}", common and mode == "ensc" and dtype == torch.bfloat16)
            yield aot_case(f"sweep-learnt-{case}", sweep, of, constants | tile.constexprs, tile.options)
            constants |= batch_tile.constexprs
            yield aot_case(f"batch-weighted-{case}", batch_gradient, of, constants, batch_tile.options)
