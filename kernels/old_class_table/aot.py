"""The class table's cases for ahead-of-time compilation."""

from collections.abc import Iterator
from itertools import product
from typing import Any

from ..host.aot import TYPES, aot_case, type_of
from ..host.chips import launch_options
from ..host.launch import MOST_PROGRAMS
from .epilogues.class_table import AUXILIARIES, CLASSIFIERS
from .large import CLASS_OPTIONS, class_kernel, config_of, row_kernel, row_options, slice_kernel
from .launch import SUMS_FLAGS, plan_of
from .rows import class_table_rows
from .scales import class_table_scales
from .settings import SCALES_WARPS, SUMS_TILES
from .sums import class_table_sums

_AOT_PARAMS = {
    **{"softmax": [], "lmcl": [30.0, 0.35], "a-softmax": [4.0, 5.0], "l-softmax": [4.0, 5.0]},
    **{"center": [0.5], "island": [10.0, 0.5], "variant": [0.4, 0.6, 0.01, 0.01, 0.5, 1.0]},
    **{"weighted-cluster": [1.0, 1.0], "affinity": [0.5], "mva": [0.5]},
}
_AOT_LOSSES = [
    *((name, "") for name in CLASSIFIERS),
    *(("", name) for name in AUXILIARIES),
    ("softmax", "center"),
    ("lmcl", "variant"),
]
_AOT_SHAPES = [(8, 512), (8, 1024), (8, 2048), (64, 512), (64, 2048)]


def aot_cases(family: str) -> Iterator[tuple]:
    """Every epilogue at the settings of representative shapes, scales of both kinds, and large tables."""
    yield from _scales_cases(family)
    yield from _large_cases(family)
    for (classifier, auxiliary), (num_classes, d), dtype in product(_AOT_LOSSES, _AOT_SHAPES, TYPES):
        of, size = TYPES[dtype], dtype.itemsize
        asked = (classifier, auxiliary, auxiliary == "variant", bool(auxiliary), True)
        plan = plan_of(family, num_classes, d, size, *asked, "ieee", family != "cdna")
        flags, head, rule = plan.constexprs, plan.classifier, plan.auxiliary
        table, centers = "*fp32" if classifier else None, "*fp32" if auxiliary else None
        bias = "*fp32" if classifier == "softmax" else None
        floats = dict.fromkeys(("loss_ptr", "scratch_ptr", "stats_ptr", "slabs_ptr", "g_ptr", "push_ptr"), "*fp32")
        types = floats | {
            "x_ptr": f"*{of}",
            "dx_ptr": "*bf16" if of == "bf16" else "*fp32",
            **dict.fromkeys(("w_ptr", "dw_ptr"), table),
            **dict.fromkeys(("bias_ptr", "dbias_ptr", "class_weights_ptr"), bias),
            **dict.fromkeys(("c_ptr", "center_weights_ptr"), centers),
            **dict.fromkeys(("y_ptr", "status_ptr"), "*i64"),
            **dict.fromkeys(("n", "num_classes", "d", "x_stride", "classifier_divisor", "divisor"), "i32"),
            "scales_ptr": "*fp32",
            "losses_ptr": "*fp64",
            "counters_ptr": "*i32",
            "auxiliary_weight": "fp32",
            "classifier": type_of(head.arguments(*_AOT_PARAMS.get(classifier, []))),
            "auxiliary": type_of(rule.arguments(*_AOT_PARAMS.get(auxiliary, []))),
        }
        loss = "+".join(filter(None, (classifier, auxiliary)))
        name = f"{loss}-{of}-{num_classes}-{d}"
        usual = (num_classes, d) == (8, 512) and (classifier, auxiliary) in _AOT_LOSSES[-2:]
        wide = (num_classes, d, of) == (8, 2048, "bf16") and (classifier, auxiliary) == _AOT_LOSSES[-1]
        marked = "*" if usual or wide else ""
        yield aot_case(f"rows-{name}{marked}", class_table_rows, types, flags | {"d": d}, plan.tile.options)
        if not flags["FUSED"]:
            tile = SUMS_TILES[family, size, flags["K"]]
            sums = {name: flags[name] for name in SUMS_FLAGS} | {"BLOCK_N": tile.block_n, "BLOCK_D": tile.block_d}
            yield aot_case(f"sums-{name}{marked}", class_table_sums, types, sums, tile.options)


