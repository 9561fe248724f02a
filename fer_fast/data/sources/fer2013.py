"""FER2013 as people have it: one csv, one csv per split, or folders of images; the layout is found out."""

import csv
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fer_fast.data.dataset import CLASSES, SPLITS, FaceDataset, Inspection, canonical_class, cut_validation
from fer_fast.data.files import decode_gray, list_folders, list_images
from fer_fast.errors import InputError

SIZE = 48
PUBLISHED = {"train": 28709, "val": 3589, "test": 3589}
_CLASSES = CLASSES[:7]
_NUMBERED = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
_LABELS = {str(number): _CLASSES.index(name) for number, name in enumerate(_NUMBERED)}
# Names of folders, and values of the column Usage.
_SPLIT_WORDS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "publictest": "val",
    "test": "test", "testing": "test", "privatetest": "test",
}  # fmt: skip
_PREFIXES = {word: _SPLIT_WORDS[word] for word in ("training", "publictest", "privatetest")}  # of file names
_LAYOUTS = (
    "fer2013.csv, icml_face_data.csv, train.csv + test.csv (+ val.csv), "
    "or folders train/<class>/ + test/<class>/ (+ val/<class>/)"
)
_CSV_ROWS = 2048  # parsed at once
_DIGITS = b"0123456789 "


@dataclass(frozen=True)
class _Rows:
    """What could be read of one split, and a line for everything that could not."""

    images: Tensor  # uint8 (n, 1, 48, 48)
    labels: list[int]
    names: list[str]
    faults: list[str]
    notes: list[str]


@dataclass(frozen=True)
class _Copy:
    """A copy of the data set on disk. A split is read when it is asked for."""

    layout: str
    parts: dict[str, Callable[[], _Rows]]
    notes: list[str]
    faults: list[str]


def load_fer2013(root: str | Path, *, split: str, seed: int = 0, joined: bool = False) -> FaceDataset:
    """Reads one split of FER2013: uint8 (n, 1, 48, 48), seven classes in the order of `CLASSES`.

    "val" is the public test part and "test" the private one, told by the column Usage or the prefix of the file names
    (`PublicTest_`, `PrivateTest_`). A copy whose test part holds public test images only is reported on as "test".
    Where that leaves no validation part, one eighth of the training images becomes "val", by class and by `seed`.

    Args:
        root: the folder with the data, the folder around it, or the csv itself.
        split: "train", "val" or "test".
        seed: decides which training images become "val", where the copy has no such part.
        joined: the protocol of Ad-Corre: "test" is the public and the private part together. "val" is then cut from the
            training images, so that what picks a model is not what is reported.

    Raises:
        InputError: no known layout, a missing split, a corrupt row or image, an unknown class.

    Warns when a split does not have the published number of images, or images had to be resized to 48×48.
    """
    copy = _open(Path(root))
    if copy is None:
        raise InputError(f"{root} holds no FER2013; known layouts: {_LAYOUTS}")
    cut = joined or "val" not in copy.parts
    sources = ("val", "test") if joined and split == "test" else ("train",) if cut and split == "val" else (split,)
    missing = [name for name in sources if name not in copy.parts]
    if missing:
        raise InputError(f"{root} ({copy.layout}) has no {missing[0]} images; it has: {', '.join(copy.parts)}")
    read = [copy.parts[name]() for name in sources]
    faults = copy.faults + [fault for rows in read for fault in rows.faults]
    if faults:
        more = f" (and {len(faults) - 1} more; see `fer-fast data check`)" if len(faults) > 1 else ""
        raise InputError(faults[0] + more)
    notes = copy.notes + [note for rows in read for note in rows.notes]
    notes += [_count_note(name, len(rows.labels)) for name, rows in zip(sources, read, strict=True)]
    for note in filter(None, notes):
        warnings.warn(f"fer2013 in {root}: {note}", stacklevel=2)
    dataset = _dataset(read, "train" if sources == ("train",) else split)
    return cut_validation(dataset, seed)[split] if cut and sources == ("train",) else dataset


def inspect_fer2013(root: Path) -> Inspection | None:
    """Everything that can be read of a copy of FER2013, with a line for each thing wrong; None where it is none."""
    copy = _open(root)
    if copy is None:
        return None
    problems, parts = [*copy.faults, *copy.notes], []
    for name, read in copy.parts.items():
        rows = read()
        problems += [*rows.faults, *rows.notes, *filter(None, [_count_note(name, len(rows.labels))])]
        if rows.labels:
            parts.append(_dataset([rows], name))
    problems += [f"no {name} images" for name in ("train", "test") if name not in copy.parts]
    return Inspection(copy.layout, tuple(parts), tuple(problems))


