"""Kinds of an operator's calls, alike in all but the values of their tensors. What an engine plans and compiles for one
is not asked again for the next: at small batches a step costs what its host does. :mod:`.replay` is the same of public
functions, whose checks are not asked again."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch._C import _len_torch_dispatch_stack, _len_torch_function_stack
from torch._C._functorch import peek_interpreter_stack

Kind = dict  # what is remembered of one
_PLAIN = frozenset({Tensor, torch.nn.Parameter})  # not subclasses, which may see operators themselves
_NAMES = frozenset({str, int, bool, type(None)})
_MOST_KINDS = 1024  # remembered at once: ragged batches make many
_REMEMBERED: list[dict] = []


class Kinds:
    """The kinds met so far, by all that their calls have in common.

    They are an attribute, which compiled calls do not touch: a graph that had read a dictionary would be compiled anew
    whenever another kind is met.
    """

    def __init__(self):
        self.known: dict[tuple, Kind] = remembered({})

    def of(self, args: Iterable) -> Kind | None:
        """The kind of a call; None where one call does not speak for the next."""
        if torch.compiler.is_compiling() or (key := _key(args)) is None:
            return None
        kind = self.known.get(key)
        if kind is None:
            if len(self.known) >= _MOST_KINDS:
                self.known.clear()
            kind = self.known[key] = {}
        return kind


def remembered(known: dict) -> dict:
    """The same, to be emptied when all is to be forgotten."""
    _REMEMBERED.append(known)
    return known


def forget() -> None:
    """As if no call had been: for who changes what plans are made of."""
    for known in _REMEMBERED:
        known.clear()


def watched() -> bool:
    """Whether a mode or a transform may have to see each operator."""
    modes = _len_torch_dispatch_stack() or _len_torch_function_stack()
    return modes > 0 or peek_interpreter_stack() is not None


def _key(args: Iterable) -> tuple | None:
    """Of arguments all but their values; None where one is neither a name, a number nor a plain tensor that lies in
    memory as allocations do: aligned for the widest loads, and not marked to be negated by who reads it. A transform's
    tensors lie nowhere."""
    key, places = [], 0
    for value in args:
        of = type(value)
        if of in _PLAIN:
            try:
                places |= value.data_ptr()
                strides = None if value.is_contiguous() else value.stride()
                key.append((value.dtype, value.shape, value.device, strides))
            except RuntimeError:  # sparse or nested
                return None
            if value.is_neg():
                return None
        elif of in _NAMES:
            key.append(value)
        elif isinstance(value, list | tuple):
            key.append(_key(value))
            if key[-1] is None:
                return None
        elif of is not float:
            return None
    return None if places % 16 else tuple(key)
