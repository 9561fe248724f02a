"""Pictures in folders named after their classes, and from rows of names to a part; shared by several datasets."""

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fer_fast.data.files import image_names, list_folders, shown
from fer_fast.data.labels import Order, canonical_class, order_of
from fer_fast.data.listing import Part
from fer_fast.data.pictures import Files

SPLIT_WORDS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip

Found = dict[str, dict[str, list[str]]]  # part -> folder of a class -> paths of its pictures


def class_folders(base: Path, root: Path, ignored: Counter[str]) -> Found:
    """The pictures below `base` in train|val|test/<class>/, else in <class>/, which is the part "all".

    Args:
        base: the folder to look in.
        root: of the user; links that lead out of it are not followed.
        ignored: reason -> how many, of what is left aside.
    """
    split_folders = [folder for folder in list_folders(base, within=root) if folder.name.lower() in SPLIT_WORDS]
    found: Found = {}
    for folder in split_folders or [base]:
        classes = found.setdefault(SPLIT_WORDS[folder.name.lower()] if split_folders else "all", {})
        for class_folder in list_folders(folder, ignored, root):
            paths = [f"{class_folder}/{name}" for name in image_names(class_folder, ignored, root)]
            if paths:
                classes.setdefault(class_folder.name, []).extend(paths)
            else:
                ignored["folders without a picture"] += 1
    return {part: classes for part, classes in found.items() if classes}


def meanings(
    found: Found,
    classes: Collection[str],
    orders: Sequence[Order],
    published: Sequence[Mapping[str, int]],
    given: str | None,
    where: Path,
) -> dict[str, str] | None:
    """What the class folders mean, by their names, or where they are numbers by `order_of`; None where neither.

    Names are taken where every folder has the name of one of `classes` and no two of a part mean the same class.
    """
    words = {part: list(folders) for part, folders in found.items()}
    named = {word: canonical_class(word) for column in words.values() for word in column}
    if named and all(name in classes for name in named.values()):
        distinct = all(len({named[word] for word in column}) == len(column) for column in words.values())
        return named if distinct else None
    if not named or not all(word.isascii() and word.isdigit() for word in named):
        return None
    counts: Counter[int] = Counter()
    for word, paths in found.get("train", next(iter(found.values()))).items():
        counts[int(word)] += len(paths)
    order = order_of(counts, orders, published, given, where)
    return {word: order.classes.get(int(word), f"class {word}") for word in named}


def part_of(
    root: Path,
    paths: Sequence[str],
    words: Sequence[str],
    classes: Sequence[str],
    ignored: Counter[str],
    boxes: np.ndarray | None = None,
    groups: Sequence[str] | None = None,
) -> Part:
    """Rows of (path, name of the class) as a part; rows of other classes are left out and counted in `ignored`."""
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers.get(word, -1) for word in words], np.int64)
    for word, count in Counter(word for word in words if word not in numbers).items():
        ignored[f"pictures of {word}"] += count
    start = len(f"{root}/")
    names = tuple(path[start:] for path in paths)
    part = Part(Files(paths), labels, names, boxes, groups=None if groups is None else tuple(groups))
    return part if labels.min(initial=0) >= 0 else part.take(np.flatnonzero(labels >= 0))


def first_rows(keys: Sequence[Hashable], labels: Sequence[Hashable], ignored: Counter[str]) -> tuple[list[int], list[int]]:
    """The rows that are the first of their key, and those that give an earlier key another label.

    Rows that repeat both are counted in `ignored`.
    """
    first: dict[Hashable, int] = {}
    conflicts = []
    for row, key in enumerate(keys):
        earlier = first.setdefault(key, row)
        if labels[earlier] != labels[row]:
            conflicts.append(row)
        elif earlier != row:
            ignored["rows that repeat another"] += 1
    return list(first.values()), conflicts
