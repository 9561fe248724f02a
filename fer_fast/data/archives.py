"""Image files inside archives and lists beside them: shards of WebDataset, a packed csv, trees of YOLO."""

import hashlib
import lzma
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from filelock import FileLock

from fer_fast.data import cache
from fer_fast.data.files import files_ending, find, list_folders, list_images, shown
from fer_fast.data.lists import whole
from fer_fast.data.pictures import Slices, stamp_of
from fer_fast.errors import InputError

_PICTURES = ("jpg", "jpeg", "png", "webp", "bmp")
_SMALL = 1 << 20  # bytes of a file of names or numbers
_UNPACKED = 4 << 30  # bytes of a csv in an archive


class Samples(NamedTuple):
    """The samples of a WebDataset.

    Attributes:
        pictures: where they lie in the shards.
        labels: int64 (n,), what their `.cls` says.
        words: the folder of each: "train", "test".
        names: shard and member of each.
        classes: the names of the numbers, from classnames.txt, where there is one.
        faults: a line for each sample without a picture or a class.
        problems: a line for each folder with fewer shards than nshards.txt says.
    """

    pictures: Slices
    labels: np.ndarray
    words: tuple[str, ...]
    names: tuple[str, ...]
    classes: tuple[str, ...] | None
    faults: list[str]
    problems: list[str]


def read_webdataset(root: Path) -> Samples | None:
    """`<part>/<number>.tar` with `key.jpg` and `key.cls`, `<part>/nshards.txt`, `classnames.txt`.

    Returns:
        None where no folder of `root` holds shards.

    Raises:
        InputError: a shard is no tar, or is cut off.
    """
    shards = {folder: sorted(files_ending(folder, (".tar",), root), key=_number_first) for folder in list_folders(root)}
    shards = {folder: tars for folder, tars in shards.items() if tars}
    if not shards:
        return None
    paths, spans, labels, words, names, faults, problems = [], [], [], [], [], [], []
    for folder, tars in shards.items():
        expected = _text(find(folder, "nshards.txt", within=root)).strip()
        if expected and expected != str(len(tars)):
            problems.append(f"{shown(folder)} holds {len(tars)} shards where nshards.txt says {expected}")
        for tar in tars:
            for key, (member, start, size, label) in _samples(tar).items():
                if not member or label is None:
                    faults.append(f"{shown(tar)}: {key}: {'no class' if member else 'no picture'}")
                    continue
                paths.append(tar)
                spans.append((start, size))
                labels.append(label)
                words.append(folder.name)
                names.append(f"{folder.name}/{tar.name}:{member}")
    listed = _text(find(root, "classnames.txt", within=root)).splitlines()
    classes = tuple(line.strip() for line in listed if line.strip()) or None
    pictures = Slices(paths, np.array(spans, np.int64).reshape(-1, 2))
    return Samples(pictures, np.array(labels, np.int64), tuple(words), tuple(names), classes, faults, problems)


def _number_first(path: Path) -> tuple[int, str]:
    return (int(path.stem) if path.stem.isascii() and path.stem.isdigit() else -1, path.stem)


def _samples(tar: Path) -> dict[str, tuple[str, int, int, int | None]]:
    """Key -> member with the picture, its place and size in the tar, and the class; keys are what precedes the dot."""
    pictures: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(tar, "r:") as opened, tar.open("rb") as file:
            for member in opened:
                key, _, kind = member.name.rpartition("/")[2].partition(".")
                if not member.isreg() or member.sparse is not None:
                    continue
                if kind.lower() in _PICTURES:
                    if key in pictures:
                        raise InputError(f"{shown(tar)}: {key} is in it twice")
                    pictures[key] = (member.name, member.offset_data, member.size)
                elif kind == "cls":
                    file.seek(member.offset_data)
                    text = file.read(min(member.size, 64)).strip()
                    if text.isdigit() and len(text) < 10:
                        labels[key] = int(text)
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{shown(tar)} is not a tar that can be read: {' '.join(str(error).split())}") from None
    return {key: (*pictures.get(key, ("", 0, 0)), labels.get(key)) for key in pictures | labels}


