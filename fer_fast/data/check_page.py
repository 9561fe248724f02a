"""The page of a check: counts, problems and faces of every class, so that a person sees a swapped order at once."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_fast.data.album import Album
from fer_fast.data.check import CheckReport
from fer_fast.page import picture, write_page

FACES = 12  # of a class in a part
MOST_FACES = 480  # on a page: some 3 MB
MOST_PAIRS = 24  # of a kind of duplicates


def write_check_page(path: str | Path, report: CheckReport, root: str | Path) -> None:
    """Write what `check` found in `root` as one self-contained HTML file.

    Raises:
        InputError: the file cannot be written.
    """
    album = report.album
    shown = report.classes[: MOST_FACES // len(album.parts)]
    same, near = map(album.apart, album.conflicting[:MOST_PAIRS]), album.near[album.differing]
    write_page(
        path,
        "data/check.html.j2",
        report=report,
        root=str(root),
        tiles=_tiles(report),
        left_out=len(report.classes) - len(shown),
        faces=_faces(album, shown),
        twice=(
            ("Identical images with two labels", len(album.conflicting), _rows(album, same)),
            ("Nearly identical images with two labels", len(near), _rows(album, near[:MOST_PAIRS])),
        ),
    )


def _tiles(report: CheckReport) -> list[tuple[str, str]]:
    numbers = {
        "images": sum(sum(counts.values()) for counts in report.counts.values()),
        "classes": len(report.classes),
        "subjects": report.subjects,
        "sequences": report.sequences,
        "without a label": report.unlabelled,
        "problems": len(report.problems),
    }
    return [(name, f"{n:,}".replace(",", "\u202f")) for name, n in numbers.items() if n is not None]


def _faces(album: Album, classes: Sequence[str]) -> list[tuple[str, list[tuple[str, list[dict[str, Any]]]]]]:
    """Class -> part -> some of its pictures, the same ones each time."""
    generator = np.random.default_rng(0)
    most = max(1, min(FACES, MOST_FACES // (len(classes) * len(album.parts))))

    def some(part: str, label: int) -> list[dict[str, Any]]:
        images = album.of(part, label)
        chosen = generator.choice(images, min(most, len(images)), replace=False)
        return [_figure(album, image) for image in np.sort(chosen).tolist()]

    return [(name, [(part, some(part, label)) for part in album.parts]) for label, name in enumerate(classes)]


def _rows(album: Album, groups: Iterable[np.ndarray]) -> list[list[dict[str, Any]]]:
    return [[_figure(album, image) for image in group.tolist()] for group in groups]


def _figure(album: Album, image: int) -> dict[str, Any]:
    source = picture(album.pixels(image), ".jpg")
    return {"source": source, "label": album.label(image), "name": album.name(image)}
