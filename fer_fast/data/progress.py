"""A bar while pictures are decoded or evaluated; nothing where nobody watches."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def watched(what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives what is to be called with pictures done and all of them; the bar goes to standard error.

    What is printed meanwhile stands above the bar where standard output is a terminal too, and stays apart elsewhere.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # else rich would send a file's or a pipe's lines to the bar's terminal
    )
    with bar:
        task = bar.add_task(what, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
