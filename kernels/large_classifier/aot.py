"""The kernels' cases for ahead-of-time compilation."""

from collections.abc import Iterator
from itertools import product

from ..directions.launch import blocks_of
from ..directions.settings import DIRECTION_ROWS
from ..host.aot import TYPES, aot_case, mark, type_of
from .gradients import row_gradients
from .heads import HEADS, head_of, usual_params
from .settings import row_settings
from .softmax import softmax_rows
from .targets import target_rows

CLASSES = (100, 1000, 100_000)
WIDTH = 512


def aot_cases(family: str) -> Iterator[tuple]:
    """Every head at few and many classes, and the kernels around it at a common width, for the audit."""
    types = dict.fromkeys(("n", "num_classes", "class_offset", "all_classes", "first", "count", "d"), "i32")
    types |= dict.fromkeys(("x_stride", "row_stride"), "i32") | {"y": "*i64", "targets": "*i32", "status": "*i64"}
    types |= dict.fromkeys(("w", "facts", "statistics", "losses", "coefficients", "by_table", "products"), "*fp32")
    for name, (dtype, of) in product(HEADS, TYPES.items()):
        head = head_of(name, usual_params(name))
        bias = "*fp32" if name == "softmax" else None
        gradients = "*bf16" if of == "bf16" else "*fp32"
        given = types | dict.fromkeys(("x", "features", "logits"), f"*{of}") | {"bias": bias, "class_weights": bias}
        given |= {"gradients": gradients, "head": type_of(head.a)}
        flags = {"UNIT_X": head.unit_x, "UNIT_W": head.unit_w, "LENGTHS": head.lengths, "APART": head.apart}
        flags |= {"LOGITS": head.logits, "CHAIN": head.chain, "FIND": True, "FINISH": True, "GRADIENT": True}
        flags |= {"SMOOTH": False}
        for num_classes in CLASSES:
            constexprs, options = row_settings(num_classes, dtype.itemsize)
            plain = given | {"class_weights": None, "along_logits": None}
            case = mark(f"softmax-{name}-{of}-{num_classes}", of == "bf16" and num_classes == CLASSES[-1])
            yield aot_case(case, softmax_rows, plain, flags | constexprs, options)
        if name == "softmax":
            smoothed = given | {"along_logits": None}
            yield aot_case(f"smoothed-{of}", softmax_rows, smoothed, flags | {"SMOOTH": True} | constexprs, options)
        if name == "lmcl":
            learns = plain | {"along_logits": "*fp32", "head": type_of(head.a)._replace(s="*fp32")}
            yield aot_case(f"learns-{of}", softmax_rows, learns, flags | constexprs, options)
        for case, kernel, launched in (
            ("targets", target_rows, True),
            ("gradients", row_gradients, head.unit_x or head.apart),
        ):
            if launched:
                case = mark(f"{case}-{name}-{of}", of == "bf16")
                yield aot_case(case, kernel, given, flags | blocks_of(WIDTH), DIRECTION_ROWS.options)
