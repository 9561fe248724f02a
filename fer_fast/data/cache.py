"""Pictures decoded once: a file of pixels in the user's cache, mapped into memory, and what is known of each."""

import hashlib
import json
import mmap
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import torch
from filelock import FileLock
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fer_fast.data.dataset import reads_by_image
from fer_fast.data.files import shown
from fer_fast.data.listing import Part
from fer_fast.data.near import difference_hash
from fer_fast.data.pictures import Pictures
from fer_fast.data.prepare import Preparation, Prepared, prepare
from fer_fast.errors import InputError

FORMAT = "fer-fast cache 1"
PIXELS, INDEX = "pixels.u8", "index.safetensors"
GOOD, NO_FACE, UNREADABLE = range(3)  # states of a picture
SPARE = 64 << 20  # bytes that stay free on the disk
_CHUNK_BYTES = 1 << 20  # of pixels that one task decodes
Progress = Callable[[int, int], None]


class Store(NamedTuple):
    """The pictures of one part under one preparation.

    Attributes:
        pixels: uint8 (N, size, size, channels), mapped; zeros where a picture cannot be read.
        marks: uint8 (N, 16), BLAKE2b of each picture's pixels.
        hashes: int64 (N,), the difference hash of each.
        states: uint8 (N,), GOOD, NO_FACE (its central square was kept) or UNREADABLE.
        faults: row -> why it cannot be read.
        file: the map behind `pixels`.
    """

    pixels: Tensor
    marks: Tensor
    hashes: Tensor
    states: Tensor
    faults: dict[int, str]
    file: mmap.mmap | None = None


def folder() -> Path:
    """Where caches lie: the environment variable FER_FAST_CACHE, else the user's cache directory."""
    return Path(os.environ.get("FER_FAST_CACHE") or user_cache_path("fer-fast", appauthor=False))


class Kept(NamedTuple):
    """A part of a dataset that is in the cache: its folder, what was written about it, and its bytes."""

    path: Path
    about: dict[str, str]
    size: int


def kept() -> list[Kept]:
    """Everything that is in the cache, by name."""
    found = []
    for index in folder().glob(f"*/{INDEX}"):
        try:
            with safe_open(index, framework="pt") as file:
                about = file.metadata() or {}
            if about.get("format", "").startswith("fer-fast cache"):  # else it is not ours to list, or to remove
                found.append(Kept(index.parent, about, sum(path.stat().st_size for path in index.parent.iterdir())))
        except (OSError, SafetensorError):
            continue  # being written or removed by another process
    return sorted(found, key=lambda each: (each.about["dataset"], each.about["part"], each.path))


def store(part: Part, how: Preparation, about: dict[str, str], progress: Progress | None = None) -> Store:
    """The decoded pictures of `part`, from the cache or into it.

    One process builds while others that want the same wait; what a killed one left is built again.

    Args:
        part: of a listing, at least one picture.
        how: the preparation.
        about: who made the data, for whom, and where it came from; kept beside the pixels.
        progress: called with pictures done and all of them while they are decoded.

    Raises:
        InputError: the cache cannot be written, or the disk is too small for it.
    """
    home = folder()
    try:
        name = f"{about['dataset']}-{_key(part, how)}"
    except OSError as error:
        raise InputError(f"{shown(error.filename)} cannot be read any more: {error.strerror}") from None
    try:
        home.mkdir(parents=True, exist_ok=True)
        if (found := _opened(home / name, part, how)) is not None:
            return found
        with FileLock(home / f"{name}.lock"):
            if (found := _opened(home / name, part, how)) is None:
                _build(part, how, about, home / name, progress)
                found = _opened(home / name, part, how)
    except OSError as error:
        where = "FER_FAST_CACHE names another folder"
        raise InputError(f"the cache {shown(home)} cannot be written: {error.strerror or error}; {where}") from None
    if found is None:
        raise InputError(f"the cache {shown(home / name)} is damaged; remove that folder")
    return found


def _key(part: Part, how: Preparation) -> str:
    state = hashlib.sha256(f"{FORMAT} {cv2.__version__} {sorted(asdict(how).items())}".encode())
    for line in part.pictures.stamp():
        state.update(line.encode("utf-8", "surrogateescape") + b"\n")
    if part.boxes is not None and how.faces == "box":
        state.update(part.boxes.tobytes())
    return state.hexdigest()[:20]


def _opened(path: Path, part: Part, how: Preparation) -> Store | None:
    """What lies at `path`; None where nothing does, or not all of it."""
    shape = (len(part), how.size, how.size, how.channels)
    try:
        with safe_open(path / INDEX, framework="pt") as file:
            meta = file.metadata() or {}
            columns = [file.get_tensor(name) for name in ("marks", "hashes", "states")]
        if (path / PIXELS).stat().st_size != np.prod(shape) or len(columns[0]) != len(part):
            return None
        faults = {int(row): text for row, text in json.loads(meta["faults"]).items()}
        if any(_may_be_read(part.pictures, row) for row in json.loads(meta["refused"])):
            return None
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    with (path / PIXELS).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if reads_by_image(int(np.prod(shape[1:]))):
        mapped.madvise(mmap.MADV_RANDOM)  # else each page that is touched brings in those around it, of other images
    return Store(read_only(mapped).view(shape), *columns, faults, mapped)


