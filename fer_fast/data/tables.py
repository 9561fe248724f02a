"""Pictures in tables: image files in a column of parquet and arrow files, pixels written out as numbers in a csv."""

import hashlib
import json
import os
import re
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_fast.data.decode import decode
from fer_fast.data.files import files_ending, find, list_folders, shown
from fer_fast.data.pictures import Pictures, stamp_of
from fer_fast.errors import InputError

LABELS = ("label", "labels", "emotion", "expression", "class")  # what columns of class numbers are called
_SHARD = re.compile(r"(?P<word>.+?)-\d+-of-\d+(-[0-9a-f]+)?")  # train-00000-of-00002.parquet
_LONGEST = 1 << 20  # bytes of one csv row
_LINES = 64  # of one csv row
_FIELD = re.compile(rb' *+(?:"([^"]*+(?:""[^"]*+)*+)" *+|([^,"]*+))(,|$)')


def table_files(root: Path) -> dict[str, list[Path]]:
    """Word of the part ("train", "validation", "publictest") -> its parquet or arrow files below `root`, in order.

    Parquet lies in `root` or in folders of it, `train-00000-of-00002.parquet` or `train/0000.parquet`; arrow as
    `save_to_disk` of Hugging Face writes it, a folder a part.
    """
    found: dict[str, list[Path]] = {}
    inner = [files_ending(folder, (".parquet", ".arrow"), root) for folder in list_folders(root, within=root)]
    for file in [*files_ending(root, (".parquet",), root), *chain.from_iterable(inner)]:
        if file.name.startswith("cache-"):  # left there by Dataset.map
            continue
        shard = _SHARD.fullmatch(file.stem)
        own = shard["word"] if shard else file.stem
        word = file.parent.name if own in ("data", "dataset") or own.isdigit() else own
        found.setdefault(word.lower(), []).append(file)
    return found


class Labelled(NamedTuple):
    """What parquet or arrow files hold of labelled pictures.

    Attributes:
        pictures: of all files, in order.
        labels: int64 (n,), as written; -1 where there is none.
        classes: the names of the numbers, from the metadata of a ClassLabel column or a column of words.
        names: folder, file and row of each picture.
        sizes: pictures in each file.
    """

    pictures: "Rows"
    labels: np.ndarray
    classes: tuple[str, ...] | None
    names: tuple[str, ...]
    sizes: tuple[int, ...]


def read_labelled(files: Sequence[Path]) -> Labelled | None:
    """The column of image files and the column of labels; None where the files have no such two columns.

    Raises:
        InputError: a file that cannot be read, or files whose names of classes differ.
    """
    schema = _schema(files[0])
    images, wanted = _image_column(schema), _label_column(schema, files[0])
    if images is None or wanted is None:
        return None
    spoken = {label_names(file) for file in files}
    if len(spoken) > 1:
        raise InputError(
            f"{shown(files[0].parent)}: the files name their classes differently: {sorted(map(str, spoken))}"
        )
    columns = [_read_column(file, wanted) for file in files]
    chunks = pa.chunked_array([chunk for column in columns for chunk in column.chunks], type=columns[0].type)
    labels, classes = _numbered(chunks, spoken.pop(), files[0])
    called = (f"{file.parent.name}/{file.name}" for file in files)  # the parts of a copy can have files of one name
    names = (f"{name}:{row}" for name, column in zip(called, columns, strict=True) for row in range(len(column)))
    return Labelled(Rows(files, images), labels, classes, tuple(names), tuple(map(len, columns)))


def label_names(file: Path) -> tuple[str, ...] | None:
    """The names of the ClassLabel column, in the order of its numbers, from Hugging Face's metadata.

    They stand in the schema of a parquet or arrow file, or in `dataset_info.json` beside it.
    """
    return (_class_label(file) or (None, None))[1]


class Rows(Pictures):
    """Image files in a column of parquet or arrow files.

    A thread keeps the row group it read last, and threads that want the same one share it.
    """

    def __init__(self, files: Sequence[Path], column: str):
        """`column` holds bytes, or a struct with the field "bytes" as Hugging Face writes images."""
        self._column = _Column(files, column)
        self.rows = np.arange(self._column.starts[-1])

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int, *, gray: bool) -> np.ndarray:
        data = self._column.value(int(self.rows[index]))
        if not data:
            raise InputError("the row holds no image")
        return decode(data, gray=gray)

    def stamp(self) -> Iterable[str]:
        yield from map(stamp_of, self._column.files)
        yield f"{self._column.name} {_mark(self.rows)}"

    def take(self, rows: np.ndarray) -> "Rows":
        taken = Rows.__new__(Rows)
        taken._column, taken.rows = self._column, self.rows[rows]
        return taken


