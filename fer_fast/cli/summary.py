"""Tables on the terminal."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer_fast.errors import printable
from fer_fast.train.study_summary import HEADLINE

_SHOWN = {"val_accuracy": "validation", "accuracy": "accuracy", "average_accuracy": "average", "macro_f1": "macro F1"}


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


def print_metrics(metrics: dict[str, Any]) -> None:
    """The headline numbers, and one row for each class."""
    print(f"\n{metrics['split']} ({metrics['images']} images), {metrics['seconds']:.0f} s")
    print("  ".join(f"{name} {_number(metrics[name])}" for name in HEADLINE))
    columns = ("class", "precision", "recall", "f1", "support")
    rows = (
        (name, *(_number(row[key]) for key in columns[1:4]), str(row["support"]))
        for name, row in metrics["per_class"].items()
    )
    print_table(columns, rows, right=columns[1:])


def print_study(summary: dict[str, Any]) -> None:
    """A row for each run, or for each point of a grid by its validation accuracy, and the means with deviations."""
    print(f"\n{summary['split']}, runs: {len(summary['runs'])}, {summary['seconds']:.0f} s")
    if points := summary["points"]:
        rows = ((_words(point["point"]), *_means(point["mean"], point["deviation"], _SHOWN)) for point in points)
        print_table(("", *_SHOWN.values()), rows, right=(*_SHOWN.values(),))
        print(f"\n{_words(points[0]['point'])}: chosen by validation accuracy alone, the test split took no part")
    else:
        right = (*_SHOWN.values(), "epoch")
        rows = ((run["folder"], *(_number(run[key]) for key in _SHOWN), str(run["epoch"])) for run in summary["runs"])
        print_table(("folder", *right), rows, right=right)
        print()
    over = f"mean ± deviation over {summary['deviation_over']}s" if summary["deviation_over"] else "mean"
    rows = zip(HEADLINE, _means(summary, summary["deviation"], HEADLINE), strict=True)
    print_table(("metric", over), rows)


def _means(mean: dict[str, Any], deviation: dict[str, Any], keys: Iterable[str]) -> list[str]:
    spread = {key: f" ± {value:.3f}" for key, value in deviation.items() if value is not None}
    return [_number(mean[key]) + spread.get(key, "") for key in keys]


def _words(point: dict[str, Any]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in point.items())


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
