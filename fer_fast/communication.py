"""What the processes of a group tell each other for a loss of all their rows: in words, and in bytes of a step.

Bytes are what each collective gives a process, with float32 features on the blocked engines: as much as it put into an
all-reduce, and R times as much of an all-gather.
"""

from collections.abc import Callable
from typing import NamedTuple


class Batch(NamedTuple):
    """The sizes that matter."""

    processes: int  # R
    rows: int  # of the process that has most
    classes: int  # C
    columns: int  # d
    embeddings: int = 1  # k, of a sample
    bias: bool = False  # of a classifier
    weighted: bool = False  # rows have weights
    predictions: bool = False  # enter a confusion window
    farthest: int = 2  # k of range loss


class Communication(NamedTuple):
    """Of a loss: what travels, and how many bytes, by one collective after the other."""

    travels: str
    bytes: Callable[[Batch], list[int]]


_WIDE, _FLOAT, _LABEL = 8, 4, 8


def _words(count: int) -> int:
    """Bytes of a column, behind which the next begins at a multiple of eight."""
    return -(-count // 8) * 8


def _rows(b: Batch) -> list[int]:
    """How many rows there are, between hosts; then features and labels, and weights where there are some."""
    own = _words(b.rows * b.columns * _FLOAT) + b.rows * _LABEL + b.weighted * _words(b.rows * _FLOAT)
    return [b.processes * 2 * _WIDE, b.processes * own]


def _table(b: Batch) -> int:
    return _FLOAT * b.classes * (b.columns + 1)


def _correlations(fd: bool, md: bool, window: bool) -> Callable[[Batch], list[int]]:
    """In float64; a confusion window's new counts go behind."""

    def sums(b: Batch) -> list[int]:
        by_class = b.embeddings * b.classes
        numbers = b.classes + fd * by_class * (b.columns + 2) + md * by_class * b.columns + 3
        return [_WIDE * numbers, *[_FLOAT * b.classes**2] * (window and b.predictions)]

    return sums


CLASSIFIER = Communication(
    "all-reduce of the gradients of weight and bias, the loss, and what the mean divides by",
    lambda b: [_FLOAT * (b.classes * (b.columns + b.bias) + 2)],
)
CENTERS = Communication(
    "all-reduce of the loss, rows, and of each class its rows and their sum", lambda b: [2 * _FLOAT + _table(b)]
)
VARIANT = Communication(
    "all-reduce of the loss, rows, and of each class its rows, their sum, and both once more with push weights",
    lambda b: [2 * _FLOAT + 2 * _table(b)],
)
MVA = Communication(
    "all-reduce of the batch's affinity and rows, then of the loss and of each class its rows and their sum",
    lambda b: [3 * _WIDE, _FLOAT + _table(b)],
)
FEATURES = Communication(
    "all-reduce between the sweeps of each class's rows and, of each embedding, the sum of its unit rows",
    _correlations(fd=True, md=False, window=True),
)
MEANS = Communication(
    "all-reduce between the sweeps of each class's rows and, of each embedding, their sum",
    _correlations(fd=False, md=True, window=False),
)
EMBEDDINGS = Communication("all-reduce of the loss, rows and what the mean divides by", lambda b: [4 * _WIDE])
AD_CORRE = Communication(
    "all-reduce between the sweeps of each class's rows and, of each embedding, the sums of its rows and unit rows",
    _correlations(fd=True, md=True, window=True),
)
MARGINAL = Communication("all-gather of features and labels, then all-reduce of the loss", lambda b: [*_rows(b), _WIDE])
RANGE = Communication(
    "all-gather of features and labels, then of each row's k farthest of its class",
    lambda b: [*_rows(b), b.processes * (_words(b.rows * b.farthest) + b.rows * b.farthest * _WIDE)],
)
CONTRASTIVE = Communication(
    "all-gather of embeddings and labels, then of each row's denominator and mean positive",
    lambda b: [*_rows(b), b.processes * b.rows * 3 * _WIDE],
)
# Beside the registry: of a classifier with sharded=True, whose table does not travel. Many rows go in blocks.
SHARDED = Communication(
    "all-gather of features, labels and weights; all-reduce of each row's largest logit, then of its sum of "
    "exponentials and its target's logit; reduce-scatter of the features' gradient",
    lambda b: [
        *_rows(b._replace(weighted=True)),
        *[_FLOAT * numbers * b.processes * b.rows for numbers in (1, 2)],
        _FLOAT * b.rows * b.columns,
    ],
)