def _dataset(read: Sequence[_Rows], split: str) -> FaceDataset:
    return FaceDataset(
        images=torch.cat([rows.images for rows in read]),
        labels=torch.tensor([label for rows in read for label in rows.labels], dtype=torch.int64),
        classes=_CLASSES,
        split=split,
        names=tuple(name for rows in read for name in rows.names),
    )


def _count_note(split: str, count: int) -> str | None:
    published = PUBLISHED[split]
    return None if count == published else f"{split} has {count} images where {published} were published"


def _label(text: str) -> int | None:
    """A class number of FER2013 or a class name -> index into the classes; None where it is neither."""
    text = text.strip()
    name = canonical_class(text)
    return _CLASSES.index(name) if name in _CLASSES else _LABELS.get(text)


def _open(root: Path) -> _Copy | None:
    """Finds out the layout of `root`, or of a folder fer2013 in it; None where it is none of the known ones."""
    if root.is_file() and root.suffix.lower() == ".csv":
        return _open_csv({None: root})
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; allowed: a folder with {_LAYOUTS}")
    for base in (root, *(folder for folder in list_folders(root) if folder.name.lower() == "fer2013")):
        files = {path.name.lower(): path for path in base.iterdir() if path.is_file()}
        for name in ("fer2013.csv", "icml_face_data.csv"):
            if name in files:
                return _open_csv({None: files[name]})
        tables = {split: files[f"{split}.csv"] for split in SPLITS if f"{split}.csv" in files}
        if "train" in tables:
            return _open_csv(tables)
        folders = [(f, _SPLIT_WORDS[f.name.lower()]) for f in list_folders(base) if f.name.lower() in _SPLIT_WORDS]
        if any(split == "train" for _, split in folders):
            return _open_folders(folders)
    return None


def _open_folders(folders: list[tuple[Path, str]]) -> _Copy:
    """train/<class>/*.jpg and so on; the prefix of a file name outweighs the folder it lies in."""
    files: dict[str, list[tuple[Path, int]]] = {split: [] for split in SPLITS}
    faults, notes, public_in_test = [], [], False
    for folder, folder_split in folders:
        for class_folder in list_folders(folder):
            label = _label(class_folder.name)
            if label is None:
                faults.append(f"{class_folder}: unknown class folder; allowed: {', '.join(_CLASSES)} or 0 to 6")
                continue
            for path in list_images(class_folder):
                split = _PREFIXES.get(path.name.partition("_")[0].lower(), folder_split)
                if "train" in (split, folder_split) and split != folder_split:
                    faults.append(f"{path}: a {split} image by its name, in the folder {folder.name}")
                files[split].append((path, label))
                public_in_test |= split == "val" and folder_split == "test"
    if public_in_test and not files["test"]:
        files["val"], files["test"] = [], files["val"]
        notes.append("the test folder holds public test images only; they are the test part, val is cut from train")
    parts = {split: _folder_reader(entries, folders[0][0].parent) for split, entries in files.items() if entries}
    layout = f"folders {', '.join(folder.name + '/<class>/' for folder, _ in folders)}"
    return _Copy(layout, parts, notes, faults)


def _folder_reader(entries: list[tuple[Path, int]], base: Path) -> Callable[[], _Rows]:
    def read() -> _Rows:
        paths = [path for path, _ in entries]
        images, faults, resized = decode_gray(paths, SIZE)
        good = [i for i in range(len(paths)) if i not in faults]
        notes = []
        if resized:
            first = min(resized)
            notes.append(f"{len(resized)} images are not 48×48 and are resized, first {paths[first]}: {resized[first]}")
        return _Rows(
            images=images[good] if faults else images,
            labels=[entries[i][1] for i in good],
            names=[paths[i].relative_to(base).as_posix() for i in good],
            faults=[f"{paths[i]}: {faults[i]}" for i in sorted(faults)],
            notes=notes,
        )

    return read


def _open_csv(tables: dict[str | None, Path]) -> _Copy:
    """One table with a column Usage (key None), or one table per split."""
    parts: dict[str, list[_Rows]] = {}
    faults = []
    for split, path in tables.items():
        for rows_split, rows in _read_csv(path, split):
            faults += rows.faults
            parts.setdefault(rows_split, []).append(rows)
    readers = {split: _joined_rows(parts[split]) for split in SPLITS if split in parts}
    return _Copy(" + ".join(path.name for path in tables.values()), readers, [], faults)


