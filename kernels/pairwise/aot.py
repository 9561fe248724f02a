"""The sweep's cases for ahead-of-time compilation."""

from collections.abc import Iterator

import torch

from ..host.aot import TYPES, aot_case, mark, products_to_compile
from .launch import EPILOGUES
from .settings import PAIR_TILES
from .sweep import sweep


def aot_cases(family: str) -> Iterator[tuple]:
    """The sweep with every epilogue at every setting of a chip family, for the audit."""
    types = {"n": "i32", "batch": "i32", "y": "*i64", "labels": "*i32"}
    types |= dict.fromkeys(("long_label", "weights", "gradients", "partial"), "*fp32")
    for name, tile, dtype, d in products_to_compile(PAIR_TILES, family):
        flags = {"GRADIENT": True, "d": d, **tile.constexprs}
        for epilogue, rule in EPILOGUES.items():
            arguments = rule.arguments(*("fp32" for _ in rule.arguments._fields))
            signature = types | {"u": f"*{TYPES[dtype]}", "args": arguments}
            flags["EPILOGUE"] = rule.function
            case = mark(f"sweep-{epilogue}-{name}", dtype == torch.bfloat16 and d == 256)
            yield aot_case(case, sweep, signature, flags, tile.options)
