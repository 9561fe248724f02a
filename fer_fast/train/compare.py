"""Finished runs beside each other, on the same images: accuracies, a paired test for every two, what is confused."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from fer_fast.errors import InputError
from fer_fast.page import write_page
from fer_fast.train.checkpoint import read_json
from fer_fast.train.folder import STUDY, check_finished
from fer_fast.train.predictions import PREDICTIONS, Predictions, load_predictions
from fer_fast.train.shown import counted

SHOWN = ("accuracy", "average_accuracy", "macro_f1")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Run(NamedTuple):
    """A finished run or evaluation.

    Attributes:
        letter: that stands for it in tables.
        folder: of it.
        metrics: its metrics.json.
        predictions: of each image.
        confusion: int64 (C, C), rows the truth.
    """

    letter: str
    folder: Path
    metrics: dict[str, Any]
    predictions: Predictions
    confusion: Tensor

    @property
    def right(self) -> Tensor:
        """Which images it recognises, bool (n,)."""
        return self.predictions.scores.argmax(1) == self.predictions.labels


class Pair(NamedTuple):
    """Two runs on the same images.

    Attributes:
        first, second: the runs.
        both, first_only, second_only, neither: images that are recognised by whom.
        p: of McNemar's exact test.
        p_holm: the same, corrected for the number of pairs.
    """

    first: Run
    second: Run
    both: int
    first_only: int
    second_only: int
    neither: int
    p: float
    p_holm: float

    @property
    def gain(self) -> float:
        """Accuracy of the second less that of the first."""
        return (self.second_only - self.first_only) / len(self.first.right)


def mcnemar(first_only: int, second_only: int) -> float:
    """The p of McNemar's exact test that two classifiers err equally often on the same images, two-sided.

    p = min(1, 2 · Σ_{k=0}^{min(b, c)} C(b + c, k) / 2^(b + c)): b images that the first alone recognises and c that the
    second alone does are as likely either way where there is no difference; images on which both agree say nothing.
    Worked out in whole numbers. Images must be independent of each other.

    Source: Q. McNemar, Note on the sampling error of the difference between correlated proportions or percentages,
    1947; as a test of classifiers: T. Dietterich, Approximate statistical tests for comparing supervised classification
    learning algorithms, 1998.
    """
    count, term, total = first_only + second_only, 1, 0
    for k in range(min(first_only, second_only) + 1):
        total += term
        term = term * (count - k) // (k + 1)
    return min(1.0, 2 * total / 2**count)


def holm(values: Sequence[float]) -> list[float]:
    """p of m tests, corrected so that one in twenty families of true hypotheses has any below 0.05.

    Of p_(1) <= ... <= p_(m): max over j <= i of min(1, (m - j + 1) · p_(j)), in the order in which they were given.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    corrected, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = largest
    return corrected


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs to compare.

    Raises:
        InputError: fewer than two or too many, one twice, a study, a run that is not finished or without predictions,
            runs of different images or classes.
    """
    if not 2 <= len(folders) <= len(LETTERS):
        raise InputError(f"a comparison takes 2 to {len(LETTERS)} runs, got {len(folders)}")
    paths = [folder.resolve() for folder in folders]
    if twice := [folder for folder, path in zip(folders, paths, strict=True) if paths.count(path) > 1]:
        raise InputError(f"{twice[0]} is given twice; a run does not differ from itself")
    runs = [_read(letter, folder) for letter, folder in zip(LETTERS, folders, strict=False)]
    first, *others = runs
    for other in others:
        if other.predictions.classes != first.predictions.classes:
            kinds = (f"{run.folder} ({', '.join(run.predictions.classes)})" for run in (first, other))
            raise InputError(f"runs of different classes cannot be compared: {' and '.join(kinds)}")
        if not first.predictions.same_images(other.predictions):
            kinds = (f"{run.folder} ({counted(len(run.right), 'image')})" for run in (first, other))
            raise InputError(f"runs that were tested on different images cannot be compared: {' and '.join(kinds)}")
    return runs


def _read(letter: str, folder: Path) -> Run:
    if (folder / STUDY).exists():
        raise InputError(f"{folder} is a study of several runs; name runs of it")
    check_finished(folder)
    metrics, predictions = read_json(folder / "metrics.json"), load_predictions(folder)
    confusion = predictions.confusion()
    if metrics.get("confusion_matrix") != confusion.tolist():
        raise InputError(f"{folder}: {PREDICTIONS} and metrics.json are of different predictions")
    return Run(letter, folder, metrics, predictions, confusion)


def pairs_of(runs: Sequence[Run]) -> list[Pair]:
    """Every two of the runs, with a test of their difference."""
    counts = []
    for first, second in combinations(runs, 2):
        one, other = first.right, second.right
        counts.append([int(each.sum()) for each in (one & other, one & ~other, other & ~one, ~one & ~other)])
    values = [mcnemar(first_only, second_only) for _, first_only, second_only, _ in counts]
    couples = zip(combinations(runs, 2), counts, values, holm(values), strict=True)
    return [Pair(*couple, *of, p, corrected) for couple, of, p, corrected in couples]


def caution(runs: Sequence[Run]) -> str:
    """What to say where images are not independent of each other; nothing where they are."""
    unit = runs[0].metrics.get("intervals_by", "image")
    return "" if unit == "image" else f"Images of one {unit} are not independent: these p may be too small."


def write_comparison(path: Path, runs: Sequence[Run], pairs: Sequence[Pair]) -> None:
    """Write the page as a self-contained HTML file.

    Raises:
        InputError: a file that cannot be written.
    """
    predictions = runs[0].predictions
    write_page(
        path,
        "train/compare.html.j2",
        title=" · ".join(run.folder.name for run in runs),
        facts=[
            counted(len(runs), "run"),
            f"split {predictions.split}",
            counted(len(predictions.labels), "image"),
            f"{len(predictions.classes)} classes",
        ],
        shown=SHOWN,
        runs=runs,
        pairs=pairs,
        caution=caution(runs),
        classes=predictions.classes,
        differences=[_difference(pair) for pair in pairs],
    )


def _difference(pair: Pair) -> list[list[tuple[int, float]]]:
    """Images of each cell of the confusion matrix that the second has more than the first: number, share of the row."""
    more = pair.second.confusion - pair.first.confusion
    parts = more / pair.first.confusion.sum(1, keepdim=True).clamp(min=1)
    return [list(zip(row, shares, strict=True)) for row, shares in zip(more.tolist(), parts.tolist(), strict=True)]
