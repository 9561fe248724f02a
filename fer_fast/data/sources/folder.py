"""A folder of the user's own: train|val|test/<class>/ or <class>/, or a labels.csv; any class names."""

from collections.abc import Collection
from pathlib import Path

from fer_fast.data.files import bases, find, shown
from fer_fast.data.folders import SPLIT_WORDS, class_folders, distinct, rows_of
from fer_fast.data.labels import CLASSES, canonical_class
from fer_fast.data.listing import Listing
from fer_fast.data.lists import Present, below, first_rows, missing, part_of, read_csv
from fer_fast.data.pictures import Files
from fer_fast.data.table import DatasetInfo

TABLE = "labels.csv"
_COLUMNS = {  # of it, by what they may be called
    "image": ("image", "path", "file", "filename", "name"),
    "label": ("label", "emotion", "expression", "class"),
    "subject": ("subject", "person", "identity"),
    "part": ("split", "part", "usage"),
}
_HOMES = ("", "images/", "image/")  # where the pictures are, beside it


def read_folder(root: Path) -> Listing | None:
    """Reads labels.csv (image,label or more columns), else train|val|test/<class>/*, or <class>/* as the part "all".

    A folder around that does not matter. The classes are those of the training part, sorted. Where all of them are
    known names of expressions and no two are the same expression, they get the canonical names, in the order that all
    datasets have.
    """
    for base in bases(root, ()):
        table = find(base, TABLE, within=root)
        listing = (_listed(table, root) if table else None) or _in_folders(base, root)
        if listing is not None:
            return listing
    return None


def _in_folders(base: Path, root: Path) -> Listing | None:
    listing = Listing("", (), {}, sure=False)
    found = class_folders(base, root, listing.ignored, listing.faults)
    words = set(found.get("train") or [word for folders in found.values() for word in folders])
    if len(words) < 2:
        return None
    named = {word: canonical_class(word) for folders in found.values() for word in folders}
    if None in named.values() or not distinct(found, named):
        named = {word: word for word in named}
    known = {named[word] for word in words}
    listing.classes = _ordered(known)
    for part, folders in found.items():
        listing.faults += [
            f"{shown(base)}: {part} has the class {shown(word)}, train has not: "
            + ", ".join(map(shown, listing.classes))
            for word in folders
            if named[word] not in known
        ]
        paths, names = rows_of({word: inside for word, inside in folders.items() if named[word] in known}, named)
        if paths:
            listing.parts[part] = part_of(Files(paths), below(root, paths), names, listing.classes, listing.ignored)
    listing.layout = f"{'|'.join(found)}/<class>/".removeprefix("all/")
    return listing


def _listed(table: Path, root: Path) -> Listing | None:
    """A csv of pictures and classes, with a column of people where folds are to be cut by subject, and one of parts."""
    lines = list(read_csv(table))
    header = lines[0][1] if lines else {}
    columns = {what: next((name for name in names if name in header), "") for what, names in _COLUMNS.items()}
    if not columns["image"] or not columns["label"]:
        return None
    listing, present = Listing(TABLE, (), {}, sure=False), Present(table.parent, root)
    rows, absent = [], []
    for line, row in lines:
        name, word, subject, part = (row.get(columns[what], "") for what in _COLUMNS)
        part = SPLIT_WORDS.get(part.lower()) if columns["part"] else "all"
        if not (name and word and part):
            listing.faults.append(f"{shown(table)}: line {line}: needed: {', '.join(filter(None, columns.values()))}")
        elif path := next(filter(None, (present.path(home + name) for home in _HOMES)), None):
            rows.append((path, word, subject, part))
        else:
            absent.append(name)
    listing.problems += missing(absent, len(lines))
    kept = first_rows([path for path, *_ in rows], [word for _, word, *_ in rows], "rows", listing)
    _fill(listing, [rows[row] for row in kept], root, with_subjects=bool(columns["subject"]))
    return listing


def _fill(listing: Listing, rows: list[tuple[str, str, str, str]], root: Path, *, with_subjects: bool) -> None:
    """The classes and parts of rows of path, class, person and part."""
    words = {word for _, word, _, _ in rows}
    named = {word: canonical_class(word) for word in words}
    if None in named.values() or len(set(named.values())) < len(words):
        named = {word: word for word in words}
    listing.classes = _ordered(named.values())
    for part in dict.fromkeys(row[3] for row in rows):
        paths, labels, people, _ = zip(*(row for row in rows if row[3] == part), strict=True)
        listing.parts[part] = part_of(
            Files(paths),
            below(root, paths),
            [named[word] for word in labels],
            listing.classes,
            listing.ignored,
            subjects=people if with_subjects else None,
        )


def _ordered(names: Collection[str]) -> tuple[str, ...]:
    """The order that all datasets have where all names are canonical, else by name."""
    return tuple(name for name in (CLASSES if set(names) <= set(CLASSES) else sorted(set(names))) if name in names)


INFO = DatasetInfo(
    name="folder",
    classes=(),
    description="a folder of your own: train|val|test/<any class names>/, <any class names>/, or a labels.csv",
    read=read_folder,
    size=224,
    channels=3,
)
