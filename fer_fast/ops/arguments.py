"""The arguments of a loss's operator, taken apart for the dispatcher, which knows no groups, and put together again."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, get_type_hints

import torch
from torch import Tensor


class Place(NamedTuple):
    """Where an operator's argument lies in those of the function: which one, and in a group the field."""

    argument: int
    field: int | None = None

    def of(self, args: Sequence) -> Any:
        value = args[self.argument]
        return value if self.field is None else value[self.field]


class Arguments:
    """Those of a function, of which NamedTuples are groups: `auxiliary.centers` is `auxiliary_centers` to the
    dispatcher. Behind them come whether gradients are wanted, and the backend."""

    def __init__(self, function: Callable):
        hints = get_type_hints(function)
        self.parameters = list(inspect.signature(function).parameters)
        self.kinds = [hints[name] for name in self.parameters]
        self.places: dict[str, Place] = {}
        self._hints: dict[str, Any] = {}
        for argument, (name, kind) in enumerate(zip(self.parameters, self.kinds, strict=True)):
            fields = get_type_hints(kind) if _is_group(kind) else {}
            for field, of in enumerate(fields):
                self.places[f"{name}_{of}"], self._hints[f"{name}_{of}"] = Place(argument, field), fields[of]
            if not fields:
                self.places[name], self._hints[name] = Place(argument), kind
        self._hints |= {"gradient": bool, "backend": str}
        self.names = list(self._hints)

    def schema(self, results: int, mutates: tuple[str, ...]) -> str:
        """Of an operator that gives so many tensors, as `torch.library` writes it."""

        def prototype():
            """Has a signature to be read."""

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter(name, kind, annotation=of) for name, of in self._hints.items()]
        prototype.__signature__ = inspect.Signature(parameters, return_annotation=tuple[(Tensor,) * results])
        return torch.library.infer_schema(prototype, mutates_args=mutates)

    def flat(self, args: Sequence) -> Iterator:
        """The function's arguments as the dispatcher takes them."""
        for value, kind in zip(args, self.kinds, strict=True):
            if _is_group(kind):
                yield from value
            else:
                yield value

    def grouped(self, flat: Sequence) -> tuple:
        """The dispatcher's as the function takes them."""
        values = iter(flat)
        return tuple([k._make(islice(values, len(k._fields))) if _is_group(k) else next(values) for k in self.kinds])


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple)
