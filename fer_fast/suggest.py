"""One-line errors for names that are not on a list."""

from collections.abc import Collection
from difflib import get_close_matches

from .errors import InputError


def one_of(value: str, allowed: Collection[str], argument: str) -> str:
    """`value`, if it is one of `allowed`; else an `InputError` that names the nearest and all of them."""
    if value in allowed:
        return value
    names = {name.lower(): name for name in allowed}
    near = get_close_matches(str(value).lower(), names, 1)
    hint = f'; did you mean "{names[near[0]]}"?' if near else ""
    raise InputError(f"{argument}: {value!r} is not one of {', '.join(allowed)}{hint}")
