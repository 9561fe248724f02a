"""Tables on the terminal."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer_fast.errors import printable
from fer_fast.train.shown import HEADLINES, chosen_epoch, counted, duration, ranked, spread, tie, words

_COLUMNS = {"val_accuracy": "validation", "accuracy": "accuracy", "average_accuracy": "average", "macro_f1": "macro F1"}


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print aligned columns; those named in `right` are numbers."""
    # Wider than any row: rich would otherwise cut names off to fit the terminal.
    console = Console(width=10_000, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    console.print(table)


def say(line: str, columns: int | None = None) -> None:
    """Print a line: wrapped between words in a terminal; anywhere else at so many columns, or not at all."""
    console, line = Console(highlight=False, markup=False, emoji=False), printable(line)
    if columns and not console.is_terminal:
        line = textwrap.fill(line, columns, break_long_words=False, break_on_hyphens=False)
    console.print(line, soft_wrap=not console.is_terminal)


def print_metrics(metrics: dict[str, Any]) -> None:
    """The headline numbers, one row for each class, and what the run was."""
    print(f"\n{metrics['split']} ({metrics['images']} images)")
    intervals = {key: "[{:.4f}, {:.4f}]".format(*bounds) for key, bounds in metrics.get("intervals", {}).items()}
    _print_headlines(metrics, "value", intervals, "95 % interval")
    if len(crops := metrics.get("crops", {})) > 1:
        print()
        keys = [key for key in HEADLINES if key in next(iter(crops.values()))]
        print_table(("crops", *keys), ((count, *_numbers(row, keys)) for count, row in crops.items()), right=keys)
    print()
    columns = ("class", "precision", "recall", "f1", "support")
    rows = ((name, *_numbers(row, columns[1:4]), str(row["support"])) for name, row in metrics["per_class"].items())
    print_table(columns, rows, right=columns[1:])
    print()
    if "epoch" in metrics:
        validation = f", validation accuracy {_number(metrics['val_accuracy'])}" if "val_accuracy" in metrics else ""
        print(f"{chosen_epoch(metrics)}{validation}; the run took {duration(metrics['seconds'])}")
    else:
        print(f"took {duration(metrics['seconds'])}")


def print_study(summary: dict[str, Any], title: str = "") -> None:
    """A row for each run, or for each point of a grid, and means with their deviations.

    Points stand in the order of their validation accuracy, and the means are those of the first.
    """
    runs, deviation = summary["runs"], summary["deviation"]
    print()
    if title:
        say(title)
    print(f"{summary['split']} split; {counted(len(runs), 'run')} took {duration(summary['seconds'])}")
    if points := ranked(summary.get("points") or ()):
        rows = ((words(point["point"]), *_with_deviations(point, _COLUMNS)) for point in points)
        print_table(("settings", *_COLUMNS.values()), rows, right=(*_COLUMNS.values(),))
        print()
        say(f"{words(points[0]['point'])}: chosen by validation accuracy, test is only reported")
        if tied := tie(points):
            print(tied)
    else:
        right = (*_COLUMNS.values(), "epoch", "time")
        rows = ((run["folder"], *_numbers(run, _COLUMNS), str(run["epoch"]), duration(run["seconds"])) for run in runs)
        print_table(("run", *right), rows, right=right)
        print()
    deviations = {key: f"± {value:.4f}" for key, value in deviation.items() if value is not None}
    _print_headlines(summary, "mean", deviations, "deviation")
    if line := spread(summary["axes"]):
        print(line)
    for each in summary.get("failed", ()):
        say(f"failed: {each['folder']}: {each['error']}")


def _print_headlines(numbers: dict[str, Any], heading: str, spreads: dict[str, str], kind: str) -> None:
    """A row for each headline number, with its spread where any is known."""
    columns = ("metric", heading, kind) if spreads else ("metric", heading)
    rows = ((key, _number(numbers[key]), spreads.get(key, ""))[: len(columns)] for key in HEADLINES)
    print_table(columns, rows, right=(heading,))


def _numbers(row: dict[str, Any], keys: Iterable[str]) -> list[str]:
    return [_number(row.get(key)) for key in keys]


def _with_deviations(point: dict[str, Any], keys: Iterable[str]) -> list[str]:
    spreads = {key: f" ± {value:.3f}" for key, value in point["deviation"].items() if value is not None}
    return [_number(point["mean"].get(key)) + spreads.get(key, "") for key in keys]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
