"""RAF-DB, basic and compound: the official folders with their list, and class folders with names or numbers."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from fer_fast.data.files import bases, find, image_names, shown
from fer_fast.data.folders import SPLIT_WORDS, class_folders, distinct, outweigh, report_validation, rows_of, sizes_of
from fer_fast.data.labels import CLASSES, FAR, Order, distance, order_of
from fer_fast.data.listing import Listing
from fer_fast.data.lists import below, editions, first_rows, meanings, missing, part_of, read_csv, read_list, whole
from fer_fast.data.pictures import Files
from fer_fast.data.table import DatasetInfo
from fer_fast.errors import InputError
from fer_fast.suggest import one_of

Form = Literal["aligned", "aligned_224", "original"]
FORMS: tuple[Form, ...] = ("aligned", "aligned_224", "original")
_PARENTS = {"rafdb", "rafbasic", "rafcompound", "basic", "compound", "database", "dataset", "data"}
_NAME = re.compile(r"(train|test)_(\d{1,9})(_aligned)?")  # five digits in train, four in test
_RAFCE = "{} is of RAF-CE, another dataset, with 14 compound expressions; RAF-DB has 7, RAF-DB compound 11"


def _from(start: int, names: Sequence[str]) -> dict[int, str]:
    return dict(enumerate(names, start))


_BASIC = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
_COMPOUND = (
    "happily surprised", "happily disgusted", "sadly fearful", "sadly angry", "sadly surprised", "sadly disgusted",
    "fearfully angry", "fearfully surprised", "angrily surprised", "angrily disgusted", "disgustedly surprised",
)  # fmt: skip


@dataclass(frozen=True)
class _Subset:
    """One of RAF-DB's two sets: its classes, what numbers can mean (the official order first), its published sizes."""

    classes: tuple[str, ...]
    orders: tuple[Order, ...]
    published: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)


BASIC = _Subset(
    CLASSES[:7],
    (
        Order("rafdb", _from(1, _BASIC)),
        Order("rafdb-from-0", _from(0, _BASIC)),
        Order("affectnet", _from(0, CLASSES[:7])),
    ),
    {
        "train": dict(zip(_BASIC, (1290, 281, 717, 4772, 1982, 705, 2524), strict=True)),
        "test": dict(zip(_BASIC, (329, 74, 160, 1185, 478, 162, 680), strict=True)),
    },
)
COMPOUND = _Subset(
    _COMPOUND,
    (Order("rafdb-compound", _from(1, _COMPOUND)), Order("rafdb-compound-from-0", _from(0, _COMPOUND))),
    totals={"train": 3162, "test": 792},  # the sizes of its classes are not published by part
)


def read_rafdb(root: Path, *, order: str | None = None, form: Form | None = None) -> Listing | None:
    """RAF-DB's seven basic expressions.

    Args:
        root: the user's folder.
        order: what class numbers mean where the copy does not say: rafdb, rafdb-from-0 or affectnet.
        form: which pictures of an official copy: aligned, aligned_224 or original; None takes the first it has.
    """
    return _read(root, BASIC, order, form)


def read_rafdb_compound(root: Path, *, order: str | None = None, form: Form | None = None) -> Listing | None:
    """RAF-DB's eleven compound expressions; as `read_rafdb`."""
    return _read(root, COMPOUND, order, form)


def _read(root: Path, subset: _Subset, order: str | None, form: Form | None) -> Listing | None:
    if form is not None:
        one_of(form, FORMS, "form")
    for base in bases(root, _PARENTS):
        if find(base, "RAFCE_emolabel.txt", "RAFCE_partition.txt", within=root):
            raise InputError(_RAFCE.format(shown(base)))
        lists = find(base, "EmoLabel", within=root) or base
        table = find(lists, "list_patition_label.txt", "list_partition_label.txt", within=root)
        listing = _official(base, table, root, subset, order, form) if table else _repack(base, root, subset, order)
        if listing is not None:
            for part, total in subset.totals.items():
                if part in listing.parts and len(listing.parts[part]) != total:
                    listing.problems.append(
                        f"{part} has {len(listing.parts[part])} images where {total} were published"
                    )
            return listing
    return None