class _Column:
    """One column of several files, of which blocks of rows are in memory while a thread reads them."""

    def __init__(self, files: Sequence[Path], name: str):
        self.files, self.name = tuple(files), name
        self._blocks: list[tuple[Path, int]] = []  # file and row group
        self.starts = [0]
        for file in files:
            for group, rows in enumerate(_block_sizes(file)):
                self._blocks.append((file, group))
                self.starts.append(self.starts[-1] + rows)
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._alive: WeakValueDictionary[int, pa.ChunkedArray] = WeakValueDictionary()

    def value(self, row: int) -> bytes | None:
        block = bisect_right(self.starts, row) - 1
        if getattr(self._mine, "block", None) != block:
            self._mine.values, self._mine.block = self._loaded(block), block
        return self._mine.values[row - self.starts[block]].as_py()

    def _loaded(self, block: int) -> pa.ChunkedArray:
        with self._lock:
            values = self._alive.get(block)
            if values is None:
                file, group = self._blocks[block]
                values = self._alive[block] = _read_column(file, self.name, group)
            return values


class TextPixels(Pictures):
    """Gray squares whose pixels are written out as numbers in a larger file of text."""

    def __init__(self, paths: Sequence[Path | str], spans: np.ndarray, side: int):
        """`paths` (n,), the file of each; `spans` int64 (n, 2), where its text begins there and how many bytes."""
        self.paths, self.spans, self.side = [os.fspath(path) for path in paths], spans, side

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int, *, gray: bool) -> np.ndarray:
        start, length = self.spans[index].tolist()
        with open(self.paths[index], "rb") as file:
            file.seek(start)
            image = parse_pixels(file.read(length), self.side**2).reshape(self.side, self.side)
        return image if gray else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)

    def stamp(self) -> Iterable[str]:
        files = {path: place for place, path in enumerate(dict.fromkeys(self.paths))}
        yield from map(stamp_of, files)
        yield f"{self.side} {_mark(self.spans)} {_mark(np.array([files[path] for path in self.paths]))}"

    def take(self, rows: np.ndarray) -> "TextPixels":
        return TextPixels([self.paths[row] for row in rows.tolist()], self.spans[rows], self.side)


class PixelTable(NamedTuple):
    """A csv with pixels as text.

    Attributes:
        columns: name in lower case -> the text of every row, for every column but the pixels; "" where a row is short.
        lines: the line of the file that each row begins in, from 1.
        pictures: the pixels, not read yet.
    """

    columns: Mapping[str, list[str]]
    lines: list[int]
    pictures: TextPixels


def read_pixel_table(path: Path, side: int = 48) -> PixelTable | None:
    """A csv with a column "pixels"; None where it has no such column. The pixels are found, not read.

    Raises:
        InputError: it cannot be read, or a row is longer than a megabyte.
    """
    records = _records(path)
    _, _, first = next(records, (1, 0, b""))
    header = [first[start:stop].decode("utf-8", "replace").strip().lower() for start, stop in _fields(first)]
    if "pixels" not in header:
        return None
    pixels = header.index("pixels")
    others = {name: place for place, name in enumerate(header) if name != "pixels"}
    columns: dict[str, list[str]] = {name: [] for name in others}
    lines, spans = [], []
    for line, at, record in records:
        fields = _fields(record)
        fields += [(0, 0)] * (len(header) - len(fields))
        for name, place in others.items():
            start, stop = fields[place]
            columns[name].append(record[start:stop].decode("utf-8", "replace").strip())
        lines.append(line)
        start, stop = fields[pixels]
        spans.append((at + start, stop - start))
    placed = np.array(spans, np.int64).reshape(-1, 2)
    return PixelTable(columns, lines, TextPixels([path] * len(lines), placed, side))


def parse_pixels(text: bytes, count: int) -> np.ndarray:
    """`count` numbers from 0 to 255 with white space between them -> uint8 (count,).

    Raises:
        InputError: another number of numbers, or something that is none.
    """
    values = _numbers(text)
    if values is None:
        values = _numbers(b" ".join(text.split()))
    if values is None:
        raise InputError("pixels that are no whole numbers from 0 to 255")
    if len(values) != count:
        raise InputError(f"{len(values)} pixels; allowed: {count}")
    return values


def _numbers(text: bytes) -> np.ndarray | None:
    """The numbers between the spaces; None where there is anything but digits and spaces, or a number above 255."""
    raw = np.frombuffer(b"   %b " % text, np.uint8)  # every digit has three places before it and one behind
    digits = raw - 48
    known = digits < 10
    if np.count_nonzero(known) + np.count_nonzero(raw == 32) != len(raw):
        return None
    last = np.flatnonzero(known[:-1] > known[1:])
    ones, tens, hundreds = (digits.take(last - place) for place in range(3))
    two = tens < 10
    three = two & (hundreds < 10)
    values = ones + two * tens * np.uint16(10) + three * hundreds * np.uint16(100)
    if (three & known.take(last - 3)).any() or values.max(initial=0) > 255:
        return None
    return values.astype(np.uint8)


