"""Pictures in folders that are called after their classes, with parts or without."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from fer_fast.data.dataset import SPLITS
from fer_fast.data.files import image_names, list_folders, shown
from fer_fast.data.lists import missing
from fer_fast.errors import InputError

T = TypeVar("T")

SPLIT_WORDS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip

Found = dict[str, dict[str, list[str]]]  # part -> folder of a class -> paths of its pictures


def class_folders(base: Path, root: Path, ignored: Counter[str], faults: list[str] | None = None) -> Found:
    """The pictures below `base` in train|val|test/<class>/, else in <class>/, which is the part "all".

    Args:
        base: the folder to look in.
        root: of the user; links that lead out of it are not followed.
        ignored: reason -> how many, of what is left aside.
        faults: gets a line for each class folder that cannot be read; where there is no such list, that is an error.

    Raises:
        InputError: a folder that cannot be read.
    """
    folders = list_folders(base, ignored, root)
    parts = [(SPLIT_WORDS[folder.name.lower()], folder) for folder in folders if folder.name.lower() in SPLIT_WORDS]
    if parts and len(parts) < len(folders):
        ignored["folders beside those of the parts"] += len(folders) - len(parts)
    found: Found = {}
    for part, folder in parts or [("all", base)]:
        classes = found.setdefault(part, {})
        for class_folder in list_folders(folder, ignored, root) if parts else folders:
            try:
                paths = [f"{class_folder}/{name}" for name in image_names(class_folder, ignored, root)]
            except InputError as error:
                if faults is None:
                    raise
                faults.append(str(error))
                continue
            if paths:
                classes.setdefault(class_folder.name, []).extend(paths)
            else:
                ignored["folders without a picture"] += 1
    return {part: found[part] for part in (*SPLITS, "all") if found.get(part)}


def sizes_of(found: Found) -> Counter[str]:
    """Pictures of each class folder, in all parts."""
    sizes: Counter[str] = Counter()
    for folders in found.values():
        sizes.update({word: len(paths) for word, paths in folders.items()})
    return sizes


def distinct(found: Found, named: Mapping[str, str]) -> bool:
    """Whether no two folders of a part mean the same class."""
    return all(len({named[word] for word in folders}) == len(folders) for folders in found.values())


def rows_of(folders: Mapping[str, list[str]], named: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Path and class of each picture in the class folders of a part."""
    paths = [path for inside in folders.values() for path in inside]
    return paths, [named[word] for word, inside in folders.items() for _ in inside]


def report_validation(parts: dict[str, T], notes: list[str]) -> None:
    """Where a copy has no test part, its validation part is the one that papers report on; a note says so."""
    if "val" in parts and "test" not in parts:
        parts["test"] = parts.pop("val")
        notes.append(
            "the validation part is the one that papers report on: it is the test part here, val is cut from train"
        )


def outweigh(
    words: Sequence[str], keys: Sequence[str], written: Mapping[str, str], table: str, problems: list[str]
) -> list[str]:
    """The class that a table gives each picture, else that of its folder; `problems` says how many differ.

    Args:
        words: the class by the folder of each picture.
        keys: what the table calls each.
        written: name of a picture in the table -> class.
        table: name of the table, for the line.
        problems: of the listing.
    """
    followed = [written.get(key, word) for key, word in zip(keys, words, strict=True)]
    differ = [i for i, word in enumerate(words) if followed[i] != word]
    if differ:
        i = differ[0]
        problems.append(
            f"{len(differ)} of {len(words)} pictures lie in the folder of another class than {table} says, the first: "
            f"{shown(keys[i])} ({words[i]}, by the table {followed[i]}); the table is followed"
        )
    problems += missing(sorted(written.keys() - set(keys)), len(written))
    return followed