def _scales_cases(family: str) -> Iterator[tuple]:
    types = dict.fromkeys(("class_weights_ptr", "c_ptr", "scales_ptr"), "*fp32")
    types |= dict.fromkeys(("y_ptr", "status_ptr"), "*i64")
    types |= dict.fromkeys(("n", "num_classes", "d", "x_stride"), "i32")
    types |= dict.fromkeys(("sizes", "group_strides"), ("i32",) * 4)
    types |= {"partials_ptr": "*fp64", "counter_ptr": "*i32", "groups_y": ("*i64",) * 4}
    for dtype, of in TYPES.items():
        flags = plan_of(family, 8, 512, dtype.itemsize, "softmax", "mva", False, True, True, "ieee", True).constexprs
        constexprs = {name: flags[name] for name in ("K", "BLOCK_N", "BLOCK_D", "CHUNKS")}
        constexprs |= {"GROUPS": 8, "WEIGHTED": True, "MVA": True, "MEAN": True, "PROGRAMS": MOST_PROGRAMS}
        rows = {"x_ptr": f"*{of}", "groups_x": (f"*{of}",) * 4}
        name = f"scales-mva-{of}{'*' if of == 'bf16' else ''}"
        yield aot_case(name, class_table_scales, types | rows, constexprs, launch_options(SCALES_WARPS))


def _large_cases(family: str) -> Iterator[tuple]:
    """Every kernel with every epilogue at d = 512, for the audit."""
    pointers = ("center_weights", "squared", "inverse", "scalars", "rows", "loss", "push", "pushed", "push_total", "c")
    shared: dict[str, Any] = {f"{name}_ptr": "*fp32" for name in pointers}
    shared |= {f"{name}_ptr": "*i64" for name in ("y", "status", "order", "starts", "labels")}
    shared |= dict.fromkeys(("n", "num_classes", "d", "x_stride", "divisor", "slice_rows"), "i32")
    shared |= {"losses_ptr": "*fp64", "counter_ptr": "*i32", "auxiliary_weight": "fp32", "slices_ptr": "*fp32"}
    for name in ("center", "island", "variant", "weighted-cluster", "affinity"):
        rule, params, push = AUXILIARIES[name], _AOT_PARAMS[name], name == "variant"
        functions = {"ROW_LOSS": rule.loss, "CLASS_SCALAR": rule.scalar, "CONSTANT": rule.constant, "MOVE": rule.move}
        functions |= {"PUSH_WEIGHT": rule.push, "PAPER_SLOPE": rule.paper_slope, "SPREADS": rule.spread}
        functions |= {"ANTI": rule.anti, "COSINE": rule.directions, "PAPER": push, "PUSH": push}
        for dtype in ("fp32", "fp16", "bf16"):
            types = shared | {
                "auxiliary": type_of(rule.arguments(*params)),
                "x_ptr": f"*{dtype}",
                "dx_ptr": f"*{dtype}",
            }
            types |= {"dx_ptr": "*bf16" if dtype == "bf16" else "*fp32"}
            flags = functions | config_of(512)
            rows = (row_kernel, row_options(family, 512))
            for kernel, options in (rows, (slice_kernel, CLASS_OPTIONS), (class_kernel, CLASS_OPTIONS)):
                constexprs = {a: flags[a] for a in kernel.arg_names if a in flags}
                case = f"{kernel.__name__}-{name}-{dtype}{'*' if (name, dtype) == ('variant', 'bf16') else ''}"
                yield aot_case(case, kernel, types, constexprs, options)
