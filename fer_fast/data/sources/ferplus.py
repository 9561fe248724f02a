"""FER+: FER2013's images with the votes of ten people each, for eight classes."""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from fer_fast.data.dataset import SPLITS
from fer_fast.data.files import bases, find, image_names, shown
from fer_fast.data.labels import CLASSES
from fer_fast.data.listing import Listing, Part
from fer_fast.data.lists import missing, read_csv, whole
from fer_fast.data.pictures import Files, Pictures
from fer_fast.data.sources.fer2013 import PARTS, SIZE, Copy, read_copy
from fer_fast.data.table import DatasetInfo
from fer_fast.errors import InputError

Rule = Literal["majority", "argmax", "distribution"]
COLUMNS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "nf")
PUBLISHED = {  # by majority of fer2013new.csv
    "train": dict(zip(COLUMNS[:8], (8740, 7287, 3149, 3014, 2100, 119, 532, 119), strict=True)),
    "test": dict(zip(COLUMNS[:8], (1090, 893, 396, 384, 273, 18, 83, 16), strict=True)),
}
ALIKE = 0.4  # the share of FER2013's labels that the votes agree with at least; of rows in another order it is 0.18

_TABLE = "fer2013new.csv"
_FOLDERS = {"FER2013Train": "train", "FER2013Valid": "val", "FER2013Test": "test"}
_ROWS = {_TABLE: (28709, 3589, 3589), "label.csv": (28558, 3579, 3573)}
_KEPT = {"majority": (25060, 3199, 3153), "argmax": (28389, 3553, 3546), "distribution": (28389, 3553, 3546)}
_INNER = ("ferplus", "ferplusmaster", "fer2013plus", "fer2013", "data")  # folders around the data
_VOTERS = 10
_COUNT = {str(count): count for count in range(_VOTERS + 1)}
_OTHER, _NONE = -2, -1  # instead of a class: unknown or no face; none by the rule
_LABELS = np.array([CLASSES.index(name) if name in CLASSES else _OTHER for name in COLUMNS])
_PLACES = [COLUMNS.index(name) for name in CLASSES]  # the column of each class


@dataclass
class _Votes:
    """Rows of votes: the part of each, int64 (n, 10) in the order of `COLUMNS`, and a line for each bad row."""

    parts: list[str] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, where: str, part: str, texts: Sequence[str]) -> None:
        """A row, which has no votes where it is corrupt."""
        votes = [_COUNT.get(text) for text in texts]
        if None in votes or len(votes) != len(COLUMNS):
            self.faults.append(f"{where}: votes are {', '.join(texts)!r}; needed: ten numbers from 0 to {_VOTERS}")
            votes = [0] * len(COLUMNS)
        elif not part:
            self.faults.append(f"{where}: Usage is none of Training, PublicTest, PrivateTest")
        self.parts.append(part)
        self.rows.append(votes)

    @property
    def counts(self) -> np.ndarray:
        return np.array(self.rows, np.int64).reshape(-1, len(COLUMNS))


def read_ferplus(root: Path, *, labels: Rule = "majority") -> Listing | None:
    """Reads the names and votes of a copy: fer2013new.csv beside FER2013, or the folders FER2013Train|Valid|Test.

    Votes are for neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown and no face (NF).

    Args:
        root: the folder with the data, or a folder around it.
        labels: what the class of an image is, and which images are kept.

            - majority: single votes are dropped; what has more than half of the votes that remain. Images without such
              a majority, and those where unknown or no face has it, are left aside. It is the rule "majority" of
              Microsoft's own reader (Barsoum et al., ICMI 2016; `ferplus.py` in github.com/microsoft/FERPlus).
            - argmax: what has most of all votes, the first in the order above where several have; images of unknown or
              no face are left aside.
            - distribution: the images of argmax, each with the share of every class among its votes for the eight
              (`Part.votes`): training draws a class from them at every epoch, the authors' probabilistic label drawing.

    Raises:
        InputError: an unknown rule, votes without the images of FER2013, or images whose rows cannot be told.
    """
    if labels not in get_args(Rule):
        raise InputError(f"labels is {labels!r}; allowed: {', '.join(get_args(Rule))}")
    table, lists = None, {}
    for base in bases(root, _INNER):
        table = table or find(base, _TABLE, within=root)
        lists = lists or _label_lists(base, root)
    copy = None if table is None else read_copy(table.parent) or read_copy(root)
    if copy is not None:
        return _by_row(table, copy, labels)
    if lists:
        return _by_name(lists, root, labels)
    if table is not None:
        raise InputError(f"{shown(table)} holds votes only; put fer2013.csv beside it")
    return None


