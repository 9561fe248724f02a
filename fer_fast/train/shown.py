"""How the numbers of runs are shown, on pages and on the terminal alike."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

HEADLINES = {
    "accuracy": "Accuracy",
    "average_accuracy": "Average accuracy",
    "macro_f1": "Macro F1",
    "cohen_kappa": "Cohen's κ",
    "krippendorff_alpha": "Krippendorff's α",
    "auc": "AUC, macro, one-vs-rest",
    "auc_pr": "AUC-PR, macro, one-vs-rest",
}
# Axes of a study that repeat a run; each other axis makes another point of a grid.
REPEATS = {"seed": "seed", "data.fold": "fold"}
ORIGIN = (
    *("date", "command", "recipe", "commit", "device", "resumed", "counts", "parameters", "started_from", "weights"),
)
_CALLED = {"device.count": "processes"}


def tiles(numbers: dict[str, Any], deviation: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The headline numbers with what is known of their spread."""
    intervals = numbers.get("intervals") or {}
    return [
        {
            "key": key,
            "name": name,
            "value": numbers.get(key),
            "deviation": (deviation or {}).get(key),
            "bounds": intervals.get(key),
        }
        for key, name in HEADLINES.items()
    ]


def counted(number: int, name: str) -> str:
    """A number and what it is of, with thin spaces between thousands."""
    return f"{number:,} {name}{'s' * (number != 1)}".replace(",", "\u202f")


def chosen_epoch(metrics: dict[str, Any]) -> str:
    """The epoch whose weights were measured, and how many optimiser steps they took."""
    steps = f", step {metrics['step']:,}" if "step" in metrics else ""
    return f"epoch {metrics['epoch']} of {metrics.get('epochs', '?')}{steps}"


def duration(seconds: float) -> str:
    """Hours and minutes, minutes and seconds, or seconds alone."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def shares(matrix: Sequence[Sequence[int]]) -> list[list[tuple[int, float]]]:
    """Count and share of its row, cell by cell."""
    counts = np.asarray(matrix, dtype=np.float64)
    parts = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return [
        [(int(count), float(part)) for count, part in zip(row, row_parts, strict=True)]
        for row, row_parts in zip(matrix, parts, strict=True)
    ]


def flatten(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as rows: dotted name, value."""
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, dict) and inner:
            yield from flatten(inner, f"{name}.")
        else:
            yield name, "none" if inner is None else str(inner)


def tables(numbers: dict[str, Any], config: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """What a result comes from, as headings and rows: `ORIGIN`, ``versions`` and ``data`` of it, the configuration."""
    origin = {key: numbers[key] for key in ORIGIN if numbers.get(key)}
    if "resumed" in origin:
        origin["resumed"] = [sitting.get("date") or "at a date not told" for sitting in origin["resumed"]]
    return [
        ("Where it comes from", [(_CALLED.get(name, name), value) for name, value in flatten(origin)]),
        ("Configuration", list(flatten(config))),
        ("Versions", list(flatten(numbers.get("versions", {})))),
        ("SHA-256 of the data", list(flatten(numbers.get("data", {})))),
    ]


def ranked(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Points of a grid from the best mean validation accuracy down, those without one last."""
    return sorted(points, key=lambda point: -finite(point["mean"].get("val_accuracy"), -1.0))


def tie(points: Sequence[dict[str, Any]]) -> str:
    """What to say of ranked points of which several are the best, up to rounding; nothing where one is."""
    best, *others = (finite(point["mean"].get("val_accuracy"), -1.0) for point in points)
    equal = sum(math.isclose(value, best) for value in others)
    return f"tied with {counted(equal, 'other')}; the first is taken" if equal else ""


def spread(axes: dict[str, Sequence[Any]]) -> str | None:
    """What the deviation of a study's headline numbers is over; None where nothing is repeated."""
    seeds, folds = (len(axes.get(key, ())) for key in REPEATS)
    if seeds > 1:
        first = f", each the mean over {counted(folds, 'fold')}" if folds > 1 else ""
        return f"Mean ± sample deviation over {counted(seeds, 'seed')}{first}."
    return f"Mean ± sample deviation over {counted(folds, 'fold')}." if folds > 1 else None


def words(point: dict[str, Any]) -> str:
    """The settings of a point in a line."""
    return ", ".join(f"{short(key)} {value}" for key, value in point.items())


def short(key: str) -> str:
    """The last part of a dotted key."""
    return key.rpartition(".")[2]


def finite(value: Any, otherwise: float) -> float:
    """The value where it is a finite number."""
    return value if isinstance(value, int | float) and math.isfinite(value) else otherwise
