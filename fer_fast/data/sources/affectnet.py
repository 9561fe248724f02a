"""AffectNet with eight classes or seven: both official editions, and the forms other people keep it in."""

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fer_fast.data.archives import read_yolo
from fer_fast.data.files import bare, bases, find, image_names, list_folders, shown
from fer_fast.data.folders import SPLIT_WORDS, class_folders, distinct, outweigh, report_validation, rows_of, sizes_of
from fer_fast.data.labels import CLASSES, FAR, Order, distance
from fer_fast.data.listing import Listing
from fer_fast.data.lists import (
    Present,
    below,
    editions,
    first_rows,
    meanings,
    missing,
    part_of,
    read_csv,
    read_lines,
    read_list,
    whole,
)
from fer_fast.data.npy import CORRUPT, MISSING, read_scalars
from fer_fast.data.pictures import Files
from fer_fast.data.table import DatasetInfo
from fer_fast.data.tables import read_labelled, table_files
from fer_fast.errors import InputError

_ALPHABETICAL = sorted(CLASSES)
ORDERS = (
    Order("affectnet", dict(enumerate(CLASSES))),
    Order("affectnet-7", dict(enumerate(CLASSES[:7]))),
    Order("alphabetical", dict(enumerate(_ALPHABETICAL))),
    Order("alphabetical-7", dict(enumerate(name for name in _ALPHABETICAL if name != "contempt"))),
)
PUBLISHED = {
    "train": dict(zip(CLASSES, (74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750), strict=True)),
    "test": dict.fromkeys(CLASSES, 500),
}
PUBLISHED_7 = {part: {name: sizes[name] for name in CLASSES[:7]} for part, sizes in PUBLISHED.items()}
_SIZES = [*editions(PUBLISHED), *editions(PUBLISHED_7)]
_DROPPED = {"8": "none", "9": "uncertain", "10": "no face"} | {
    "none": "none", "uncertain": "uncertain", "nonface": "no face", "noface": "no face",
}  # fmt: skip

_BY_MACHINE = "automaticallyannotated"  # never read: what a network labelled
_PARENTS = {"affectnet", "affectnet7", "affectnet8", "sevenemotions", "manuallyannotated", "data", "dataset"} | {
    _BY_MACHINE + rest for rest in ("", "images", "filelists", "compressed")
}
_HOMES = (  # of the pictures of the older edition
    "Manually_Annotated_Images",
    "Manually_Annotated/Manually_Annotated_Images",
    "Manually_Annotated_compressed/Manually_Annotated_Images",
    "Manually_Annotated_compressed",
    "Manually_Annotated",
    "",
)
_SETS = {"train": ("train_set",), "val": ("val_set", "valid_set", "eval_set")}
_TRIED = 100  # rows of a list whose pictures are looked for, to find the folder they lie in


def read_affectnet8(root: Path, *, order: str | None = None) -> Listing | None:
    """AffectNet with contempt.

    Args:
        root: the user's folder.
        order: what class numbers mean where the copy does not say: the name of one of `ORDERS`.
    """
    return _read(root, CLASSES, order)


def read_affectnet7(root: Path, *, order: str | None = None) -> Listing | None:
    """AffectNet without contempt; as `read_affectnet8`."""
    return _read(root, CLASSES[:7], order)


def _read(root: Path, classes: tuple[str, ...], order: str | None) -> Listing | None:
    by_machine = None
    for base in bases(root, _PARENTS):
        if _BY_MACHINE in bare(f"{root.name}/{base.relative_to(root)}"):
            by_machine = base
            continue
        for form in _FORMS:
            listing = Listing("", classes, {})
            if form(base, root, listing, order):
                report_validation(listing.parts, listing.notes)
                if beside := [f.name for f in list_folders(base, within=root) if bare(f.name).startswith(_BY_MACHINE)]:
                    listing.ignored["folders that were labelled by a machine (Automatically_Annotated)"] += len(beside)
                return listing
    if by_machine:
        raise InputError(f"{shown(by_machine)} was labelled by a machine and is never read; Manually_Annotated is")
    return None


def _meaning(counts: Mapping[str, int], order: str | None, where: Path) -> dict[str, str] | None:
    """Label -> class, or what is dropped; None where a label is neither."""
    plain = {word: bare(word) if (number := whole(word)) is None else str(number) for word in counts}
    dropped = {word: _DROPPED[called] for word, called in plain.items() if called in _DROPPED}
    rest = {word: count for word, count in counts.items() if word not in dropped}
    named = meanings(rest, CLASSES, ORDERS, _SIZES, order, where)
    return named and named | dropped


