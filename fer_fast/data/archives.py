"""Image files inside archives and lists beside them: shards of WebDataset, a packed csv, trees of YOLO."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from fer_fast.data.files import list_folders, list_images
from fer_fast.errors import InputError

_SMALL = 1 << 20  # bytes of a file of names or numbers


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
    found = next((root / name for name in ("data.yaml", "data.yml") if (root / name).is_file()), None)
    if found is None:
        return None
    names = _yolo_names(found)
    pairs = {f.name: (f / "images", f / "labels") for f in list_folders(root) if (f / "images").is_dir()}
    if (root / "images").is_dir():
        pairs |= {f.name: (f, root / "labels" / f.name) for f in list_folders(root / "images")}
    files = {word: list_images(images) for word, (images, _) in pairs.items()}
    labels, faults = {}, []
    for word, (_, folder) in pairs.items():
        read = [_yolo_label(folder / f"{image.stem}.txt", len(names), faults) for image in files[word]]
        labels[word] = np.array(read, np.int64)
    return Yolo(names, files, labels, faults)


def _yolo_names(file: Path) -> tuple[str, ...]:
    try:
        about = yaml.safe_load(_head(file))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    names = about.get("names") if isinstance(about, dict) else None
    if isinstance(names, dict) and names.keys() == set(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{file} has no list of names of the classes")
    return tuple(names)


def _yolo_label(file: Path, count: int, faults: list[str]) -> int:
    """The class in a label file, whose rows begin with it; -1 where there is none."""
    try:
        classes = {line.split()[0] for line in _head(file).splitlines() if line.strip()}
    except FileNotFoundError:
        return -1
    numbers = {int(word) for word in classes if word.isascii() and word.isdigit() and int(word) < count}
    if len(numbers) == len(classes) <= 1:
        return numbers.pop() if numbers else -1
    faults.append(f"{file}: the classes {', '.join(sorted(classes))}; allowed: one of 0 to {count - 1}")
    return -1


def _head(file: Path) -> str:
    """A small file of text."""
    with file.open("rb") as opened:
        return opened.read(_SMALL).decode("utf-8-sig", "replace")
