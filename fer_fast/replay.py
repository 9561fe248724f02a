"""Calls made again. What a public function checks and decides on its way to an operator is the same for all calls that
are alike in everything but the values of their tensors: it is done once, and the operator is then called at once."""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from threading import local
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import _current_graph_task_id

from .dispatch import preferred
from .kinds import remembered, watched

try:
    from torch._C._dynamo.guards import TensorGuards  # all of a tensor but its values, compared in half a microsecond
except ImportError:  # it is PyTorch's own affair: without it every call is made in full
    TensorGuards = None

_PLAIN = frozenset({Tensor, torch.nn.Parameter})  # not subclasses, which may see operators themselves
_NUMBERS = frozenset({str, int, bool, float, type(None)})
_MOST = 256, 8  # settings of a function remembered at once, and shapes of each


class Call(NamedTuple):
    """A call of an operator: a function that takes what it is `told`, the operator's arguments, and those of them that
    may get a gradient."""

    function: Callable[..., Tensor]
    told: tuple
    args: Sequence[Any]
    inputs: Sequence[Tensor]


class _Recordings(local):
    """Those under way, of each thread."""

    def __init__(self):
        self.all: list[_Recording] = []


_recordings = _Recordings()


class _Recording:
    """What becomes of a public function's tensors."""

    def __init__(self):
        self.calls: list[Call] = []
        self.result: Tensor | None = None
        self.looked = False  # at a value, which speaks for no other call

    def __enter__(self) -> "_Recording":
        _recordings.all.append(self)
        return self

    def __exit__(self, *_) -> None:
        _recordings.all.remove(self)

    def replay(self, result: Tensor, tensors: Sequence[Tensor]) -> "Replay | None":
        """The call that gave the result, with its tensors to be given anew; None where it does not speak for the next:
        there was more than the operator, a value was looked at, tensors were made on the way or stood in two places."""
        alone = len(self.calls) == 1 and self.result is result
        if self.looked or not alone or len({id(t) for t in tensors}) < len(tensors):
            return None
        try:
            return Replay(self.calls[0], {id(t): place for place, t in enumerate(tensors)})
        except KeyError:
            return None


def looked() -> None:
    """What comes next may depend on a tensor's value."""
    for recording in _recordings.all:
        recording.looked |= not recording.calls  # an operator looks each time


def noted(call: Call) -> Tensor:
    """The result of a call, which whoever records hears of."""
    recordings = tuple(_recordings.all)
    for recording in recordings:
        recording.calls.append(call)
    result = call.function(*call.told, call.args, *call.inputs)
    for recording in recordings:
        recording.result = result
    return result


class Replay:
    """A call of an operator with other tensors in the same places; `place_of` gives them by `id`."""

    def __init__(self, call: Call, place_of: dict[int, int]):
        self.function, self.told, self.args = call.function, call.told, list(call.args)
        self.inputs = [place_of[id(t)] for t in call.inputs]
        self.tensors: list[tuple[int, int]] = []  # argument, place
        self.groups: list[tuple[int, Callable, list, list[tuple[int, int]]]] = []  # argument, made of fields, places
        for argument, value in enumerate(call.args):
            if not _holds_tensors(value):
                continue
            self.args[argument] = None
            if isinstance(value, tuple):
                places = [(field, place_of[id(of)]) for field, of in enumerate(value) if _holds_tensors(of)]
                fields = [None if _holds_tensors(of) else of for of in value]
                self.groups.append((argument, partial(tuple.__new__, type(value)), fields, places))
            else:
                self.tensors.append((argument, place_of[id(value)]))

    def __call__(self, tensors: Sequence[Tensor]) -> Tensor:
        args = self.args.copy()
        for argument, place in self.tensors:
            args[argument] = tensors[place]
        for argument, make, fields, places in self.groups:
            fields = fields.copy()
            for field, place in places:
                fields[field] = tensors[place]
            args[argument] = make(fields)
        return self.function(*self.told, args, *[tensors[place] for place in self.inputs])


def _holds_tensors(value: Any) -> bool:
    return any(map(_holds_tensors, value)) if isinstance(value, list | tuple) else isinstance(value, Tensor)


def replayed(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorator of a public function that ends in an operator.

    Calls are alike in their arguments but for the tensors' values, in whether gradients are wanted, and in the backend
    that is preferred. Inside a backward, under modes and transforms, and to look for anomalies the function itself is
    called.
    """
    known: dict[tuple, tuple[tuple[Callable[..., bool], Replay], ...]] = remembered({})

    @wraps(function)
    def call(*args, **keywords):
        if torch.compiler.is_compiling() or _aside():
            return function(*args, **keywords)
        key, tensors = [torch.is_grad_enabled(), preferred(), *keywords], []
        if not _take_apart((*args, *keywords.values()), key, tensors):
            return function(*args, **keywords)
        key = tuple(key)
        for alike, replay in known.get(key, ()):
            if alike(*tensors) and not _recordings.all:
                return replay(tensors)
        with _Recording() as recording:
            result = function(*args, **keywords)
        if replay := recording.replay(result, tensors):
            if len(known) >= _MOST[0]:
                known.clear()
            known[key] = ((_guards(tensors), replay), *known.get(key, ())[: _MOST[1] - 1])
        return result

    return call


def _aside() -> bool:
    return TensorGuards is None or watched() or _current_graph_task_id() != -1 or torch.is_anomaly_enabled()


def _take_apart(values: Sequence[Any], key: list, tensors: list[Tensor]) -> bool:
    """Add to the key all but the tensors; False where one is no plain tensor that lies in memory as allocations do,
    aligned for the widest loads."""
    for value in values:
        of = type(value)
        if of in _PLAIN:
            try:
                if value.data_ptr() % 16 or value.is_nested:  # which guards cannot be asked of
                    return False
            except RuntimeError:  # sparse, or a transform's
                return False
            tensors.append(value)
            key.append(of)
        elif of in _NUMBERS:
            key += of, value  # 1 is True is 1.0
        elif isinstance(value, list | tuple):
            key.append(len(value))
            if not _take_apart(value, key, tensors):
                return False
        else:
            return False
    return True


def _guards(tensors: Sequence[Tensor]) -> Callable[..., bool]:
    """Whether others are like these in type, dtype, device, sizes, strides, and in whether they need a gradient."""
    sizes, strides = [list(t.shape) for t in tensors], [list(t.stride()) for t in tensors]
    return TensorGuards(*tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides).check