def _label_lists(base: Path, root: Path) -> dict[str, Path]:
    """Part -> label.csv of the image form."""
    folders = {part: found for name, part in _FOLDERS.items() if (found := find(base, name, within=root))}
    return {part: found for part, folder in folders.items() if (found := find(folder, "label.csv", within=root))}


def _by_row(table: Path, copy: Copy, rule: Rule) -> Listing:
    """Row i of fer2013new.csv is row i of fer2013.csv: the names in it are not in order, and some are missing."""
    votes = _Votes()
    for line, row in read_csv(table):
        where = f"{shown(table)}: line {line}"
        lacking = [name for name in ("usage", *COLUMNS) if name not in row]
        if lacking and not votes.rows:
            raise InputError(f"{where}: no column {lacking[0]!r}; needed: Usage, {', '.join(COLUMNS)}")
        texts = [row.get(name, "") for name in COLUMNS]
        votes.add(where, PARTS.get(row.get("usage", "").lower(), ""), texts)
    rows = _rows_of(copy, votes, table)
    listing = _listing(f"{_TABLE} beside {copy.layout}", copy.pictures, copy.names, votes, rows, rule)
    if rule == "majority":
        listing.published = PUBLISHED
    listing.notes += copy.notes
    listing.faults += copy.faults
    listing.ignored.update(copy.ignored)
    _compare(listing, Counter(votes.parts), _ROWS[_TABLE], "rows of votes")
    kept = {part: len(rows) for part, rows in listing.parts.items() if part not in listing.published}
    _compare(listing, kept, _KEPT[rule], f"images by {rule}")
    return listing


def _rows_of(copy: Copy, votes: _Votes, table: Path) -> np.ndarray:
    """The row of the votes of each picture, int64 (n,).

    Pictures are in the order of the votes, or in files that are called after their row. FER2013's own labels tell
    whether that is so: few of them would agree with votes for other pictures.
    """
    count, stems = len(votes.rows), [name.rpartition("/")[2].partition(".")[0] for name in copy.names]
    numbers = [whole(stem) for stem in stems] if isinstance(copy.pictures, Files) else [None]
    if None not in numbers and len(set(numbers)) == len(numbers) and max(numbers, default=0) < count:
        rows = np.array(numbers, np.int64)
    elif list(copy.parts) == votes.parts:
        rows = np.arange(count)
    else:
        raise InputError(
            f"{shown(table)}: its {count} rows cannot be joined with the {len(copy.parts)} pictures of {copy.layout}, "
            "whose names do not tell their row; put fer2013.csv beside it"
        )
    says, theirs, parts = _majority(votes.counts)[rows], copy.labels, np.array(votes.parts)[rows]
    both = (says >= 0) & (says < 7) & (theirs >= 0)
    alike = [
        float((says == theirs)[chosen].mean()) for part in set(votes.parts) if (chosen := both & (parts == part)).any()
    ]
    if min(alike, default=1.0) < ALIKE:
        raise InputError(
            f"{shown(table)}: its votes agree with only {min(alike):.0%} of the labels of {copy.layout}, so that is in "
            "another order; put fer2013.csv as published beside it"
        )
    return rows