def _near(listing: Listing) -> bool:
    """Whether the sizes of all parts together are AffectNet's, or those of one of its parts."""
    sizes: Counter[str] = Counter()
    for counts in listing.counts().values():
        sizes.update(counts)
    return distance(sizes, _SIZES) <= FAR


def _older(base: Path, root: Path, listing: Listing, order: str | None) -> bool:
    """training.csv and validation.csv, whose numbers are official, and pictures in numbered folders."""
    lists = find(base, "Manually_Annotated_file_lists", within=root) or base
    for part, word in (("train", "training.csv"), ("val", "validation.csv")):
        table = find(lists, word, within=root)
        rows = table and _older_rows(table, listing)
        if not rows:
            continue
        rows = [rows[i] for i in first_rows([row.name for row in rows], [row.word for row in rows], "rows", listing)]
        present = _home(base, root, table, [row.name for row in rows])
        paths = [present.path(row.name) for row in rows]
        there = [row for row, path in zip(rows, paths, strict=True) if path]
        listing.problems += missing([row.name for row, path in zip(rows, paths, strict=True) if not path], len(rows))
        paths = [path for path in paths if path]
        boxes = np.array([row.box for row in there], np.float32)
        words = [row.word for row in there]
        taken = part_of(Files(paths), below(root, paths), words, listing.classes, listing.ignored, boxes)
        listing.parts[part] = taken
        if without := np.isnan(taken.boxes[:, 0]).sum():
            listing.notes.append(f"{without} pictures of {word} have no box, or one that is none (NULL, negative)")
    listing.layout, listing.faces = "older edition, training.csv and validation.csv", "box"
    return bool(listing.parts)


class _Row(NamedTuple):
    name: str
    word: str
    box: tuple[float, ...]


def _older_rows(table: Path, listing: Listing) -> list[_Row]:
    """The rows of an official list, of name and box from the left, expression from the right; none where it is another.

    Between them lie the landmarks, in one column or in many.
    """
    rows = []
    for number, line in read_lines(table):
        line = line.replace('"', "")
        left, right = line.split(",", 5), line.rsplit(",", 3)
        name, label = left[0].strip(), whole(right[1]) if len(left) == 6 and len(right) == 4 else None
        if label is not None and "/" in name and label <= 10:
            rows.append(_Row(name, CLASSES[label] if label < 8 else _DROPPED[str(label)], _box(left[1:5])))
        elif not name.lower().startswith("subdirectory"):
            if not rows:
                return []
            listing.faults.append(
                f"{shown(table)}: line {number}: no picture and expression 0 to 10: {shown(line[:60])}"
            )
    return rows


def _box(texts: Sequence[str]) -> tuple[float, ...]:
    """Left, top, width, height; NaN where it is none."""
    try:
        left, top, width, height = box = tuple(map(float, texts))
    except ValueError:
        return (math.nan,) * 4
    return box if left >= 0 and top >= 0 and width > 0 and height > 0 and math.isfinite(sum(box)) else (math.nan,) * 4


def _home(base: Path, root: Path, table: Path, names: Sequence[str]) -> Present:
    """The folder of the pictures of a list."""
    for home in _HOMES:
        present = Present(base / home, root)
        if any(map(present.path, names[:_TRIED])):
            return present
    raise InputError(f"{shown(table)}: none of its pictures is there; {shown(base)} has to hold {_HOMES[0]}/")


def _newer(base: Path, root: Path, listing: Listing, order: str | None) -> bool:
    """train_set and val_set with images/N.jpg, and annotations/N_exp.npy or a list of names and numbers."""
    rows: dict[str, tuple[list[str], list[str]]] = {}
    for part, words in _SETS.items():
        folder = find(base, *words, within=root)
        images = folder and find(folder, "images", within=root)
        if images:
            rows[part] = _annotated(folder, images, base, root, listing)
    counts = Counter(word for _, words in rows.values() for word in words)
    if not counts:
        return False
    if (named := _meaning(counts, order, base)) is None:
        labels = ", ".join(map(shown, sorted(counts)[:20]))
        raise InputError(f"{shown(base)} has the form of AffectNet's newer edition, but other classes: {labels}")
    for part, (paths, words) in rows.items():
        words = [named[word] for word in words]
        listing.parts[part] = part_of(Files(paths), below(root, paths), words, listing.classes, listing.ignored)
    validation = listing.counts().get("val", {})
    if sorted(validation.values()) == [499] + [500] * (len(validation) - 1):  # this edition lacks one picture of 4 000
        listing.published = {"test": validation}
    listing.layout, listing.sure = "newer edition, train_set and val_set", _near(listing)
    return True


