"""Tables on the terminal."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer_fast.errors import printable
from fer_fast.train.study_summary import HEADLINE


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


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