def _by_name(lists: Mapping[str, Path], root: Path, rule: Rule) -> Listing:
    """FER2013Train|Valid|Test/label.csv: name, rectangle of the face (always the whole image) and votes."""
    votes, paths, absent, ignored = _Votes(), [], [], Counter()
    rows: Counter[str] = Counter()
    for part, table in lists.items():
        there, before = set(image_names(table.parent, ignored, root)), len(paths)
        ignored["files that are no pictures (.csv)"] -= 1  # label.csv itself
        for line, (name, _, *texts) in _lines(table):
            rows[part] += 1
            if name in there:
                votes.add(f"{shown(table)}: line {line}", part, texts)
                paths.append(f"{table.parent}/{name}")
            else:
                absent.append(f"{table.parent.name}/{name}")
        if spare := len(there.difference(path.rpartition("/")[2] for path in paths[before:])):
            ignored["pictures without votes"] += spare
    layout = f"{', '.join(table.parent.name for table in lists.values())} with label.csv"
    if not paths:
        raise InputError(f"{shown(root)} ({layout}): none of the listed pictures is there")
    names = [path.removeprefix(f"{root}/") for path in paths]
    listing = _listing(layout, Files(paths), names, votes, np.arange(len(paths)), rule)
    listing.ignored.update(+ignored)
    listing.problems += missing(absent, rows.total())
    if repeated := len(paths) - len(set(paths)):
        listing.problems.append(f"{repeated} pictures are listed twice")
    _compare(listing, rows, _ROWS["label.csv"], "rows of votes")
    return listing


def _lines(table: Path) -> Iterator[tuple[int, list[str]]]:
    """The line and fields of each row that is not blank; at least a name and a rectangle."""
    try:
        with table.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(file)
            for fields in filter(None, reader):
                yield reader.line_num, [text.strip() for text in (*fields, "", "")[: max(2, len(fields))]]
    except OSError as error:
        raise InputError(f"{shown(table)} cannot be read: {error.strerror}") from None
    except csv.Error as error:
        raise InputError(f"{shown(table)} is no csv: {error}") from None


def _listing(
    layout: str, pictures: Pictures, names: Sequence[str], votes: _Votes, rows: np.ndarray, rule: Rule
) -> Listing:
    """Picture i has the votes of row `rows[i]`; those that the rule gives no class are counted as ignored."""
    counts, parts = votes.counts[rows], np.array(votes.parts)[rows]
    labels = _RULES[rule](counts)
    shares = counts[:, _PLACES] / np.maximum(1, counts[:, _PLACES].sum(1, keepdims=True))
    soft = shares.astype(np.float32) if rule == "distribution" else None
    whole_part = Part(pictures, labels, tuple(names), votes=soft)
    kept = {part: np.flatnonzero((labels >= 0) & (parts == part)) for part in SPLITS}
    listing = Listing(
        layout,
        CLASSES,
        {part: whole_part.take(chosen) for part, chosen in kept.items() if len(chosen)},
        faults=votes.faults,
    )
    for label, why in ((_OTHER, "called no face or no known expression"), (_NONE, "without a class")):
        if count := int((labels == label).sum()):
            listing.ignored[f"images {why} by {rule}"] += count
    if few := int((counts.sum(1) != _VOTERS).sum()):
        listing.notes.append(f"{few} images have other than {_VOTERS} votes")
    return listing


def _compare(listing: Listing, found: Mapping[str, int], published: Sequence[int], what: str) -> None:
    """Adds a problem for each part of `found` with another number of `what` than published."""
    listing.problems += [
        f"{part} has {found[part]} {what} where {count} were published"
        for part, count in zip(SPLITS, published, strict=True)
        if found.get(part, count) != count
    ]


def _majority(votes: np.ndarray) -> np.ndarray:
    """Votes (n, 10) -> index into `CLASSES`, `_OTHER` or `_NONE`."""
    votes = np.where(votes > 1, votes, 0)
    return np.where(2 * votes.max(1) > votes.sum(1), _LABELS[votes.argmax(1)], _NONE)


def _argmax(votes: np.ndarray) -> np.ndarray:
    """Votes (n, 10) -> index into `CLASSES`, `_OTHER`, or `_NONE` where nobody voted."""
    return np.where(votes.any(1), _LABELS[votes.argmax(1)], _NONE)


_RULES = {"majority": _majority, "argmax": _argmax, "distribution": _argmax}

INFO = DatasetInfo(
    name="ferplus",
    classes=CLASSES,
    description="FER+: FER2013 with the votes of ten people an image; 48×48 gray, 8 classes",
    read=read_ferplus,
    size=SIZE,
    channels=1,
    licence="votes by Microsoft under the MIT licence; the images are those of FER2013",
    extends="fer2013",
)
