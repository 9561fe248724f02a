"""Tables on the terminal."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer_fast.errors import printable

_NUMBERS = ("accuracy", "average_accuracy", "macro_f1", "cohen_kappa", "krippendorff_alpha", "auc", "auc_pr")


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


def say(line: str) -> None:
    """Print a line: wrapped between words in a terminal, one line anywhere else."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(printable(line), soft_wrap=not console.is_terminal)


def print_metrics(metrics: dict[str, Any]) -> None:
    """The headline numbers, and one row for each class."""
    print(f"\n{metrics['split']} ({metrics['images']} images), {metrics['seconds']:.0f} s")
    print("  ".join(f"{name} {_number(metrics[name])}" for name in _NUMBERS))
    columns = ("class", "precision", "recall", "f1", "support")
    rows = (
        (name, *(_number(row[key]) for key in columns[1:4]), str(row["support"]))
        for name, row in metrics["per_class"].items()
    )
    print_table(columns, rows, right=columns[1:])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
