"""Walking a user's folders safely: what is junk, what leads out of them, what cannot be read."""

import os
from collections import Counter, deque
from collections.abc import Collection, Iterator
from pathlib import Path

from fer_fast.errors import InputError, printable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
JUNK = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"}  # beside all that begins with a dot
DEPTH = 4  # levels of folders around a dataset that are looked into


def image_names(
    folder: Path,
    ignored: Counter[str] | None = None,
    within: Path | None = None,
    endings: tuple[str, ...] = IMAGE_SUFFIXES,
) -> list[str]:
    """The names of the image files directly in `folder`, sorted; what else lies there is counted in `ignored`.

    Args:
        folder: to list.
        ignored: reason -> how many.
        within: links that lead out of this folder are not followed; None takes `folder`.
        endings: of image files, in lower case.

    Raises:
        InputError: the folder cannot be read.
    """
    ignored = Counter() if ignored is None else ignored
    names = []
    for name, is_folder in _entries(folder, ignored, within):
        if is_folder:
            ignored["folders inside a folder of pictures"] += 1
        elif name.lower().endswith(endings):
            names.append(name)
        else:
            ending = os.path.splitext(name)[1].lower()
            plain = ending[1:].isalnum() and ending.isascii() and len(ending) <= 6
            ignored[f"files that are no pictures ({ending if plain else 'other endings'})"] += 1
    return sorted(names)


def list_images(folder: Path, ignored: Counter[str] | None = None, within: Path | None = None) -> list[Path]:
    """As `image_names`, the paths."""
    return [folder / name for name in image_names(folder, ignored, within)]


def files_ending(folder: Path, endings: tuple[str, ...], within: Path | None = None) -> list[Path]:
    """The files directly in `folder` whose names end so, in lower case, by name; without what `image_names` leaves out.

    Raises:
        InputError: the folder cannot be read.
    """
    found = _entries(folder, Counter(), within)
    return [folder / name for name, is_folder in sorted(found) if not is_folder and name.lower().endswith(endings)]


def list_folders(folder: Path, ignored: Counter[str] | None = None, within: Path | None = None) -> list[Path]:
    """The folders directly in `folder`, by name; hidden ones and links that lead out are counted in `ignored`.

    Raises:
        InputError: the folder cannot be read.
    """
    found = _entries(folder, Counter() if ignored is None else ignored, within)
    return [folder / name for name in sorted(name for name, is_folder in found if is_folder)]


def find(folder: Path, *names: str, within: Path | None = None) -> Path | None:
    """The first of the files or folders of these names in `folder`, whatever their case; None where there is none."""
    there = {name.lower(): name for name, _ in _entries(folder, Counter(), within)}
    return next((folder / there[name.lower()] for name in names if name.lower() in there), None)


def bases(root: Path, known: Collection[str]) -> Iterator[Path]:
    """`root`, then the folders below it that may hold the dataset itself, nearest first; nothing where it is a file.

    Those are folders whose names, letters and digits in lower case, are `known`, and those with no other folder beside.
    """
    waiting = deque([(root, 0)] if root.is_dir() else [])
    while waiting:
        folder, depth = waiting.popleft()
        yield folder
        if depth < DEPTH:
            inner = list_folders(folder, within=root)
            waiting.extend((path, depth + 1) for path in inner if len(inner) == 1 or bare(path.name) in known)


def bare(name: str) -> str:
    """A name in lower case, letters and digits only."""
    return "".join(filter(str.isalnum, name.lower()))


def shown(path: Path | str) -> str:
    """A path for a message: one line, readable in its order, whatever characters are in it."""
    return printable(os.fspath(path))


def _entries(folder: Path, ignored: Counter[str], within: Path | None) -> Iterator[tuple[str, bool]]:
    """The name of each thing in `folder` that can be used, and whether it is a folder."""
    home = os.path.realpath(within or folder)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in JUNK:
                    ignored["hidden files and files of the operating system"] += 1
                elif entry.is_symlink() and not _leads_into(entry.path, home):
                    ignored["links that lead out of the folder, or nowhere"] += 1
                elif (is_folder := entry.is_dir()) or entry.is_file():
                    yield entry.name, is_folder
                else:
                    ignored["pipes, sockets and devices"] += 1
    except OSError as error:
        raise InputError(f"{shown(folder)} cannot be read: {error.strerror}") from None


def _leads_into(link: str, folder: str) -> bool:
    try:
        return Path(os.path.realpath(link, strict=True)).is_relative_to(folder)
    except OSError:
        return False
