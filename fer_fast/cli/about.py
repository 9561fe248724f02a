"""``fer-fast data about``."""

import argparse

from rich.console import Console
from rich.markdown import Markdown

from fer_fast.cli.summary import print_table
from fer_fast.data.sources import DATASETS
from fer_fast.data.table import page
from fer_fast.suggest import one_of


def add_about(actions: argparse._SubParsersAction) -> None:
    """Adds the action to those of ``fer-fast data``; `about` does it."""
    parser = actions.add_parser(
        "about",
        help="where a dataset is had, the folders it is read from, the command to train on it, what papers report",
        description="Print what there is to know of a dataset; without a name, which there are.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the dataset")


def about(name: str | None) -> int:
    """Print the page of a dataset, or the list of them; the exit status is 0.

    Raises:
        InputError: an unknown name.
    """
    if name is None:
        print_table(("dataset", "description"), ((name, info.description) for name, info in DATASETS.items()))
        print("\nfer-fast data about NAME says more.")
        return 0
    text = page(one_of(name, DATASETS, "dataset"))
    console = Console()
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        print(text, end="")
    return 0
