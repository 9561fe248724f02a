"""Cases for ahead-of-time compilation, which every engine yields from the tables its launcher reads."""

from collections.abc import Iterator, Mapping

import torch

from .chips import Tile

TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def type_of(value: object) -> object:
    """A kernel argument's type as ahead-of-time compilation names it: numbers are fp32, tuples keep their class."""
    if isinstance(value, tuple):
        types = [type_of(v) for v in value]
        return type(value)(*types) if hasattr(value, "_fields") else tuple(types)
    return "fp32"


def aot_case(
    name: str,
    kernel,
    types: Mapping[str, object],
    constexprs: Mapping[str, object],
    options: Mapping[str, int],
) -> tuple:
    """(name, kernel, signature, constexprs, attrs, options of the launch) to compile a kernel ahead of time.

    `types` by argument name, None for a pointer left out; arguments without a type are constexprs. As a launch finds
    them: pointers, widths and row strides are divisible by 16, other integers unknown.
    """
    given = {argument: value for argument, value in constexprs.items() if argument in kernel.arg_names}
    given |= {argument: None for argument in kernel.arg_names if argument in types and types[argument] is None}
    signature = {
        argument: "constexpr" if argument in given else types.get(argument, "constexpr")
        for argument in kernel.arg_names
    }
    aligned = [
        place
        for place, (argument, of) in enumerate(signature.items())
        if str(of).startswith("*") or (of != "constexpr" and (argument == "d" or argument.endswith("_stride")))
    ]
    attrs = {(place,): [["tt.divisibility", 16]] for place in aligned}
    return name, kernel, signature, given, attrs, options


def mark(name: str, representative: bool) -> str:
    """The name of a case for the audit, which compiles the marked ones in every run of the tests."""
    return f"{name}*" if representative else name


def products_to_compile(table: Mapping[tuple[str, str, int], Tile], family: str) -> Iterator[tuple]:
    """(name, tile, dtype, width) of every setting of a chip family, for `aot_cases`."""
    for (of, kind, width), tile in table.items():
        for dtype in {"half": (torch.bfloat16, torch.float16)}.get(kind, (torch.float32,)) if of == family else ():
            d = min(width, 1024)
            yield f"{TYPES[dtype]}-{kind}-{d}", tile, dtype, d
