"""What lies in a folder: layout, images per split and class, and everything that is wrong with it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fer_fast.data import DATASETS, FaceDataset
from fer_fast.errors import InputError

_LISTED = 20  # problems of one report that are spelled out


@dataclass(frozen=True)
class CheckReport:
    """The finding of `check`.

    Args:
        dataset: name in `DATASETS`.
        layout: how the data lies on disk.
        counts: split -> class -> number of readable images.
        digests: split -> digest of images and labels.
        problems: one line each; empty where all is well.
    """

    dataset: str
    layout: str
    counts: dict[str, dict[str, int]]
    digests: dict[str, str]
    problems: tuple[str, ...]


def check(root: str | Path) -> CheckReport:
    """Reads a whole folder and says what it is; for `fer-fast data check DIR`.

    Problems are: files and rows that cannot be read, unknown classes, classes without an image, images of another size,
    numbers that differ from the published ones, and images that lie in two splits.

    Raises:
        InputError: `root` does not exist, or is none of the data sets that are read from folders.
    """
    root = Path(root)
    if not root.exists():
        raise InputError(f"{root} does not exist")
    readable = {name: info for name, info in DATASETS.items() if info.inspect is not None}
    for name, info in readable.items():
        finding = info.inspect(root)
        if finding is None:
            continue
        problems = [*finding.problems, *_missing_classes(finding.parts), *_leaks(finding.parts)]
        if len(problems) > _LISTED:
            problems[_LISTED:] = [f"and {len(problems) - _LISTED} more problems"]
        return CheckReport(
            dataset=name,
            layout=finding.layout,
            counts={p.split: dict(zip(p.classes, p.class_counts().tolist(), strict=True)) for p in finding.parts},
            digests={part.split: part.digest() for part in finding.parts},
            problems=tuple(problems),
        )
    raise InputError(f"{root} is none of the data sets that are read from a folder: {', '.join(readable)}")


def _missing_classes(parts: tuple[FaceDataset, ...]) -> list[str]:
    return [
        f"{part.split} has no image of {name}"
        for part in parts
        for name, count in zip(part.classes, part.class_counts().tolist(), strict=True)
        if count == 0
    ]


def _leaks(parts: tuple[FaceDataset, ...]) -> list[str]:
    """One line for each pair of splits that share images, pixel for pixel."""
    first_of = [
        {hashlib.blake2b(image.tobytes(), digest_size=16).digest(): i for i, image in enumerate(part.images.numpy())}
        for part in parts
    ]
    lines = []
    for later in range(len(parts)):
        for earlier in range(later):
            shared = first_of[earlier].keys() & first_of[later].keys()
            if shared:
                a, b = parts[earlier], parts[later]
                key = min(shared)
                pair = (
                    f"{a.names[first_of[earlier][key]]} = {b.names[first_of[later][key]]}"
                    if a.names and b.names
                    else ""
                )
                lines.append(
                    f"{len(shared)} images of {b.split} are also in {a.split}, for instance {pair}".rstrip(", ")
                )
    return lines
