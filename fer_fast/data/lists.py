"""Lists of pictures as people have them, lines or csv, and from rows of (path, class) to a part."""

import csv
import os
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from fer_fast.data.files import bare, image_names, shown
from fer_fast.data.labels import Order, canonical_class, order_of
from fer_fast.data.listing import Listing, Part
from fer_fast.data.pictures import Pictures
from fer_fast.errors import InputError


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The number and text of each line that is not blank; names in any encoding survive.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, line in enumerate(file, 1):
                if line := line.strip():
                    yield number, line
    except OSError as error:
        raise InputError(f"{shown(path)} cannot be read: {error.strerror}") from None


def read_list(path: Path, fields: int, faults: list[str]) -> Iterator[tuple[int, str, list[str]]]:
    """Line number, name and the `fields` words behind it; a name may hold spaces. Other lines go to `faults`."""
    for number, line in read_lines(path):
        name, *words = line.rsplit(maxsplit=fields)
        if len(words) == fields:
            yield number, name, words
        else:
            faults.append(f"{shown(path)}: line {number}: {len(words) + 1} words; needed: a name and {fields} more")


def read_csv(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and column in lower case -> text, for each row below the line of names.

    Raises:
        InputError: it cannot be read, or is no csv.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(file, skipinitialspace=True)
            header = [name.strip().lower() for name in next(reader, [])]
            for row in reader:
                if row:
                    yield reader.line_num, dict(zip(header, map(str.strip, row), strict=False))
    except OSError as error:
        raise InputError(f"{shown(path)} cannot be read: {error.strerror}") from None
    except csv.Error as error:
        raise InputError(f"{shown(path)} is no csv: {error}") from None


def whole(text: str) -> int | None:
    """The whole number, not below zero, that is written in `text`, also as 4.0; None where it is none."""
    digits = text.strip().removesuffix(".0")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None


def meanings(
    counts: Mapping[str, int],
    classes: Sequence[str],
    orders: Sequence[Order],
    published: Sequence[Mapping[str, int]],
    given: str | None,
    where: Path,
) -> dict[str, str] | None:
    """What the labels of `counts` (label -> pictures) mean: names of `classes`, or numbers of one of the `orders`.

    None where they are neither. Numbers have to be all those of an order, unless it is given; `order_of` tells which
    order, and raises where the sizes decide nothing.
    """
    own = {bare(name): name for name in classes}
    named = {word: canonical_class(word) or own.get(bare(word)) for word in counts}
    if counts and all(name in classes for name in named.values()):
        return named
    numbers = {word: whole(word) for word in counts}
    there = set(numbers.values())
    possible = [
        order
        for order in orders
        if there == order.classes.keys() or (order.name == given and there <= order.classes.keys())
    ]
    if not counts or not possible:
        return None
    sizes: Counter[int] = Counter()
    for word, count in counts.items():
        sizes[numbers[word]] += count
    order = order_of(sizes, possible, published, given, where)
    return {word: order.classes[number] for word, number in numbers.items()}


def editions(published: Mapping[str, Mapping[str, int]]) -> list[Mapping[str, int]]:
    """The sizes of each part, and of all together: a copy may hold one part, or be cut otherwise."""
    together: Counter[str] = Counter()
    for sizes in published.values():
        together.update(sizes)
    return [*published.values(), together]


class Present:
    """Which pictures lie below a folder, by names as a list has them; each folder is looked into once."""

    def __init__(self, base: Path, root: Path):
        """`root` of the user: what lies outside, by .. or by links, is not there."""
        self._base, self._root, self._folders = base, root, {}

    def path(self, name: str) -> str | None:
        """The path of a picture; None where it is not there."""
        folder, _, file = name.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = self._names(folder)
        return f"{self._base}/{name}" if file in self._folders[folder] else None

    def _names(self, folder: str) -> set[str]:
        place = self._base / folder
        inside = Path(os.path.realpath(place)).is_relative_to(os.path.realpath(self._root))
        way = PurePosixPath(folder)
        usable = inside and not way.is_absolute() and ".." not in way.parts and place.is_dir()
        return set(image_names(place, within=self._root)) if usable else set()


def part_of(
    pictures: Pictures,
    names: Sequence[str],
    words: Sequence[str],
    classes: Sequence[str],
    ignored: Counter[str],
    boxes: np.ndarray | None = None,
    groups: Sequence[str] | None = None,
    subjects: Sequence[str] | None = None,
) -> Part:
    """Rows of pictures and names of their classes; those of other classes are left out and counted in `ignored`."""
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers.get(word, -1) for word in words], np.int64)
    for word, count in Counter(word for word in words if word not in numbers).items():
        ignored[f"pictures of {word}"] += count
    people, kept_together = (None if column is None else tuple(column) for column in (subjects, groups))
    part = Part(pictures, labels, tuple(names), boxes, people, kept_together)
    return part if labels.min(initial=0) >= 0 else part.take(np.flatnonzero(labels >= 0))


def below(root: Path, paths: Sequence[str]) -> list[str]:
    """The paths as seen from `root`."""
    return [path.removeprefix(f"{root}/") for path in paths]


def first_rows(keys: Sequence[Hashable], labels: Sequence[Hashable], what: str, listing: Listing) -> list[int]:
    """The rows that are the first of their key.

    Those that say the same again are counted among the ignored of `listing`; those that give a key another label are a
    problem of it.
    """
    first: dict[Hashable, int] = {}
    conflicts = []
    for row, key in enumerate(keys):
        earlier = first.setdefault(key, row)
        if labels[earlier] != labels[row]:
            conflicts.append(row)
        elif earlier != row:
            listing.ignored[f"{what} that repeat another"] += 1
    if conflicts:
        key, row = keys[conflicts[0]], conflicts[0]
        listing.problems.append(
            f"{len(conflicts)} {what} give a picture another label than before, the first: {shown(str(key))} "
            f"({labels[first[key]]}, then {labels[row]}); the first label is kept"
        )
    return list(first.values())


def missing(names: Sequence[str], total: int) -> list[str]:
    """The problem that pictures of a list are not there; none where all are."""
    if not names:
        return []
    return [f"{len(names)} of {total} listed pictures are not there, the first: {shown(names[0])}"]
