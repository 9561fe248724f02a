"""Nested mappings of settings: from YAML, and their leaves by dotted keys."""

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, and what is no number, such as 0x_, and every date are words."""

    def number_or_word(self, node: yaml.ScalarNode) -> int | str:
        """Whole numbers, where Python takes them for such."""
        with contextlib.suppress(ValueError):
            return self.construct_yaml_int(node)
        return node.value


class _Dumper(yaml.SafeDumper):
    """YAML that reads as the same again."""


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.number_or_word)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_yaml_str)
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), [*"-+0123456789"]
    )


def read_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        ValueError: it is none, or one that holds itself or is nested too deeply.
    """
    try:
        value = yaml.load(text, _Loader)
        json.dumps(value, default=str, skipkeys=True)
    except (yaml.YAMLError, ValueError, LookupError) as error:  # the last of !!bool x, !!float ''
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def write_yaml(values: dict[str, Any]) -> str:
    """Settings as a YAML text, for `read_yaml`."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


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
