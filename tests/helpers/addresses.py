"""What compute-sanitizer looks for, in Triton's interpreter: every lane that is not masked out stays in its own tensor.

A pointer may go no further than from the first to the last element of the argument it comes from, be the memory beyond
another argument's or the same storage's; gaps that strides leave between are not looked at. The interpreter itself
reads and writes whatever is there.
"""

import os
from copy import copy
from itertools import takewhile
from pathlib import Path
from traceback import walk_stack

import numpy as np
import triton
from torch import Tensor
from triton.runtime import interpreter
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder, TensorHandle

ROOT, TRITON = Path(__file__).parents[2], str(Path(triton.__file__).parent)
LAUNCH = GridExecutor.__call__.__code__


class OutOfBounds(Exception):
    """A kernel reads or writes what is not its argument."""


def install() -> None:
    # Arithmetic hands on the type of a pointer as it is, so a type for each argument says where a pointer is from.
    interpreter._implicit_cvt = _of_one_tensor(interpreter._implicit_cvt)
    builder = InterpreterBuilder
    builder.create_bitcast = _from_the_same(builder.create_bitcast)
    builder.create_masked_load = _checked(builder.create_masked_load, pointers=0, mask=1)
    builder.create_masked_store = _checked(builder.create_masked_store, pointers=0, mask=2)
    builder.create_atomic_rmw = _checked(builder.create_atomic_rmw, pointers=1, mask=3)
    builder.create_atomic_cas = _checked(builder.create_atomic_cas, pointers=0)


def _of_one_tensor(convert):
    def converted(given):
        made = convert(given)
        if hasattr(given, "data_ptr"):
            tensor = interpreter._unwrap_tensor(given)
            made.handle.dtype = copy(made.handle.dtype)
            made.handle.dtype.memory = *_span(tensor), tensor
        return made

    return converted


def _span(tensor: Tensor) -> tuple[int, int]:
    """The addresses of the first element and past the last."""
    first, size = tensor.data_ptr(), tensor.element_size()
    if not tensor.numel():
        return first, first
    steps = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return first, first + (steps + 1) * size


def _from_the_same(bitcast):
    """Booleans are read as bytes, by a pointer of another type."""

    def cast(self, source, kind):
        made = bitcast(self, source, kind)
        if hasattr(source.dtype, "memory"):
            made.dtype = copy(made.dtype)
            made.dtype.memory = source.dtype.memory
        return made

    return cast


def _checked(access, pointers: int, mask: int | None = None):
    def within(self, *given, **named):
        _check(given[pointers], True if mask is None else given[mask].data)
        return access(self, *given, **named)

    return within


def _check(pointers: TensorHandle, mask: np.ndarray | bool) -> None:
    addresses, (first, end, tensor) = pointers.data, pointers.dtype.memory
    if first <= addresses.min() and addresses.max() < end:  # masked lanes too, as most do
        return
    addresses = addresses[np.broadcast_to(mask, addresses.shape)]
    outside = addresses[(addresses < first) | (addresses >= end)]
    if not outside.size:
        return
    address, size = int(outside[0]), tensor.element_size()
    off = f"{(address - end) // size + 1} past its last"
    if address < first:
        off = f"{-((address - first) // size)} before its first"
    raise OutOfBounds(
        f"{_place()}: {outside.size} of {addresses.size} lanes outside a {tensor.dtype} tensor of shape "
        f"{tuple(tensor.shape)}, strides {tensor.stride()}; one is {off} element"
    )


def _place() -> str:
    """The kernel, and where in it."""
    frames = takewhile(lambda frame: frame.f_code is not LAUNCH, (frame for frame, _ in walk_stack(None)))
    of_kernel = [frame for frame in frames if not frame.f_code.co_filename.startswith((TRITON, __file__))]
    inner, kernel = of_kernel[0], of_kernel[-1].f_code.co_name
    return f"{kernel} at {os.path.relpath(inner.f_code.co_filename, ROOT)}:{inner.f_lineno}"
