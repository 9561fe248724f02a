"""Cases for ahead-of-time compilation, which every engine yields from the tables its launcher reads."""

from collections.abc import Iterator, Mapping

import torch
import triton.language as tl
from triton.runtime.jit import KernelInterface

from .chips import Tile
from .launch import Launch

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


def launch_case(name: str, launch: Launch) -> tuple:
    """:func:`aot_case` of a launch as the launcher would start it, with tensors of any device."""
    kernel, types, constants, attrs = launch.kernel, {}, {}, {}
    of_launch = {key: value for key, value in launch.constants.items() if key in kernel.arg_names}
    for place, (argument, value) in enumerate(dict(zip(kernel.arg_names, launch.arguments, strict=False)).items()):
        varies = kernel.params[place].do_not_specialize
        types[argument] = _type_of_argument(value, (place,), constants, attrs, varies)
    types |= dict.fromkeys(of_launch, "constexpr")
    constants |= of_launch
    options = {key: value for key, value in launch.constants.items() if key not in of_launch}
    return name, kernel, {key: types[key] for key in kernel.arg_names}, constants, attrs, options


def _type_of_argument(value: object, path: tuple[int, ...], constants: dict, attrs: dict, varies: bool) -> object:
    """Its type, and under its path the constant it is, or that it is divisible by 16, as a launch finds it."""
    if isinstance(value, tuple):
        types = [_type_of_argument(v, (*path, i), constants, attrs, varies) for i, v in enumerate(value)]
        return type(value)(*types) if hasattr(value, "_fields") else tuple(types)
    if value is None or isinstance(value, (tl.constexpr, KernelInterface)):
        constants[path] = value.value if isinstance(value, tl.constexpr) else value
        return "constexpr"
    if isinstance(value, torch.Tensor) or (isinstance(value, int) and not varies and value % 16 == 0):
        attrs[path] = [["tt.divisibility", 16]]
    if isinstance(value, torch.Tensor):
        return {torch.int64: "*i64", torch.float64: "*fp64"}.get(value.dtype) or f"*{TYPES[value.dtype]}"
    return "fp32" if isinstance(value, float) else "i32"


def mark(name: str, representative: bool) -> str:
    """The name of a case for the audit, which compiles the marked ones in every run of the tests."""
    return f"{name}*" if representative else name


def products_to_compile(table: Mapping[tuple[str, str, int], Tile], family: str) -> Iterator[tuple]:
    """(name, tile, dtype, width) of every setting of a chip family, for `aot_cases`."""
    for (of, kind, width), tile in table.items():
        for dtype in {"half": (torch.bfloat16, torch.float16)}.get(kind, (torch.float32,)) if of == family else ():
            d = min(width, 1024)
            yield f"{TYPES[dtype]}-{kind}-{d}", tile, dtype, d
