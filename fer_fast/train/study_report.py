"""The report of a study: many runs of one configuration over seeds, folds and settings on one page."""

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fer_fast.page import write_page
from fer_fast.train import figures
from fer_fast.train.shown import (
    HEADLINES,
    REPEATS,
    counted,
    duration,
    finite,
    ranked,
    shares,
    short,
    spread,
    tables,
    tie,
    tiles,
    words,
)

MOST_MAPS = 6  # pairs of heat maps; more than that nobody compares
MOST_VALUES = 8  # of an axis that the first line names
_SHOWN = ("accuracy", "average_accuracy", "macro_f1")
_MAPS = {"val_accuracy": "Validation accuracy", "accuracy": "Test accuracy"}


def write_study_report(
    path: Path, *, title: str, summary: dict[str, Any], histories: dict[str, Sequence[dict[str, Any]]]
) -> None:
    """Write the report as a self-contained HTML file that links to the reports of the runs beside it.

    Args:
        path: the file to write, in the folder of the study.
        title: the headline.
        summary: of the study, as its ``metrics.json`` holds it. The headline numbers are means, those of the point with
            the best validation accuracy where there is a grid; ``deviation``, ``runs``, ``axes`` (key -> values),
            ``confusion_matrix``, ``per_class`` and ``classes`` are needed; ``points``, ``pooled``, ``notes``,
            ``failed`` and what `shown.tables` takes are shown where present.
        histories: rows of ``log.jsonl`` by the folder of the run.

    Raises:
        InputError: a file that cannot be written.
    """
    runs, axes = summary["runs"], summary["axes"]
    grid = {key: list(values) for key, values in axes.items() if key not in REPEATS}
    points = ranked(summary.get("points") or [])
    chosen = points[0] if points else None
    write_page(
        path,
        "train/study.html.j2",
        title=title,
        facts=_facts(runs, axes),
        headlines=tiles(summary, summary["deviation"]),
        spread=spread(axes),
        chosen=words(chosen["point"]) if chosen else None,
        tie=tie(points) if points else "",
        notes=summary.get("notes") or [],
        failed=[f"{each['folder']}: {each['error']}" for each in summary.get("failed", ())],
        axes=list(grid),
        points=[_point(point) for point in points],
        plot=_plot(points, grid),
        maps=_maps(points, grid),
        curves=figures.run_curves(histories, "val_accuracy", title="Validation accuracy"),
        columns={key: HEADLINES[key] for key in _SHOWN},
        runs=[_run(run) for run in runs],
        count=counted(len(chosen["runs"] if chosen else runs), "run"),
        classes=summary["classes"],
        confusion=shares(summary["confusion_matrix"]),
        per_class=summary["per_class"],
        pooled=[each for each in tiles(summary.get("pooled") or {}) if each["value"] is not None],
        tables=tables(summary, summary.get("config") or {}),
    )


def _facts(runs: Sequence[dict[str, Any]], axes: dict[str, Sequence[Any]]) -> list[str]:
    seconds = sum(finite(run.get("seconds"), 0.0) for run in runs)
    repeats = [counted(len(values), REPEATS[key]) for key, values in axes.items() if key in REPEATS]
    grid = [
        f"{short(key)} {', '.join(map(str, values))}"
        if len(values) <= MOST_VALUES
        else f"{len(values)} values of {short(key)}"
        for key, values in axes.items()
        if key not in REPEATS
    ]
    return [counted(len(runs), "run"), *repeats, *grid, duration(seconds)]


def _run(run: dict[str, Any]) -> dict[str, Any]:
    return {
        "folder": run["folder"],
        "link": quote(f"{run['folder']}/report.html"),
        "numbers": [each for each in tiles(run) if each["key"] in _SHOWN],
        "val_accuracy": run.get("val_accuracy"),
        "epoch": run.get("epoch"),
        "time": duration(run["seconds"]) if isinstance(run.get("seconds"), int | float) else None,
    }


def _point(point: dict[str, Any]) -> dict[str, Any]:
    mean, deviation, keys = point["mean"], point["deviation"], ("val_accuracy", *_SHOWN)
    return {
        "values": list(point["point"].values()),
        "numbers": [{"key": key, "value": mean.get(key), "deviation": deviation.get(key)} for key in keys],
    }


def _plot(points: Sequence[dict[str, Any]], grid: dict[str, list[Any]]) -> Any | None:
    """The line plot of a grid of one axis of numbers."""
    if len(grid) != 1 or not points:
        return None
    ((key, values),) = grid.items()
    if len(values) < 2 or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return None
    along = sorted(points, key=lambda point: point["point"][key])
    series = {
        name: [(point["mean"].get(number), point["deviation"].get(number)) for point in along]
        for number, name in _MAPS.items()
    }
    return figures.axis_plot([point["point"][key] for point in along], series, label=short(key))


def _maps(points: Sequence[dict[str, Any]], grid: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Heat maps over the last two axes, a pair for each combination of the axes before them."""
    if len(grid) < 2 or not points:
        return []
    *outer, down, across = grid
    if math.prod(len(grid[key]) for key in outer) > MOST_MAPS:
        return []
    scales = {number: _scale([point["mean"].get(number) for point in points]) for number in _MAPS}

    def cell(number: str, at: dict[str, Any]) -> dict[str, Any] | None:
        found = next((point for point in points if point["point"] == at), None)
        value = found and found["mean"].get(number)
        if value is None:
            return None
        low, high = scales[number]
        return {"value": value, "share": (value - low) / ((high - low) or 1.0), "chosen": found is points[0]}

    return [
        {
            "heading": " · ".join(filter(None, (name, words(fixed)))),
            "corner": (short(down), short(across)),
            "across": grid[across],
            "rows": [
                (row, [cell(number, {**fixed, down: row, across: column}) for column in grid[across]])
                for row in grid[down]
            ],
        }
        for fixed in (dict(zip(outer, values, strict=True)) for values in product(*(grid[key] for key in outer)))
        for number, name in _MAPS.items()
    ]


def _scale(values: Sequence[Any]) -> tuple[float, float]:
    known = [value for value in values if value is not None] or [0.0]
    return min(known), max(known)
