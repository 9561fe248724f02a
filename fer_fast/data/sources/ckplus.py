"""CK+ as people have it: the official sequences with their Emotion files, CK+48, or ckextended.csv."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from fer_fast.data.files import bases, files_ending, find, list_folders, list_images, shown
from fer_fast.data.labels import CLASSES, canonical_class
from fer_fast.data.listing import Listing, Part
from fer_fast.data.sequences import FRAMES, Sequence, last, part_of, some, too_short
from fer_fast.data.table import DatasetInfo
from fer_fast.data.tables import read_pixel_table
from fer_fast.errors import InputError

EXPRESSIONS = tuple(name for name in CLASSES if name != "neutral")
# Of the Emotion files.
NUMBERED = ("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
SEQUENCES = dict(zip(NUMBERED[1:], (45, 18, 59, 25, 69, 28, 83), strict=True))
# Of ckextended.csv: FER2013's numbers and one more; one picture a sequence, and the first of all 593 as neutral.
TABLE_NUMBERED = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral", "contempt")
TABLE_IMAGES = SEQUENCES | {"neutral": 593}

_PARENTS = {"ck", "ckplus", "ck48", "cohnkanade", "extendedcohnkanadeimages", "emotionlabels"}
_IMAGES = {"cohn-kanade-images", "extended-cohn-kanade-images"}
_LABELS = {"emotion", "emotion_labels"}
_SUBJECT, _SEQUENCE = re.compile(r"S\d+", re.IGNORECASE), re.compile(r"\d+")
_FRAME = re.compile(r"(S\d+)_(\d+)_\d+", re.IGNORECASE)
_NUMBER_BYTES = 64  # of an Emotion file, which holds one number
_USAGE = {"training": "train", "publictest": "val", "privatetest": "test"}


def read_ckplus(root: Path) -> Listing | None:
    """The last three frames of each labelled sequence, or what a copy has made of them.

    Raises:
        InputError: sequences without the folder of their labels, or labels without sequences.
    """
    if root.is_file():
        return _table(root) if root.name.lower().startswith("ck") and root.suffix.lower() == ".csv" else None
    inside = {base: list_folders(base, within=root) for base in bases(root, _PARENTS)}
    folders = [root, *chain.from_iterable(inside.values())]
    images, labels = (
        [path for path in folders if path.name.lower() in names and any(_walk(path, root, _SUBJECT))]
        for names in (_IMAGES, _LABELS)
    )
    if images or labels:
        return _official(root, images, labels)
    tables = [found for base in inside if (found := find(base, "ckextended.csv", within=root))]
    copies = (_by_class(folders, root) for folders in inside.values())
    return _table(tables[0]) if tables else next(filter(None, copies), None)


def _walk(folder: Path, root: Path, name: re.Pattern[str]) -> Iterator[Path]:
    return (path for path in list_folders(folder, within=root) if name.fullmatch(path.name))


def _official(root: Path, image_trees: list[Path], label_trees: list[Path]) -> Listing:
    """cohn-kanade-images/S005/001/*.png and Emotion/S005/001/*_emotion.txt."""
    if not image_trees or not label_trees:
        there, missing = ("images", "the folder Emotion") if image_trees else ("labels", "cohn-kanade-images")
        raise InputError(
            f"{shown(root)} has the {there} of CK+ without {missing}; give the folder that holds images and labels"
        )
    listing = Listing("official sequences, last three frames", EXPRESSIONS, {}, faces="align", unlabelled=0)
    if len(image_trees) > 1:
        listing.ignored["further folders of the same sequences"] = len(image_trees) - 1
    labels = _labels(label_trees, root, listing)
    sequences, elsewhere = [], []
    for subject in _walk(image_trees[0], root, _SUBJECT):
        for folder in _walk(subject, root, _SEQUENCE):
            name = f"{subject.name.upper()}/{folder.name}"
            if name not in labels:
                listing.unlabelled += 1
                continue
            number, labelled_frame = labels.pop(name)
            if number is None:
                continue  # a fault already
            if NUMBERED[number] == "neutral":
                listing.ignored["sequences labelled neutral, which is no class of CK+"] += 1
                continue
            frames = list_images(folder, listing.ignored, root)
            if frames and frames[-1].stem.upper() != labelled_frame:
                elsewhere.append(f"{name} ({frames[-1].name})")
            sequences.append(Sequence(last(frames), EXPRESSIONS.index(NUMBERED[number]), subject.name.upper(), name))
    listing.problems += some(sorted(labels), "have a label and no folder of images")
    listing.notes += some(elsewhere, "do not end with the frame that their label is named after")
    return _finished(listing, sequences, root)


def _labels(trees: list[Path], root: Path, listing: Listing) -> dict[str, tuple[int | None, str]]:
    """Sequence -> the number of its emotion and the frame it is of; None, and a fault, where it is none."""
    labels: dict[str, tuple[int | None, str]] = {}
    for tree in trees:
        for subject in _walk(tree, root, _SUBJECT):
            for folder in _walk(subject, root, _SEQUENCE):
                name = f"{subject.name.upper()}/{folder.name}"
                for path in files_ending(folder, (".txt",), root):
                    number = _number(path, name, listing)
                    first = labels.setdefault(name, (number, path.stem.lower().removesuffix("_emotion").upper()))
                    if first[0] != number and None not in (first[0], number):
                        listing.faults.append(f"{shown(path)}: emotion is {number}; another file says {first[0]}")
    return labels


def _number(path: Path, sequence: str, listing: Listing) -> int | None:
    """The number in an Emotion file, which is written as a float; None, and a fault, where there is none."""
    named = _FRAME.match(path.name)
    if not named or f"{named[1]}/{named[2]}".upper() != sequence:
        listing.faults.append(f"{shown(path)}: lies in the folder of {sequence} and is named after another sequence")
        return None
    try:
        with path.open("rb") as file:
            text = file.read(_NUMBER_BYTES).decode("utf-8-sig", "replace").strip()
        number = float(text)
    except ValueError:
        number = -1.0
    except OSError as error:
        listing.faults.append(f"{shown(path)} cannot be read: {error.strerror}")
        return None
    if number not in range(len(NUMBERED)):
        listing.faults.append(f"{shown(path)}: emotion is {text[:20]!r}; allowed: 0 to {len(NUMBERED) - 1}")
        return None
    return int(number)


def _by_class(folders: list[Path], root: Path) -> Listing | None:
    """<class>/S010_004_00000017.png, as in CK+48, already cut to the face."""
    folders = [path for path in folders if canonical_class(path.name)]
    contents = {folder: list_images(folder, within=root) for folder in folders}
    if len(folders) < 2 or not any(_FRAME.fullmatch(path.stem) for paths in contents.values() for path in paths[:3]):
        return None
    listing = Listing("folders of classes, frames named after subject and sequence", EXPRESSIONS, {})
    found: dict[tuple[str, str], list[Path]] = {}
    for folder, paths in contents.items():
        name = canonical_class(folder.name)
        if name not in EXPRESSIONS:
            listing.ignored[f"images in the folder {folder.name}, which is no class of CK+"] += len(paths)
            continue
        for path in paths:
            if named := _FRAME.fullmatch(path.stem):
                found.setdefault((f"{named[1].upper()}/{named[2]}", name), []).append(path)
            else:
                listing.faults.append(
                    f"{shown(path)}: its name does not tell the subject, as S010_004_00000017.png would"
                )
    twice = Counter(sequence for sequence, _ in found)
    listing.problems += some(sorted(name for name, n in twice.items() if n > 1), "lie in several folders of classes")
    sequences = [
        Sequence(frames, EXPRESSIONS.index(name), sequence.split("/")[0], sequence)
        for (sequence, name), frames in sorted(found.items())
    ]
    return _finished(listing, sequences, root)


def _table(path: Path) -> Listing | None:
    """ckextended.csv: emotion, pixels, Usage."""
    table = read_pixel_table(path)
    if table is None or "emotion" not in table.columns:
        return None
    listing = Listing("a table of pixels without subjects", CLASSES, {}, published={"all": TABLE_IMAGES})
    numbers = {str(number): CLASSES.index(name) for number, name in enumerate(TABLE_NUMBERED)}
    labels = np.array([numbers.get(text, -1) for text in table.columns["emotion"]], np.int64)
    usages = table.columns.get("usage")
    parts = np.array([_USAGE.get(text.lower(), "") for text in usages] if usages else ["all"] * len(labels))
    for column, wrong, allowed in (
        ("emotion", labels < 0, f"0 to {len(numbers) - 1}"),
        ("usage", parts == "", "Training, PublicTest, PrivateTest"),
    ):
        listing.faults += [
            f"{shown(path)}: line {table.lines[row]}: {column} is {table.columns[column][row]!r}; allowed: {allowed}"
            for row in np.flatnonzero(wrong).tolist()
        ]
    good = np.flatnonzero((labels >= 0) & (parts != ""))
    names = tuple(f"{path.name}:{line}" for line in table.lines)
    listing.parts["all"] = Part(table.pictures, labels, names).take(good)
    if "usage" in table.columns:
        listing.compare({})
        whole, parts = listing.parts.pop("all"), parts[good]
        listing.parts = {name: whole.take(np.flatnonzero(parts == name)) for name in _USAGE.values() if name in parts}
    listing.notes.append(
        "this copy does not say who is in a picture: people are on both sides of any cut of it, so accuracies are not "
        "those of folds by subject"
    )
    return listing


def _finished(listing: Listing, sequences: list[Sequence], root: Path) -> Listing:
    if not any(sequence.frames for sequence in sequences) and not listing.faults:
        raise InputError(f"{shown(root)} has no labelled sequence of CK+ with images")
    listing.problems += too_short((sequence.name, len(sequence.frames)) for sequence in sequences)
    listing.parts["all"] = part_of(sequences, root)
    listing.sequences = sum(bool(sequence.frames) for sequence in sequences)
    return listing


INFO = DatasetInfo(
    name="ckplus",
    classes=EXPRESSIONS,
    description="CK+: 327 labelled sequences of 118 people in a laboratory, seven classes, ten folds by subject",
    read=read_ckplus,
    size=64,
    channels=1,
    published={"all": {name: FRAMES * n for name, n in SEQUENCES.items()}},
    licence="on request from its authors, for research only; images must not be passed on",
)