def _may_be_read(pictures: Pictures, row: int) -> bool:
    """Whether the disk gives a picture that it refused; no change of the file tells that a permission was given."""
    try:
        pictures.read(row, gray=True)
    except OSError:
        return False
    except (InputError, cv2.error):
        pass
    return True


def read_only(memory: mmap.mmap) -> Tensor:
    """A tensor over memory that must not be written; nothing here writes it, and a shared map costs no memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.frombuffer(memory, dtype=torch.uint8)


def _build(part: Part, how: Preparation, about: dict[str, str], path: Path, progress: Progress | None) -> None:
    """Decode everything into a folder beside `path`, which takes its place when it is whole."""
    count = len(part)
    need, free = count * how.size**2 * how.channels, shutil.disk_usage(path.parent).free
    if need + SPARE > free:
        raise InputError(
            f"the cache of {about['dataset']} needs {need / 1e6:,.0f} MB in {shown(path.parent)}, where "
            f"{free / 1e6:,.0f} MB are free; FER_FAST_CACHE names another folder"
        )
    half = path.with_name(f"{path.name}.part")
    shutil.rmtree(half, ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)  # damaged: it did not open
    half.mkdir()
    try:
        columns, faults, refused = _decode(part, how, half / PIXELS, progress)
        told = {"faults": faults, "refused": refused, "preparation": asdict(how)}
        meta = {"format": FORMAT, **about, **{name: json.dumps(value) for name, value in told.items()}}
        save_file(columns, half / INDEX, metadata=meta)
        half.rename(path)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise


class _Chunk(NamedTuple):
    """What is known of some consecutive pictures; their pixels are in the file."""

    marks: np.ndarray
    hashes: np.ndarray
    states: np.ndarray
    faults: dict[int, str]
    refused: list[int]  # rows that the disk did not give


def _decode(
    part: Part, how: Preparation, path: Path, progress: Progress | None
) -> tuple[dict[str, Tensor], dict[int, str], list[int]]:
    """Every picture, in threads: decoders release the interpreter's lock. Each writes its own place in the file."""
    size = max(1, min(512, _CHUNK_BYTES // (how.size**2 * how.channels)))
    chunks = [range(at, min(at + size, len(part))) for at in range(0, len(part), size)]
    columns: list[_Chunk] = []
    faults: dict[int, str] = {}
    refused: list[int] = []
    with _one_thread_each(), path.open("wb") as file, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        decoder = _Decoder(part, how, size, file)
        with closing(pool.map(decoder.decode, chunks)) as decoded:  # interrupted, what has not begun is not
            for rows, chunk in zip(chunks, decoded, strict=True):
                columns.append(chunk)
                faults |= chunk.faults
                refused += chunk.refused
                if progress is not None:
                    progress(rows.stop, len(part))
    joined = {name: np.concatenate([getattr(c, name) for c in columns]) for name in ("marks", "hashes", "states")}
    return {name: torch.from_numpy(column) for name, column in joined.items()}, faults, refused


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """OpenCV without threads of its own, which beside those that decode cost a fifth of the time."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


class _Decoder:
    """Decodes pictures into a buffer of each thread, as fresh memory costs as much as decoding, and from there into
    the file."""

    def __init__(self, part: Part, how: Preparation, size: int, file: BinaryIO):
        self.part, self.how, self.size, self.file = part, how, size, file
        self.of_thread, self.writing = threading.local(), threading.Lock()

    def decode(self, rows: range) -> _Chunk:
        """Decode and write some consecutive pictures; what cannot be read is written as zeros."""
        count = len(rows)
        pixels = self._buffer()[:count]
        marks, hashes, states = (
            np.zeros((count, 16), np.uint8),
            np.zeros(count, np.int64),
            np.full(count, GOOD, np.uint8),
        )
        chunk = _Chunk(marks, hashes, states, {}, [])
        for at, row in enumerate(rows):
            try:
                prepared = self._prepared(row)
            except (InputError, OSError, cv2.error) as error:
                chunk.faults[row] = " ".join(str(getattr(error, "strerror", None) or error).split())
                chunk.refused.extend([row] if isinstance(error, OSError) else [])
                chunk.states[at], pixels[at] = UNREADABLE, 0
                continue
            pixels[at] = prepared.pixels
            chunk.states[at] = GOOD if prepared.found else NO_FACE
            chunk.marks[at] = np.frombuffer(hashlib.blake2b(prepared.pixels, digest_size=16).digest(), np.uint8)
            chunk.hashes[at] = difference_hash(prepared.pixels)
        with self.writing:
            self.file.seek(rows.start * pixels[0].nbytes)
            self.file.write(pixels)
        return chunk

    def _prepared(self, row: int) -> Prepared:
        box = None if self.part.boxes is None else self.part.boxes[row]
        return prepare(self.part.pictures.read(row, gray=self.how.channels == 1), box, self.how)

    def _buffer(self) -> np.ndarray:
        if not hasattr(self.of_thread, "pixels"):
            how = self.how
            self.of_thread.pixels = np.zeros((self.size, how.size, how.size, how.channels), np.uint8)
        return self.of_thread.pixels
