"""The axes of a study: keys of the configuration with their values, and the folders that are named after them."""

import itertools
import json
import re
from typing import Any

from fer_fast.errors import InputError
from fer_fast.suggest import one_of
from fer_fast.train.config import RunConfig, to_dict

SEED, FOLD = "seed", "data.fold"


def check_axis(key: str, values: tuple[Any, ...]) -> None:
    """Refuse what is no axis.

    Raises:
        InputError: no key of the configuration, no values, one that a file cannot hold, or two that are equal.
    """
    names, level = key.split("."), to_dict(RunConfig())
    del level["recipe"]  # a name for the values of other keys, which it would not bring along
    for depth, name in enumerate(names):
        if not isinstance(level, dict) or not name:
            raise InputError(f"axis {key}: no such key; {'.'.join(names[:depth])} has none below it")
        if not level and depth:  # a mapping by names, which are checked by what reads them
            break
        level = level[one_of(name, level, f"axis {key}")]
    if isinstance(level, dict) and level:
        raise InputError(f"axis {key} is a group; name a key of it: {', '.join(level)}")
    if not values:
        raise InputError(f"axis {key} has no values")
    if None in values and level not in (None, {}):
        raise InputError(f"axis {key}: null is no value of it")
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError):
        raise InputError(f"axis {key}: {list(values)} holds what is no number, word, list or mapping") from None
    for one, other in itertools.combinations(values, 2):
        if one == other:  # also true and 1, which files and points could not tell apart
            raise InputError(
                f"axis {key}: {json.dumps(one)} and {json.dumps(other)} would be the same run; give each value once"
            )


def folder_of(names: dict[str, str]) -> str:
    """The folder of a run, from the name of its value on every axis."""
    grid = [key for key in names if key not in (SEED, FOLD)]
    last = [key.rpartition(".")[2] for key in grid]
    labels = [short if last.count(short) == 1 else key for short, key in zip(last, grid, strict=True)]
    parts = ["_".join(f"{_safe(label)}-{names[key]}" for label, key in zip(labels, grid, strict=True))]
    parts += [f"{word}-{names[key]}" for word, key in (("seed", SEED), ("fold", FOLD)) if key in names]
    return "/".join(filter(None, parts))


def names_of(values: tuple[Any, ...]) -> list[str]:
    """Values as parts of file names, different ones also where case does not count."""
    names = [_safe(value if isinstance(value, str) else json.dumps(value)) for value in values]
    if len({name.casefold() for name in names}) == len(names):
        return names
    return [f"{name}-{number}" for number, name in enumerate(names, 1)]


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", re.sub(r"[][{}\"' ]", "", text))[:40]