def _annotated(folder: Path, images: Path, base: Path, root: Path, listing: Listing) -> tuple[list[str], list[str]]:
    """Paths and labels of one set: of single files, else of a list in it or beside it."""
    files = image_names(images, listing.ignored, root)
    if annotations := find(folder, "annotations", within=root):
        numbers = read_scalars([f"{annotations}/{os.path.splitext(file)[0]}_exp.npy" for file in files])
        listing.faults += [
            f"{shown(annotations)}: the expression of {shown(files[i])} is no number"
            for i in np.flatnonzero(numbers == CORRUPT)
        ]
        if without := (numbers == MISSING).sum():
            listing.problems.append(f"{without} pictures of {folder.name} have no annotation and are left out")
        kept = np.flatnonzero(numbers >= 0).tolist()
        return [f"{images}/{files[i]}" for i in kept], [str(numbers[i]) for i in kept]
    word = folder.name.lower().removesuffix("_set")
    lists = [f"{word}_annotations{rest}.txt" for rest in ("", "_7class", "_8class")]
    table = find(folder, *lists, within=root) or find(base, *lists, within=root)
    if table is None:
        return [], []
    rows = [(name.rpartition("/")[2], word) for _, name, (word,) in read_list(table, 1, listing.faults)]
    rows = [rows[i] for i in first_rows([name for name, _ in rows], [word for _, word in rows], "rows", listing)]
    there = set(files)
    listing.problems += missing([name for name, _ in rows if name not in there], len(rows))
    if unlisted := len(there - {name for name, _ in rows}):
        listing.ignored["pictures that are not on the list"] += unlisted
    rows = [row for row in rows if row[0] in there]
    return [f"{images}/{name}" for name, _ in rows], [word for _, word in rows]


def _listed(base: Path, root: Path, listing: Listing, order: str | None) -> bool:
    """affectnet.csv with the columns phase, img_path and label."""
    table = find(base, "affectnet.csv", within=root)
    rows = []
    for line, row in read_csv(table) if table else ():
        part, name, word = SPLIT_WORDS.get(row.get("phase", "").lower()), row.get("img_path"), row.get("label")
        if part and name and word:
            rows.append((part, name.replace("\\", "/"), word))
        else:
            listing.faults.append(f"{shown(table)}: line {line} lacks phase (train, val, test), img_path or label")
    named = _meaning(Counter(word for _, _, word in rows), order, table) if rows else None
    if named is None:
        return False
    rows = [rows[i] for i in first_rows([row[1] for row in rows], [row[2] for row in rows], "rows", listing)]
    present, outer = _outer_folders(base, root, table, [name for _, name, _ in rows])
    paths = [present.path("/".join(name.split("/")[outer:])) for _, name, _ in rows]
    listing.problems += missing([row[1] for row, path in zip(rows, paths, strict=True) if not path], len(rows))
    for part in dict.fromkeys(part for part, _, _ in rows):
        there = [(path, named[row[2]]) for row, path in zip(rows, paths, strict=True) if path and row[0] == part]
        if there:
            inside, words = zip(*there, strict=True)
            listing.parts[part] = part_of(Files(inside), below(root, inside), words, listing.classes, listing.ignored)
    listing.layout, listing.sure = "affectnet.csv", _near(listing)
    return True


def _outer_folders(base: Path, root: Path, table: Path, names: Sequence[str]) -> tuple[Present, int]:
    """How many folders the names of a list begin with that were on the machine it was written on, and not here."""
    present = Present(base, root)
    for folders in (name.split("/") for name in names[:_TRIED]):
        for outer in range(len(folders)):
            if present.path("/".join(folders[outer:])):
                return present, outer
    raise InputError(f"{shown(table)}: none of its pictures is there")


