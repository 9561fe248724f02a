"""Triton's interpreter as the tests run it: it rounds as a chip does, and does once what it would do for every number.

None but the first changes a bit of any result. :mod:`addresses` says what else it looks after.
"""

from functools import cache

import numpy as np
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, ReduceOps, TensorHandle

import addresses

REDUCE_NUMBERS = ReduceOps.generic_reduce


def install() -> None:
    addresses.install()
    InterpreterBuilder.create_fma = _fused(InterpreterBuilder.create_fma)
    ReduceOps.generic_reduce = reduce_lanes
    interpreter._get_np_dtype = _remembered(interpreter._get_np_dtype)
    interpreter._patch_lang = _patched_once(interpreter._patch_lang)
    tl.block_type.__init__ = _block_types(tl.block_type.__init__)
    tl.tensor.__init__ = _tensors(tl.tensor.__init__)


def _fused(twice):
    """Round once where a chip does: the interpreter's fma rounds the product of two float32 numbers too."""

    def once(self, x, y, z):
        if x.data.dtype != np.float32:
            return twice(self, x, y, z)
        exact = x.data.astype(np.float64) * y.data + z.data
        return TensorHandle(exact.astype(np.float32), z.dtype.scalar)

    return once


def reduce_lanes(self, operands: tuple) -> list:
    """A reduction by a function of its own, over all lanes at once in the same order; the original takes a number."""
    operands, axis = self.unravel(operands, self.axis)

    def typed(lanes) -> list:
        # A number is an axis of one, for Triton's rules of numbers differ.
        pairs = zip(lanes, operands, strict=True)
        return [self.to_tensor(np.atleast_1d(data), operand.dtype) for data, operand in pairs]

    shape = list(operands[0].handle.data.shape)
    places = (typed(operand.handle.data.take(place, axis) for operand in operands) for place in range(shape[axis]))
    found = next(places)
    for place in places:
        combined = self.combine_fn.fn(*found, *place)
        combined = combined if isinstance(combined, tuple) else (combined,)
        found = typed(lanes.handle.data for lanes in combined)
    shape[axis : axis + 1] = [1] if self.keep_dims else []
    results = [lanes.handle.data.reshape(shape) if shape else lanes.handle.data.item() for lanes in found]
    return [self.to_tensor(data, operand.dtype) for data, operand in zip(results, operands, strict=True)]


def _remembered(of_dtype):
    """The type of NumPy, which is found from a table that is made again at every call; of pointers it is not."""
    known = cache(of_dtype)
    return lambda kind: known(kind.scalar) if type(kind.scalar) is tl.dtype else of_dtype(kind)


def _block_types(make):
    """Of a type all but the element's is the same for all of a name and shape."""
    known = {}

    def init(self, element_ty, shape):
        sizes = shape.values if type(shape) is tl.tuple else shape
        key = element_ty.name, *(size.value if type(size) is tl.constexpr else size for size in sizes)
        if key not in known:
            make(self, element_ty, shape)
            known[key] = {**self.__dict__}
        self.__dict__.update(known[key], element_ty=element_ty)

    return init


def _tensors(make):
    """The shape of a tensor, in numbers of Triton's own, is the same for all of a shape."""
    known = {}

    def init(self, handle, type):
        key = (*type.shape,) if type.is_block() else ()
        if key not in known:
            make(self, handle, type)
            known[key] = {**self.__dict__}
        self.__dict__.update(known[key], handle=handle, type=type, dtype=type.scalar)

    return init


def _patched_once(patch):
    """A device function finds the language as its kernel patched it: that takes milliseconds, and calls are many."""

    @cache
    def languages(fn) -> list:
        return [module for module in (tl, tl.core) if any(value is module for value in fn.__globals__.values())]

    def patch_what_is_not(fn):
        if any(tl.core.is_builtin(module.load) for module in languages(fn)):
            return patch(fn)
        return interpreter._LangPatchScope() if hasattr(interpreter, "_LangPatchScope") else None

    return patch_what_is_not