class _Row(NamedTuple):
    key: str
    stem: str
    number: int
    line: int


def _official(
    base: Path, table: Path, root: Path, subset: _Subset, order: str | None, form: Form | None
) -> Listing | None:
    """The list and the pictures that lie beside it; None where the list is the other subset's."""
    listing = Listing("", subset.classes, {})
    rows = _rows_of_list(table, listing.faults)
    sizes = Counter(row.number for row in rows)
    if _subset_of(sizes, table) is not subset:
        return None
    meaning = _order_of_list(sizes, subset, order, table)
    listing.faults += [
        f"{shown(table)}: line {row.line}: class {row.number}; allowed: {', '.join(map(str, meaning))}"
        for row in rows
        if row.number not in meaning
    ]
    rows = [row for row in rows if row.number in meaning]
    labels = [meaning[row.number] for row in rows]
    rows = [rows[i] for i in first_rows([row.key for row in rows], labels, "rows", listing)]
    found_form, pictures = _pictures(base, root, form, listing.ignored)
    listing.layout = f"official list, pictures in {found_form}"
    listing.problems += missing([row.stem for row in rows if row.key not in pictures], len(rows))
    if unlisted := len(pictures.keys() - {row.key for row in rows}):
        listing.ignored["pictures that are not on the list"] += unlisted
    boxes = None
    if found_form == "original":
        annotation = find(base, "Annotation", within=root)
        boxes = annotation and find(annotation, "boundingbox", within=root)
        listing.faces = "box" if boxes else "align"
    for part in ("train", "test"):
        there = [row for row in rows if row.key in pictures and row.key.startswith(part)]
        if there:
            paths, words = [pictures[row.key] for row in there], [meaning[row.number] for row in there]
            column = _boxes(boxes, [row.stem for row in there]) if boxes else None
            listing.parts[part] = part_of(
                Files(paths), below(root, paths), words, subset.classes, listing.ignored, column
            )
            if boxes and (without := np.isnan(column[:, 0]).sum()):
                listing.notes.append(f"{without} pictures of {part} have no box that can be read")
    return listing


def _rows_of_list(table: Path, faults: list[str]) -> list[_Row]:
    rows = []
    for line, name, (word,) in read_list(table, 1, faults):
        stem, number = os.path.splitext(name)[0].removesuffix("_aligned"), whole(word)
        if (match := _NAME.fullmatch(stem)) and number is not None:
            rows.append(_Row(_key(match), stem, number, line))
        else:
            faults.append(f"{shown(table)}: line {line} is {shown(name)} {shown(word)}; a line is train_00001.jpg 5")
    return rows


def _subset_of(sizes: Counter[int], table: Path) -> _Subset:
    """Whose list it is, by its numbers; a few wrong ones do not change that."""
    many = 0.01 * sizes.total()
    if 0 in sizes and sum(sizes[number] for number in range(11, 14)) > many:
        raise InputError(_RAFCE.format(shown(table)))
    return COMPOUND if sum(count for number, count in sizes.items() if number > 7) > many else BASIC


def _order_of_list(sizes: Counter[int], subset: _Subset, order: str | None, table: Path) -> Mapping[int, str]:
    official = subset.orders[0]
    if order is None and sizes.keys() <= official.classes.keys():
        return official.classes
    return order_of(sizes, subset.orders, editions(subset.published), order, table).classes


def _pictures(base: Path, root: Path, form: Form | None, ignored: Counter[str]) -> tuple[Form, dict[str, str]]:
    """The form that is there, and the path of each picture."""
    home = find(base, "Image", within=root) or base
    wanted = FORMS if form is None else (form,)
    for name in wanted:
        folder = find(home, name, within=root)
        for place in bases(folder, ()) if folder else ():  # an archive may hold the folder once more
            if files := image_names(place, Counter(), root):
                keys = [_key(match) if (match := _match(file)) else None for file in files]
                paths = {key: f"{place}/{file}" for key, file in zip(keys, files, strict=True) if key}
                if others := len(files) - len(paths):
                    ignored["pictures whose names are not RAF-DB's"] += others
                return name, paths
    raise InputError(f"{shown(home)} has no pictures in {' or '.join(wanted)}; archives there have to be unpacked")


