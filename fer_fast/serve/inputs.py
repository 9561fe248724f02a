"""What `fer-fast predict` is given: files and folders, and where each of them goes below a folder for results."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fer_fast.data.files import IMAGE_SUFFIXES, image_names, list_folders
from fer_fast.data.videos import looks_like_video
from fer_fast.errors import InputError

ENDINGS = (*IMAGE_SUFFIXES, ".gif", ".avif", ".jp2", ".ppm", ".pgm", ".pbm")  # of all that `fer_fast.data.decode` reads
TABLE = "predictions.csv"
_KEPT = {".png": (".jpg", ".jpeg", ".png"), ".mp4": (".mp4",)}  # what results end in, by what is added to other names


class Inputs(NamedTuple):
    """What is to be read, in the order in which it was given, each file once.

    Attributes:
        pictures: files that are read as pictures, or cannot be read.
        videos: files that are read as videos.
        faults: what is wrong with folders, in lines that name them.
        ignored: reason -> how many things in folders were passed over.
    """

    pictures: list[str]
    videos: list[str]
    faults: dict[str, str]
    ignored: Counter[str]


def collect(paths: Sequence[str]) -> Inputs:
    """Files by name, and all image files below folders, by name; hidden ones and other files are counted."""
    found = Inputs([], [], {}, Counter())
    seen: set[str] = set()
    for path in paths:
        if os.path.isdir(path):
            faults = len(found.faults)
            files = _below(Path(path), found)
            _add(files, found.pictures, seen)
            if not files and len(found.faults) == faults:
                found.faults[path] = f"{path}: no image file in this folder"
        else:
            _add([path], found.videos if looks_like_video(path) else found.pictures, seen)
    return found


def _add(files: Sequence[str], to: list[str], seen: set[str]) -> None:
    for file in files:
        real = os.path.realpath(file) if "\0" not in file else file
        if real not in seen:
            seen.add(real)
            to.append(file)


def _below(root: Path, found: Inputs) -> list[str]:
    """The image files below a folder, by name; what cannot be listed becomes a fault."""
    files: list[str] = []
    waiting, visited = [root], set()
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in visited:  # a link back
            continue
        visited.add(real)
        try:
            ignored: Counter[str] = Counter()
            files += [os.path.join(folder, name) for name in image_names(folder, ignored, root, ENDINGS)]
            del ignored["folders inside a folder of pictures"]  # which are looked into
            found.ignored.update(ignored)
            waiting += reversed(list_folders(folder, within=root))
        except InputError as error:
            found.faults[str(folder)] = str(error)
    return files


def targets(inputs: Inputs, paths: Sequence[str], out: Path) -> dict[str, Path]:
    """Where the annotated picture or video of each file goes: as it lies below what the paths have in common.

    A JPEG, PNG or MP4 keeps its name; of any other file .png or .mp4 is added to it.

    Raises:
        InputError: something would be overwritten.
    """
    folders = [os.path.abspath(path if os.path.isdir(path) else os.path.dirname(path) or ".") for path in paths]
    common = os.path.commonpath(folders)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is no folder")
    if (out / TABLE).exists():
        raise InputError(f"{out} already holds {TABLE}; choose another --out")
    chosen: dict[str, Path] = {}
    taken: set[Path] = set()
    for files, ending in ((inputs.pictures, ".png"), (inputs.videos, ".mp4")):
        for file in files:
            target = out / os.path.relpath(os.path.abspath(file), common)
            if target.suffix.lower() not in _KEPT[ending]:
                target = target.with_name(target.name + ending)
            while target in taken:  # "a.gif" and "a.gif.png"
                target = target.with_name(target.name + ending)
            for there in filter(os.path.lexists, (target, beside(target))):
                raise InputError(f"{there} is there already; choose another --out")
            taken.add(target)
            chosen[file] = target
    return chosen


def beside(video: Path) -> Path:
    """The table of an annotated video."""
    return video.with_name(video.name + ".csv")