def _by_folder(base: Path, root: Path, listing: Listing, order: str | None) -> bool:
    """Class folders, perhaps with labels.csv (pth,label,relFCs), which outweighs them."""
    found = class_folders(base, root, listing.ignored, listing.faults)
    named = _meaning(sizes_of(found), order, base)
    if named is None or not distinct(found, named):
        return False
    table = find(base, "labels.csv", within=root)
    written = _written(table, order, listing) if table else {}
    for part, folders in found.items():
        paths, words = rows_of(folders, named)
        if written:
            words = outweigh(words, list(map(_last_two, paths)), written, "labels.csv", listing.problems)
        listing.parts[part] = part_of(Files(paths), below(root, paths), words, listing.classes, listing.ignored)
    listing.layout = f"{'|'.join(found)}/<class>/" + (" with labels.csv" if written else "")
    listing.sure = bool(written) or _near(listing)
    return True


def _written(table: Path, order: str | None, listing: Listing) -> dict[str, str]:
    """Folder and file -> class; nothing where it is another table."""
    rows = [(_last_two(row.get("pth", "")), row.get("label", "")) for _, row in read_csv(table)]
    named = _meaning(Counter(word for _, word in rows), order, table)
    if named is None:
        listing.ignored["tables that are not pth, label"] += 1
        return {}
    kept = first_rows([name for name, _ in rows], [word for _, word in rows], "rows", listing)
    return {rows[i][0]: named[rows[i][1]] for i in kept}


def _last_two(path: str) -> str:
    return "/".join(path.replace("\\", "/").rsplit("/", 2)[-2:])


def _yolo(base: Path, root: Path, listing: Listing, order: str | None) -> bool:
    """data.yaml with the names of the classes, images and labels."""
    tree = read_yolo(base)
    named = tree and _meaning(dict.fromkeys(tree.names, 1), order, base)
    if not named:
        return False
    listing.faults, listing.unlabelled = tree.faults, 0
    for word, files in tree.files.items():
        if (part := SPLIT_WORDS.get(word.lower())) is None:
            listing.ignored[f"pictures in {word}"] += len(files)
            continue
        kept = np.flatnonzero(tree.labels[word] >= 0).tolist()
        listing.unlabelled += len(files) - len(kept)
        paths = [os.fspath(files[i]) for i in kept]
        words = [named[tree.names[tree.labels[word][i]]] for i in kept]
        listing.parts[part] = part_of(Files(paths), below(root, paths), words, listing.classes, listing.ignored)
    listing.layout, listing.sure = "YOLO, data.yaml", _near(listing)
    return True


def _columns(base: Path, root: Path, listing: Listing, order: str | None) -> bool:
    """Parquet or arrow files, a column of pictures and one of labels."""
    files = table_files(base)
    listing.ignored.update({f"tables of {shown(word)}": len(files[word]) for word in files if word not in SPLIT_WORDS})
    read = {SPLIT_WORDS[word]: read_labelled(files[word]) for word in files if word in SPLIT_WORDS}
    read = {part: rows for part, rows in read.items() if rows}
    words = {
        part: [rows.classes[i] if 0 <= i < len(rows.classes or ()) else str(i) for i in rows.labels.tolist()]
        for part, rows in read.items()
    }
    counts = Counter(word for column in words.values() for word in column if word != "-1")
    if (named := _meaning(counts, order, base)) is None:
        return False
    named["-1"] = "no label"
    for part, rows in read.items():
        column = [named[word] for word in words[part]]
        listing.parts[part] = part_of(rows.pictures, rows.names, column, listing.classes, listing.ignored)
    listing.layout, listing.sure = "parquet or arrow tables", _near(listing)
    return True


_FORMS: tuple[Callable[[Path, Path, Listing, str | None], bool], ...] = (
    _older, _newer, _listed, _yolo, _columns, _by_folder,
)  # fmt: skip


_LICENCE = "on request from its authors (University of Denver), for research only; pictures may not be passed on"
INFO = DatasetInfo(
    name="affectnet8",
    classes=CLASSES,
    description="AffectNet, labelled by people: 287 651 photographs, eight classes with contempt",
    read=read_affectnet8,
    size=224,
    channels=3,
    published=PUBLISHED,
    licence=_LICENCE,
)
INFO_7 = DatasetInfo(
    name="affectnet7",
    classes=CLASSES[:7],
    description="AffectNet, labelled by people: 283 901 photographs, seven classes without contempt",
    read=read_affectnet7,
    size=224,
    channels=3,
    published=PUBLISHED_7,
    licence=_LICENCE,
)
