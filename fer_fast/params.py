"""Signatures made of hyper-parameters, which are declared once: as a NamedTuple beside the formula in `reference/`."""

from collections.abc import Callable
from functools import partial, wraps
from inspect import Parameter, signature
from typing import get_args, get_type_hints

from . import checks
from .reference.params import Angle, Count, Learnable, NonNegative, Positive
from .suggest import one_of

_RANGES = {
    Positive: checks.positive,
    NonNegative: partial(checks.positive, zero=True),
    Count: lambda value, name: checks.at_least(value, 1, name),
    Angle: checks.angle,
    Learnable: checks.learnable,
}


def by_field(
    params: type, *, positional: bool = False, common: Callable | None = None
) -> Callable[[Callable], Callable]:
    """Decorator: the keyword `params` of a function is given field by field, each with its default and its check.

    With LMCLParams, `f(x, *, params, mean=True)` becomes `f(x, *, s=30.0, m=0.35, mean=True)`; where `positional`,
    `f(x, s=30.0, m=0.35, *, mean=True)`. `common` is the function whose keywords the function's own `**keywords` are.

    Raises:
        ValueError: by the function, for a value outside the range that the field's type states.
    """
    kind = Parameter.POSITIONAL_OR_KEYWORD if positional else Parameter.KEYWORD_ONLY
    types, ranges = get_type_hints(params), get_type_hints(params, include_extras=True)
    fields = [
        Parameter(name, kind, default=params._field_defaults[name], annotation=types[name]) for name in params._fields
    ]
    checks_of = {name: _RANGES.get(of) or partial(_choice, get_args(of)) for name, of in ranges.items()}

    def checked(values: tuple) -> tuple:
        return params(*(check(value, name) for (name, check), value in zip(checks_of.items(), values, strict=True)))

    defaults = checked(params())

    def decorate(function: Callable) -> Callable:
        shown = list(signature(function).parameters.values())
        if shown[-1].kind is Parameter.VAR_KEYWORD:
            named = {p.name for p in shown}
            shared = (p for p in signature(common).parameters.values() if p.kind is Parameter.KEYWORD_ONLY)
            shown[-1:] = (p for p in shared if p.name not in named)
        before = [p.name for p in shown].index("params")
        after = before + len(fields) * positional

        @wraps(function)
        def given_by_field(*args, **keywords):
            named = {name: keywords.pop(name) for name in params._fields if name in keywords}
            given = args[before:after]
            values = checked(params(*given, **named)) if given or named else defaults
            return function(*args[:before], *args[after:], params=values, **keywords)

        shown[before : before + 1] = fields
        given_by_field.__signature__ = signature(function).replace(parameters=shown)
        return given_by_field

    return decorate


def _choice(allowed: tuple[str, ...], value: str, name: str) -> str:
    return one_of(value, allowed, name)
