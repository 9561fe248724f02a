"""Nested mappings of settings, and their leaves by dotted keys."""

from collections.abc import Iterator
from typing import Any


def leaves(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a configuration under its dotted key; a mapping without keys is a value."""
    if not isinstance(values, dict) or not values:
        yield key, values
        return
    for name, inner in values.items():
        yield from leaves(inner, f"{key}.{name}" if key else str(name))


def difference(stored: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> str | None:
    """The first key in which two configurations differ, as "key: stored there, wanted here", or None."""
    for key in dict.fromkeys((*stored, *wanted)):
        one, other = stored.get(key), wanted.get(key)
        if _both_mappings(one, other):
            if found := difference(one, other, f"{prefix}{key}."):
                return found
        elif one != other:
            return f"{prefix}{key} was {one} and is now {other}"
    return None


def lay_over(base: dict[str, Any], layer: dict[str, Any]) -> dict[str, Any]:
    """One layer over another: groups key by key; a value that is a mapping itself is replaced whole."""
    groups = {key: {**base[key], **value} for key, value in layer.items() if _both_mappings(base.get(key), value)}
    return {**base, **layer, **groups}


def placed(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The nested values with another at a dotted key."""
    name, _, rest = key.partition(".")
    if rest:
        below = values.get(name)
        value = placed(below if isinstance(below, dict) else {}, rest, value)
    return {**values, name: value}


def _both_mappings(one: Any, other: Any) -> bool:
    return isinstance(one, dict) and isinstance(other, dict)
