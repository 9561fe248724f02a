"""What lies in a folder: dataset, layout, images per part and class, and everything that is wrong with it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np

from fer_fast.data.album import Album
from fer_fast.data.cache import NO_FACE, Store
from fer_fast.data.dataset import SPLITS
from fer_fast.data.detect import find_dataset
from fer_fast.data.labels import FAR, distance
from fer_fast.data.listing import FaceChoice, Listing
from fer_fast.data.opened import Wanted, decoded, preparation, read_copy
from fer_fast.data.prepare import Preparation
from fer_fast.data.splits import FOLDS, manifest
from fer_fast.errors import InputError

LISTED = 20  # files or rows of one kind that are spelled out
Counts = Mapping[str, Mapping[str, int]]  # part -> class -> images
_SAME = 0.01  # how far sizes may be from the published ones that are these in another order


@dataclass(frozen=True)
class CheckReport:
    """The finding of `check`.

    Args:
        dataset: name in `DATASETS`.
        layout: how the data lies on disk.
        licence: who gives it to whom.
        classes: names, in the order of the labels.
        counts: part -> class -> images; the part is "all" where the data has none.
        published: the same as published, for the parts that are here.
        subjects, sequences, unlabelled: how many; None where the data has none or does not say.
        duplicates: kind -> how many: groups of the same pixels, pairs nearly the same, images of one part in another.
        ignored: why something was left aside -> how many files or folders.
        notes: what to know that is not wrong, one line each.
        problems: one line each; empty where all is well.
        album: the pictures.
    """

    dataset: str
    layout: str
    licence: str
    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    published: dict[str, dict[str, int]]
    subjects: int | None
    sequences: int | None
    unlabelled: int | None
    duplicates: dict[str, Any]
    ignored: dict[str, int]
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    album: Album

    def as_dict(self) -> dict[str, Any]:
        """All but the pictures, for JSON."""
        return {name: value for name, value in vars(self).items() if name != "album"}


def check(
    root: str | Path, *, dataset: str | None = None, order: str | None = None, faces: FaceChoice | None = None
) -> CheckReport:
    """Reads a whole folder and says what it is; for `fer-fast data check DIR`.

    Its pictures are decoded into the cache, at the size and in the channels that training takes where nothing else is
    asked for.

    Args:
        root: folder or file of the user.
        dataset: a key of `DATASETS`, where it cannot be told from the folder.
        order: which order the class numbers have, where the copy does not tell.
        faces: what is cut out of a picture, where that is not what training takes by itself.

    Raises:
        InputError: `root` does not exist, holds no dataset, or it cannot be told which; an order that does nothing.
    """
    root = Path(root)
    info, listing = find_dataset(root, dataset, order)
    if order is not None:
        read_copy(info, root, Wanted(order=order))  # it raises where the order does nothing
    listing.compare(info.published)
    how = preparation(info, listing, Wanted(faces=faces))
    parts = {name: listing.parts[name] for name in (*SPLITS, "all") if len(listing.parts.get(name, ()))}
    if not parts:
        raise InputError("; ".join((f"{root}: no image of {info.name} ({listing.layout})", *listing.faults[:1])))
    stores = {name: decoded(info, root, name, part, how) for name, part in parts.items()}
    album = Album(listing, stores)
    counts, expected = listing.counts(), listing.expected(info.published)
    counts = {name: counts[name] for name in parts}
    published = {name: dict(expected[name]) for name in parts if name in expected}
    people = _different(part.subjects for part in parts.values())
    problems = (
        *_first(listing.faults, "rows or files that are corrupt"),
        *listing.problems,
        *_missing(counts, published),
        *_other_order(counts, published),
        *_unreadable(listing, stores),
        *_shared(listing),
        *_repeated(album),
    )
    return CheckReport(
        dataset=info.name,
        layout=listing.layout,
        licence=info.licence,
        classes=listing.classes,
        counts=counts,
        published=published,
        subjects=None if people is None else len(people),
        sequences=listing.sequences,
        unlabelled=listing.unlabelled,
        duplicates=_duplicates(album),
        ignored=dict(listing.ignored),
        notes=(*listing.notes, *_faceless(stores, how), *_thin_folds(listing)),
        problems=tuple(dict.fromkeys(problems)),  # a reader may have told the same
        album=album,
    )


def _missing(counts: Counts, published: Counts) -> Iterator[str]:
    """Parts and classes without an image."""
    if "all" not in counts:
        yield from (f"no {part} images" for part in ("train", "test") if part not in counts)
    for part, sizes in counts.items():
        if none := [name for name, n in sizes.items() if n == 0 and published.get(part, {}).get(name) != 0]:
            yield f"{part} has no image of {', '.join(none)}"


def _other_order(counts: Counts, published: Counts) -> Iterator[str]:
    """Parts whose classes have the published sizes, but not each its own: names were given in another order."""
    for part, expected in published.items():
        sizes = counts[part]
        by_size = dict(zip(sorted(expected, key=expected.get), sorted(sizes, key=sizes.get), strict=False))
        ranked = {name: sizes[called] for name, called in by_size.items()}
        if distance(sizes, [expected]) > FAR and distance(ranked, [expected]) <= _SAME:
            swapped = [f"{called} for {name}" for name, called in by_size.items() if called != name]
            yield (
                f"the classes of {part} have the published sizes in another order, as if the names were mixed up: "
                f"{', '.join(swapped)}"
            )


def _unreadable(listing: Listing, stores: Mapping[str, Store]) -> Iterator[str]:
    lines = [
        f"{part}: {listing.parts[part].names[row]}: {fault}"
        for part, store in stores.items()
        for row, fault in sorted(store.faults.items())
    ]
    return _first(lines, "images that cannot be read")


def _first(lines: Sequence[str], what: str) -> Iterator[str]:
    yield from islice(lines, LISTED)
    if len(lines) > LISTED:
        yield f"and {len(lines) - LISTED} more {what}"


def _faceless(stores: Mapping[str, Store], how: Preparation) -> Iterator[str]:
    for part, store in stores.items():
        if n := int((store.states == NO_FACE).sum()):
            yield f"{_many(n, 'image')} of {part} {how.without}: their central square"


def _thin_folds(listing: Listing) -> Iterator[str]:
    folds = manifest(listing) or {}
    if empty := [number for number, about in folds.items() if not about["subjects"]]:
        yield f"{_many(FOLDS - len(empty), 'subject')}, too few for {FOLDS} folds: --data.folds says how many"
    elif thin := [
        f"fold {number} ({', '.join(about['absent'])})" for number, about in folds.items() if about["absent"]
    ]:
        yield f"folds without an image of a class, where accuracies are over the others: {', '.join(thin)}"


def _shared(listing: Listing) -> Iterator[str]:
    """Subjects, sequences and photographs that are in two parts."""
    for (one, first), (other, second) in combinations(listing.parts.items(), 2):
        for kind, columns in (
            ("subject", (first.subjects, second.subjects)),
            ("sequence", (first.groups, second.groups)),
        ):
            if None not in columns and (both := set(columns[0]) & set(columns[1])):
                yield f"{_many(len(both), kind)} in {one} and in {other}, for instance {min(both)}"


def _repeated(album: Album) -> Iterator[str]:
    """What is there twice, or empty; the examples are of those with two labels where there are such."""

    def called(*images: int) -> str:
        return f"for instance {' and '.join(f'{album.name(image)} ({album.label(image)})' for image in images[:2])}"

    if len(album.flat):
        yield f"{_many(len(album.flat), 'image')} of one flat colour, {called(album.flat[0])}"
    if len(album.repeated):
        labels = f"{len(album.conflicting)} with conflicting labels"
        folds = "" if album.in_two_folds is None else f", {len(album.in_two_folds)} in two folds"
        example = album.apart(album.conflicting[0]) if len(album.conflicting) else album.same_as(album.repeated[0])
        yield f"{_many(len(album.repeated), 'group')} of identical images, {labels}{folds}, {called(*example)}"
    for part, earlier, images, otherwise in album.overlaps:
        labels = f"{otherwise.sum()} labelled otherwise there"
        example = images[np.argmax(otherwise)]
        yield f"{_many(len(images), 'image')} of {part} also in {earlier}, {labels}, {called(example)}"
    if len(album.near):
        labels = f"{album.differing.sum()} with conflicting labels"
        across = f"{album.across.sum()} across {'folds' if album.folded else 'parts'}"
        example = album.near[np.argmax(album.differing)]
        yield f"{_many(len(album.near), 'pair')} of nearly identical images, {labels}, {across}, {called(*example)}"


def _duplicates(album: Album) -> dict[str, Any]:
    """The numbers of `_repeated`."""
    return {
        "flat": len(album.flat),
        "groups": len(album.repeated),
        "conflicting": len(album.conflicting),
        "in_two_folds": None if album.in_two_folds is None else len(album.in_two_folds),
        "across": [
            {"part": part, "also_in": earlier, "images": len(images), "labelled_otherwise": int(otherwise.sum())}
            for part, earlier, images, otherwise in album.overlaps
        ],
        "near": len(album.near),
        "near_conflicting": int(album.differing.sum()),
        "near_across": int(album.across.sum()),
    }


def _different(columns: Iterable[tuple[str, ...] | None]) -> set[str] | None:
    """All words of the columns there are; None where there is none."""
    known = [column for column in columns if column is not None]
    return set().union(*known) if known else None


def _many(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
