"""The primitives' cases for ahead-of-time compilation."""

from collections.abc import Iterator

import torch

from ..host.aot import TYPES, aot_case, mark, products_to_compile
from ..host.chips import pick_tile
from .anti_center import anti_center
from .center_spreads import center_spreads
from .distance_gradient import distance_gradient
from .distance_matrix import distance_matrix
from .settings import ANTI_CENTER_ROWS as ROWS
from .settings import DIFFERENCES, MATRIX_GRADIENT_TILES, MATRIX_TILES
from .similarity_gradient import similarity_gradient
from .similarity_matrix import similarity_matrix


def aot_cases(family: str) -> Iterator[tuple]:
    """Every kernel at every dtype, for the audit."""
    ints = dict.fromkeys(("n", "num_classes", "d", "x_stride", "center_stride", "grad_stride"), "i32")
    types = ints | dict.fromkeys(("grad", "matrix", "gradients", "distances"), "*fp32") | {"y": "*i64"}
    types |= dict.fromkeys(("mean", "spreads", "rest"), "*fp64") | {"outlier": "*i64"}
    for name, tile, dtype, width in products_to_compile(MATRIX_TILES, family):
        flags, given = tile.constexprs, types | {"u": f"*{TYPES[dtype]}"}
        case = mark(name, dtype == torch.bfloat16)
        yield aot_case(f"similarity-matrix-{case}", similarity_matrix, given, flags, tile.options)
        backward = pick_tile(MATRIX_GRADIENT_TILES, family, name.split("-")[1], width)
        flags |= backward.constexprs
        yield aot_case(f"similarity-gradient-{case}", similarity_gradient, given, flags, backward.options)
    blocks = DIFFERENCES.constexprs | {"CHUNK": DIFFERENCES.block_k}
    flat = {"BLOCK": ROWS.block_m, "BLOCK_D": ROWS.block_d}
    sums, visits = DIFFERENCES.options, ROWS.options
    for of in TYPES.values():
        rows = types | {"x": f"*{of}", "centers": "*fp32", "dx": f"*{of}", "output": f"*{of}"}
        yield aot_case(mark(f"distance-gradient-{of}", of == "bf16"), distance_gradient, rows, blocks, sums)
        yield aot_case(f"anti-center-gradient-{of}", anti_center, rows, flat | {"GRADIENT": True}, visits)
        summed = rows | {"output": "*fp32"}
        case = mark(f"anti-center-{of}", of == "bf16")
        yield aot_case(case, anti_center, summed, flat | {"GRADIENT": False}, visits)
    tables = types | {"x": "*fp32", "centers": "*fp32"}
    yield aot_case(mark("distance-matrix", True), distance_matrix, tables, blocks, sums)
    yield aot_case(mark("center-spreads", True), center_spreads, tables, flat, visits)
