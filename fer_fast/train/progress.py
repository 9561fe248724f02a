"""How a run tells where it stands: a bar on a terminal, one line an epoch elsewhere."""

import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class LineProgress:
    """One plain line for each epoch."""

    def __enter__(self) -> "LineProgress":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start(self, epoch: int, epochs: int, images: int) -> None:
        """An epoch of so many images begins."""

    def update(self, images: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """So many images of the epoch are done."""

    def finish(self, row: dict[str, Any], epochs: int) -> None:
        """The epoch is done; `row` is its line of log.jsonl."""
        print(describe(row, epochs), flush=True)


class BarProgress(LineProgress):
    """A live bar for the epoch under way; the finished epochs stay above it as lines."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]:>7}"),
            BarColumn(bar_width=12),  # the numbers beside it take 80 columns
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=Console(),
            transient=True,
        )
        self._task = self._bar.add_task("", total=1, epoch="", numbers="")

    def __enter__(self) -> "BarProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, epoch: int, epochs: int, images: int) -> None:
        self._bar.reset(self._task, total=images, epoch=f"{epoch}/{epochs}", numbers="")

    def update(self, images: int, loss: float, accuracy: float, images_per_second: float) -> None:
        numbers = f"loss {loss:.4f}  accuracy {accuracy:6.2%}  {images_per_second:,.0f} images/s"
        self._bar.update(self._task, completed=images, numbers=numbers)

    def finish(self, row: dict[str, Any], epochs: int) -> None:
        self._bar.console.print(describe(row, epochs), highlight=False)


def make_progress() -> LineProgress:
    """A bar if standard output is a terminal, lines otherwise."""
    return BarProgress() if sys.stdout.isatty() else LineProgress()


def describe(row: dict[str, Any], epochs: int) -> str:
    """One epoch in one line: loss and accuracy of both splits, the rate, images a second."""
    width = len(str(epochs))
    return (
        f"epoch {row['epoch']:>{width}}/{epochs}  train {row['train_loss']:.4f} {row['train_accuracy']:6.2%}  "
        f"val {row['val_loss']:.4f} {row['val_accuracy']:6.2%}  rate {row['learning_rate']:.1e}  "
        f"{row['images_per_second']:,.0f} images/s"
    )