def _joined_rows(chunks: list[_Rows]) -> Callable[[], _Rows]:
    return lambda: _Rows(
        images=torch.cat([rows.images for rows in chunks]),
        labels=[label for rows in chunks for label in rows.labels],
        names=[name for rows in chunks for name in rows.names],
        faults=[],  # already told by _open_csv: where the usage of a row is wrong, it belongs to no split
        notes=[],
    )


def _read_csv(path: Path, split: str | None) -> Iterator[tuple[str, _Rows]]:
    """A table in pieces, each of one split. Without `split` the column Usage tells it."""
    pending: dict[str, list[tuple[int, int, str]]] = {}  # split -> (line, label, pixels)
    faults: list[str] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = _find_columns(path, next(reader, []), with_usage=split is None)
            for row in reader:
                if not row:
                    continue
                entry = _parse_row(row, columns, split)
                if isinstance(entry, str):
                    faults.append(f"{path}: line {reader.line_num}: {entry}")
                    continue
                row_split, label, pixels = entry
                waiting = pending.setdefault(row_split, [])
                waiting.append((reader.line_num, label, pixels))
                if len(waiting) == _CSV_ROWS:
                    yield row_split, _finish_rows(path, pending.pop(row_split))
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: not a csv in UTF-8 that can be read: {error}") from None
    for row_split, waiting in pending.items():
        yield row_split, _finish_rows(path, waiting)
    if faults:
        yield split or "train", _Rows(torch.empty(0, 1, SIZE, SIZE, dtype=torch.uint8), [], [], faults, [])


def _find_columns(path: Path, header: list[str], with_usage: bool) -> dict[str, int]:
    """Column name -> position; the names may have spaces around them and any case."""
    columns = {name.strip().lower(): position for position, name in enumerate(header)}
    wanted = ("emotion", "pixels", "usage") if with_usage else ("emotion", "pixels")
    missing = [name for name in wanted if name not in columns]
    if missing:
        found = ", ".join(columns) or "nothing"
        raise InputError(
            f"{path}: no column {missing[0]!r} in the first line; needed: {', '.join(wanted)}; found: {found}"
        )
    return {name: columns[name] for name in wanted}


def _parse_row(row: list[str], columns: dict[str, int], split: str | None) -> tuple[str, int, str] | str:
    """(split, label, pixels) of a row, or what is wrong with it."""
    if len(row) <= max(columns.values()):
        return f"{len(row)} fields; at least {max(columns.values()) + 1} are needed"
    label = _label(row[columns["emotion"]])
    if label is None:
        return f"emotion is {row[columns['emotion']]!r}; allowed: 0 to 6 or a class name"
    if split is None:
        split = _SPLIT_WORDS.get(row[columns["usage"]].strip().lower())
        if split is None:
            return f"Usage is {row[columns['usage']]!r}; allowed: Training, PublicTest, PrivateTest"
    return split, label, row[columns["pixels"]].strip()


def _finish_rows(path: Path, waiting: list[tuple[int, int, str]]) -> _Rows:
    images, faults = parse_pixels([pixels for _, _, pixels in waiting])
    good = [entry for i, entry in enumerate(waiting) if i not in faults]
    return _Rows(
        images=torch.from_numpy(images).view(-1, 1, SIZE, SIZE),
        labels=[label for _, label, _ in good],
        names=[f"{path.name}:{line}" for line, _, _ in good],
        faults=[f"{path}: line {waiting[i][0]}: {fault}" for i, fault in faults.items()],
        notes=[],
    )


def parse_pixels(texts: Sequence[str]) -> tuple[np.ndarray, dict[int, str]]:
    """Rows of 48·48 numbers from 0 to 255 -> uint8 (good rows, 2304) and what is wrong with each other row."""
    count = SIZE * SIZE
    text = " ".join(texts).encode()
    # Only digits and single spaces, the right number of spaces in each row: then one bulk conversion cannot misalign.
    regular = not text.translate(None, _DIGITS) and all(row.count(" ") == count - 1 for row in texts)
    if regular and b"  " not in text:
        values = np.fromstring(text.decode(), dtype=np.int64, sep=" ")
        if len(values) == count * len(texts) and values.max(initial=0) <= 255:
            return values.astype(np.uint8).reshape(-1, count), {}
    rows, faults = [], {}
    for position, row in enumerate(texts):
        numbers = row.split()
        if len(numbers) != count:
            faults[position] = f"{len(numbers)} pixels; allowed: {count}"
        elif not all(n.isascii() and n.isdigit() and len(n) <= 3 and int(n) <= 255 for n in numbers):
            faults[position] = "pixels that are no whole numbers from 0 to 255"
        else:
            rows.append(np.array(numbers, dtype=np.int64).astype(np.uint8))
    return np.array(rows, dtype=np.uint8).reshape(-1, count), faults
