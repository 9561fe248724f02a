"""Where pixels come from: files, members of archives, rows of tables, text of numbers. One class a kind of place."""

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fer_fast.data.decode import decode
from fer_fast.errors import InputError

MOST_BYTES = 200_000_000  # of an image file; 8 000 × 6 000 pixels of three bytes are 144 million


class Pictures(ABC):
    """n pictures, any of which can be read from any thread.

    `stamp` is what tells that none of them changed: names, sizes and times of files, not contents, which would take as
    long as decoding them.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int, *, gray: bool) -> np.ndarray:
        """Picture `index` as a viewer shows it: uint8 (height, width), or (height, width, 3) RGB.

        Raises:
            InputError: it cannot be read; the reason in one line.
        """

    @abstractmethod
    def stamp(self) -> Iterable[str]: ...

    @abstractmethod
    def take(self, rows: np.ndarray) -> "Pictures":
        """The pictures of these numbers, in that order."""


def stamp_of(path: Path | str) -> str:
    """Name, size and time of a file, the same from every working directory."""
    about = os.stat(path)
    return f"{os.path.abspath(path)} {about.st_size} {about.st_mtime_ns}"


def file_bytes(path: str) -> bytes:
    """All bytes of an image file.

    Raises:
        InputError: a pipe or a device, which may have no end, or a file too large for an image.
        OSError: it cannot be read.
    """
    bound(check_regular(path).st_size)
    with open(path, "rb") as file:
        return file.read()


def check_regular(path: Path | str) -> os.stat_result:
    """What the system says of a file.

    Raises:
        InputError: a pipe or a device, which may have no end and keep waiting whoever opens it.
        OSError: there is none.
    """
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise InputError("not a file")
    return about


def bound(size: int) -> None:
    """Raises InputError for more bytes than an image has."""
    if size > MOST_BYTES:
        raise InputError(f"{size} bytes; at most {MOST_BYTES} are read")


class Files(Pictures):
    """A file each."""

    def __init__(self, paths: Sequence[Path | str]):
        self.paths = [os.fspath(path) for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int, *, gray: bool) -> np.ndarray:
        return decode(file_bytes(self.paths[index]), gray=gray)

    def stamp(self) -> Iterable[str]:
        return map(stamp_of, self.paths)

    def take(self, rows: np.ndarray) -> "Files":
        return Files([self.paths[row] for row in rows.tolist()])


class Slices(Pictures):
    """Image files that lie whole inside larger files, such as members of a tar."""

    def __init__(self, paths: Sequence[Path | str], spans: np.ndarray):
        """`paths` (n,), the larger file of each; `spans` int64 (n, 2), where it begins there and how many bytes."""
        self.paths, self.spans = [os.fspath(path) for path in paths], spans

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int, *, gray: bool) -> np.ndarray:
        start, length = self.spans[index].tolist()
        bound(length)
        with open(self.paths[index], "rb") as file:
            file.seek(start)
            return decode(file.read(length), gray=gray)

    def stamp(self) -> Iterable[str]:
        yield from map(stamp_of, dict.fromkeys(self.paths))
        yield from (f"{path} {span}" for path, span in zip(self.paths, self.spans.tolist(), strict=True))

    def take(self, rows: np.ndarray) -> "Slices":
        return Slices([self.paths[row] for row in rows.tolist()], self.spans[rows])