def _records(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number of the first line, place in the file and bytes of each row of a csv; a quoted field may hold line ends."""
    line, at = 0, 0
    try:
        with path.open("rb") as file:
            at = 3 if file.read(3) == b"\xef\xbb\xbf" else 0
            file.seek(at)
            while record := file.readline(_LONGEST):
                lines = 1
                while record.count(b'"') % 2 and lines < _LINES and (more := file.readline(_LONGEST)):
                    record += more
                    lines += 1
                if len(record) >= _LONGEST or lines == _LINES:
                    raise InputError(
                        f"{shown(path)}: line {line + 1} begins a row of over a megabyte or {_LINES} lines"
                    )
                if stripped := record.rstrip(b"\r\n"):
                    yield line + 1, at, stripped
                line, at = line + lines, at + len(record)
    except OSError as error:
        raise InputError(f"{shown(path)} cannot be read: {error.strerror or error}") from None


def _fields(record: bytes) -> list[tuple[int, int]]:
    """Where each field of a row begins and ends, without its quotes; what follows a quote out of place is left out."""
    spans, start = [], 0
    if b'"' not in record:
        for field in record.split(b","):
            spans.append((start, start + len(field)))
            start += len(field) + 1
        return spans
    while found := _FIELD.match(record, start):
        spans.append(found.span(2 if found[1] is None else 1))
        start = found.end()
        if not found[3]:
            break
    return spans


def _mark(numbers: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(numbers)).hexdigest()


def _opened(file: Path) -> pq.ParquetFile | pa.Table:
    """A parquet file, or all of a mapped arrow file, of which nothing is read yet."""
    try:
        if file.suffix.lower() == ".parquet":
            return pq.ParquetFile(file)
        mapped = pa.memory_map(os.fspath(file))
        try:
            return pa.ipc.open_stream(mapped).read_all()
        except pa.ArrowInvalid:
            return pa.ipc.open_file(mapped).read_all()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{shown(file)} cannot be read as a table: {' '.join(str(error).split())}") from None


def _schema(file: Path) -> pa.Schema:
    opened = _opened(file)
    return opened.schema_arrow if isinstance(opened, pq.ParquetFile) else opened.schema


def _block_sizes(file: Path) -> list[int]:
    """The rows of each row group; an arrow file is mapped as one."""
    opened = _opened(file)
    if isinstance(opened, pq.ParquetFile):
        return [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
    return [opened.num_rows]


def _read_column(file: Path, name: str, group: int | None = None) -> pa.ChunkedArray:
    """A column of one row group, or of the whole file; of a struct, its field "bytes"."""
    opened = _opened(file)
    try:
        if isinstance(opened, pq.ParquetFile):
            opened = opened.read([name]) if group is None else opened.read_row_group(group, [name])
        column = opened.column(name)
        column.validate(full=True)  # of an arrow file nobody has looked at where its values begin and end
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{shown(file)}: the column {name} cannot be read: {' '.join(str(error).split())}") from None
    if not pa.types.is_struct(column.type):
        return column
    field = column.type.get_field_index("bytes")
    return pa.chunked_array([chunk.field(field) for chunk in column.chunks], type=column.type.field(field).type)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _image_column(schema: pa.Schema) -> str | None:
    return next((field.name for field in schema if _holds_bytes(field.type)), None)


def _label_column(schema: pa.Schema, file: Path) -> str | None:
    named = _class_label(file)
    return named[0] if named else next((name for name in LABELS if name in schema.names), None)


def _class_label(file: Path) -> tuple[str, tuple[str, ...]] | None:
    """The column that Hugging Face's metadata give names of classes for, and the names; a usual name goes first."""
    found, there = {}, _schema(file).names
    for column, about in _features(file).items():
        names = about.get("names") if isinstance(about, dict) and about.get("_type") == "ClassLabel" else None
        if column in there and isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            found[column] = tuple(names)
    return next(((column, found[column]) for column in (*LABELS, *there) if column in found), None)


def _numbered(column: pa.ChunkedArray, names: tuple[str, ...] | None, file: Path) -> tuple[np.ndarray, Any]:
    """Labels as numbers, -1 where there is none, and their names; words are their own names, sorted."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        words = column.to_pylist()
        names = tuple(sorted({word for word in words if word is not None}))
        places = {word: place for place, word in enumerate(names)} | {None: -1}
        return np.array([places[word] for word in words], np.int64), names
    if not pa.types.is_integer(column.type):
        raise InputError(f"{shown(file)}: the labels are of type {column.type}; allowed: whole numbers or words")
    return column.fill_null(-1).to_numpy().astype(np.int64), names


def _features(file: Path) -> Mapping[str, Any]:
    """What Hugging Face's metadata say of each column; nothing where there are none."""
    texts = [(_schema(file).metadata or {}).get(b"huggingface", b"")]
    if beside := find(file.parent, "dataset_info.json"):
        with beside.open("rb") as info:
            texts.append(info.read(1 << 22))
    for text in filter(None, texts):
        try:
            about = json.loads(text)
            features = about.get("info", about).get("features")
        except (ValueError, AttributeError, RecursionError):
            continue
        if isinstance(features, dict):
            return features
    return {}