def _match(file: str) -> re.Match[str] | None:
    return _NAME.fullmatch(os.path.splitext(file)[0])


def _key(match: re.Match[str]) -> str:
    """Of a picture, whatever the digits that its number is written with."""
    return f"{match[1]} {int(match[2])}"


def _boxes(folder: Path, stems: Sequence[str]) -> np.ndarray:
    """float32 (n, 4), left, top, width, height; the files hold left, top, right, bottom. NaN where there is none."""
    boxes = np.full((len(stems), 4), np.nan, np.float32)
    for row, stem in enumerate(stems):
        try:
            with open(folder / f"{stem}_boundingbox.txt", "rb") as file:
                left, top, right, bottom = map(float, file.read(512).split())
        except (OSError, ValueError):
            continue
        if right > left and bottom > top and math.isfinite(right - left + bottom - top):
            boxes[row] = left, top, right - left, bottom - top
    return boxes


def _repack(base: Path, root: Path, subset: _Subset, order: str | None) -> Listing | None:
    """Class folders, with or without train_labels.csv and test_labels.csv."""
    listing = Listing("", subset.classes, {})
    found = class_folders(base, root, listing.ignored, listing.faults)
    published = editions(subset.published)
    named = meanings(sizes_of(found), subset.classes, subset.orders, published, order, base)
    if named is None or not distinct(found, named):
        return None
    report_validation(found, listing.notes)
    aligned, strangers, sizes = 0, 0, Counter()
    for part, folders in found.items():
        paths, words = rows_of(folders, named)
        files = [path.rpartition("/")[2] for path in paths]
        for table in _tables(base, root, part):
            words = outweigh(words, files, _written(table, named, subset, listing), table.name, listing.problems)
        sizes.update(words)
        matches = [match for file in files if (match := _match(file))]
        aligned += sum(match[3] is not None for match in matches)
        strangers += 0 if part == "all" else sum((match[1] == "test") != (part == "test") for match in matches)
        listing.parts[part] = part_of(Files(paths), below(root, paths), words, subset.classes, listing.ignored)
    if strangers:
        listing.notes.append(
            f"{strangers} pictures are of the other official part by their names: the copy is re-split"
        )
    listing.sure = aligned == sizes.total() or distance(sizes, published) <= FAR
    listing.layout = f"{'|'.join(found)}/<class>/, classes by {'number' if all(map(str.isdigit, named)) else 'name'}"
    return listing


def _tables(base: Path, root: Path, part: str) -> Iterator[Path]:
    """The csv files of a part, beside its folder or one level above."""
    names = [f"{word}_labels.csv" for word, meant in SPLIT_WORDS.items() if meant == part]
    for folder in (base, base.parent) if base != root else (base,):
        if table := find(folder, *names, within=root):
            yield table


def _written(table: Path, named: Mapping[str, str], subset: _Subset, listing: Listing) -> dict[str, str]:
    """File -> class, of a csv (image,label); its labels mean what the folders called the same do."""
    rows = [(row.get("image", ""), row.get("label", "")) for _, row in read_csv(table)]
    kept = first_rows([image for image, _ in rows], [label for _, label in rows], "rows", listing)
    counts = Counter(label for _, label in rows)
    if not counts.keys() <= named.keys():
        named = meanings(counts, subset.classes, subset.orders, editions(subset.published), None, table)
    if named is None:
        raise InputError(
            f"{shown(table)} needs the columns image and label, the latter with {len(subset.classes)} classes"
        )
    return {rows[i][0]: named[rows[i][1]] for i in kept}


_LICENCE = "on request from its authors (BUPT), for non-commercial research only; pictures may not be passed on"
INFO = DatasetInfo(
    name="rafdb",
    classes=BASIC.classes,
    description="RAF-DB: 15 339 photographs of seven basic expressions; official folders or class folders",
    read=read_rafdb,
    size=100,
    channels=3,
    published=BASIC.published,
    licence=_LICENCE,
)
COMPOUND_INFO = DatasetInfo(
    name="rafdb-compound",
    classes=COMPOUND.classes,
    description="RAF-DB: 3 954 photographs of eleven compound expressions",
    read=read_rafdb_compound,
    size=100,
    channels=3,
    licence=_LICENCE,
)
