"""The kernels' cases for ahead-of-time compilation."""

from collections.abc import Iterator

from ..host.aot import TYPES, aot_case, mark
from .class_terms import class_terms
from .extremes import extremes
from .gradient import range_gradient
from .settings import RANGE_PAIRS
from .settings import RANGE_ROWS as ROWS
from .total import total_loss


def aot_cases(family: str) -> Iterator[tuple]:
    """Every kernel for k = 2 and k = 8 and every dtype, for the audit."""
    types = {"n": "i32", "d": "i32"} | dict.fromkeys(("alpha", "beta", "margin"), "fp32")
    types |= dict.fromkeys(("table", "values", "means", "slopes", "losses", "hinge_slope", "loss"), "*fp32")
    types |= dict.fromkeys(("partners", "pairs"), "*i32")
    types |= dict.fromkeys(("ends", "starts", "order", "index", "classes", "nearest"), "*i64")
    tile, flat = RANGE_PAIRS[family], {"BLOCK": ROWS.block_m, "BLOCK_D": ROWS.block_d}
    sums = tile.constexprs | {"CHUNK": tile.block_k}
    nearest = {"LARGEST": False, "K": 1, "SLOTS": 1}
    yield aot_case(mark("nearest-means", True), extremes, types, sums | nearest, tile.options)
    yield aot_case(mark("total", True), total_loss, types, flat, ROWS.options)
    for k in (2, 8):
        lists = {"K": k, "SLOTS": k}
        widest = sums | lists | {"LARGEST": True}
        yield aot_case(mark(f"widest-pairs-{k}", True), extremes, types, widest, tile.options)
        for of in TYPES.values():
            rows = types | {"x": f"*{of}", "dx": f"*{of}"}
            common = of == "bf16" and k == 2
            yield aot_case(mark(f"class-terms-{of}-{k}", common), class_terms, rows, flat | lists, ROWS.options)
            yield aot_case(mark(f"gradient-{of}-{k}", common), range_gradient, rows, flat | lists, ROWS.options)