def unpacked(archive: Path, name: str) -> Path | None:
    """The file called `name` out of a packed tar, kept in the cache from the first time on; None where it has none.

    Raises:
        InputError: the archive cannot be read, or the file is too large.
    """
    mark = hashlib.sha256(stamp_of(archive.resolve()).encode()).hexdigest()[:20]
    target = cache.folder() / f"{Path(name).stem}-{mark}{Path(name).suffix}"
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"), tarfile.open(archive) as tar:
            if target.exists():
                return target
            member = next((m for m in tar if m.isreg() and m.name.rpartition("/")[2] == name), None)
            if member is None:
                return None
            if member.size > min(_UNPACKED, shutil.disk_usage(target.parent).free):
                raise InputError(f"{shown(archive)}: {name} has {member.size / 1e9:.1f} GB, too much for the cache")
            half = target.with_suffix(".part")
            with tar.extractfile(member) as packed, half.open("wb") as file:
                shutil.copyfileobj(packed, file, _SMALL)
            for _ in range(_UNPACKED // _SMALL):  # to the end, where the checksum is
                if not tar.fileobj.read(_SMALL):
                    break
            half.replace(target)
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"{shown(archive)} cannot be unpacked into {shown(target.parent)}: {why}") from None
    return target


class Yolo(NamedTuple):
    """A tree in the form of YOLO.

    Attributes:
        names: of the classes, in the order of their numbers.
        files: word of the part ("train", "valid") -> its images.
        labels: word -> int64 (n,), the class of each; -1 where no label is written.
        faults: a line for each label file that is corrupt or names several classes.
    """

    names: tuple[str, ...]
    files: dict[str, list[Path]]
    labels: dict[str, np.ndarray]
    faults: list[str]


def read_yolo(root: Path) -> Yolo | None:
    """`data.yaml`, `<part>/images/x.jpg` and `<part>/labels/x.txt`, or `images/<part>/` and `labels/<part>/`.

    The folders are looked for below `root`, whatever paths data.yaml has: those are of the machine it was written on.

    Returns:
        None where there is no data.yaml.

    Raises:
        InputError: data.yaml names no classes.
    """
    found = find(root, "data.yaml", "data.yml", within=root)
    if found is None:
        return None
    names = _yolo_names(found)
    trees = {outer.name: {f.name: f for f in list_folders(outer, within=root)} for outer in list_folders(root)}
    pairs = {word: (tree["images"], tree.get("labels")) for word, tree in trees.items() if "images" in tree}
    pairs |= {word: (path, trees.get("labels", {}).get(word)) for word, path in trees.get("images", {}).items()}
    files = {word: list_images(images, within=root) for word, (images, _) in pairs.items()}
    labels, faults = {}, []
    for word, (_, folder) in pairs.items():
        there = {file.name for file in files_ending(folder, (".txt",), root)} if folder else set()
        lists = [folder / name if (name := f"{image.stem}.txt") in there else None for image in files[word]]
        labels[word] = np.array([_yolo_label(file, len(names), faults) for file in lists], np.int64)
    return Yolo(names, files, labels, faults)


def _yolo_names(file: Path) -> tuple[str, ...]:
    try:
        about = yaml.safe_load(_text(file))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{shown(file)} cannot be read: {' '.join(str(error).split())}") from None
    names = about.get("names") if isinstance(about, dict) else None
    if isinstance(names, dict) and names.keys() == set(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{shown(file)} has no list of names of the classes")
    return tuple(names)


def _yolo_label(file: Path | None, count: int, faults: list[str]) -> int:
    """The class in a label file, whose rows begin with it; -1 where there is none."""
    classes = {line.split()[0] for line in _text(file).splitlines() if line.strip()}
    numbers = {number for word in classes if (number := whole(word)) is not None and number < count}
    if len(numbers) == len(classes) <= 1:
        return numbers.pop() if numbers else -1
    said = shown(", ".join(sorted(classes)[:9]))
    faults.append(f"{shown(file)}: the classes {said}; allowed: one of 0 to {count - 1}")
    return -1


def _text(file: Path | None) -> str:
    """A small file of text; nothing where there is none."""
    if file is None:
        return ""
    try:
        with file.open("rb") as opened:
            return opened.read(_SMALL).decode("utf-8-sig", "replace")
    except OSError as error:
        raise InputError(f"{shown(file)} cannot be read: {error.strerror}") from None
