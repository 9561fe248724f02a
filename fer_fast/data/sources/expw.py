"""ExpW, faces in web photographs: the official list with boxes, and cut faces in class folders."""

import math
from collections import Counter
from pathlib import Path

import numpy as np

from fer_fast.data.files import bare, bases, find, image_names, shown
from fer_fast.data.folders import class_folders, distinct, rows_of, sizes_of
from fer_fast.data.labels import CLASSES, FAR, canonical_class, distance
from fer_fast.data.listing import Listing
from fer_fast.data.lists import below, first_rows, missing, part_of, read_list, whole
from fer_fast.data.pictures import Files
from fer_fast.data.table import DatasetInfo
from fer_fast.errors import InputError

NUMBERED = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")  # as in FER2013
PUBLISHED = {"all": dict(zip(NUMBERED, (3671, 3995, 1088, 30537, 10559, 7060, 34883), strict=True))}
_PARENTS = {"expw", "expressioninthewild", "expwimagealignfiltrate", "data", "dataset"}


def read_expw(root: Path) -> Listing | None:
    """label.lst (name face_id top left right bottom confidence label) and image/origin/, or <class>/ of cut faces.

    A row is a face; faces of one photograph are a group, so that no cut parts them.
    """
    for base in bases(root, _PARENTS):
        table = find(find(base, "label", within=root) or base, "label.lst", within=root)
        table = table or find(base, "label.lst", within=root)
        if listing := _official(base, table, root) if table else _cut_faces(base, root):
            return listing
    return None


def _official(base: Path, table: Path, root: Path) -> Listing | None:
    listing = Listing("official list, label.lst", CLASSES[:7], {}, faces="box")
    rows = []
    for line, name, words in read_list(table, 7, listing.faults):
        face, label, box = whole(words[0]), whole(words[6]), _box(words[1:5])
        if face is None or box is None or label is None or label >= len(NUMBERED):
            listing.faults.append(f"{shown(table)}: line {line}: {shown(' '.join(words))}; needed: {_COLUMNS}")
        else:
            rows.append((name, face, NUMBERED[label], box))
    if not rows:
        return None
    keys = [f"{name}, face {face}" for name, face, _, _ in rows]
    rows = [rows[i] for i in first_rows(keys, [row[2] for row in rows], "rows", listing)]
    images = find(base, "image", within=root) or base
    images = find(images, "origin", within=root) or images
    there = set(image_names(images, Counter(), root))
    if not there.intersection(row[0] for row in rows):
        raise InputError(f"{shown(table)}: none of its pictures lies in {shown(images)}; archives have to be unpacked")
    listing.problems += missing([row[0] for row in rows if row[0] not in there], len(rows))
    if unlisted := len(there - {row[0] for row in rows}):
        listing.ignored["photographs that are not on the list"] += unlisted
    rows = [row for row in rows if row[0] in there]
    names, faces, words, boxes = zip(*rows, strict=True)
    paths = [f"{images}/{name}" for name in names]
    shown_names = [f"{name}, face {face}" for name, face in zip(below(root, paths), faces, strict=True)]
    column = np.array(boxes, np.float32)
    if without := np.isnan(column[:, 0]).sum():
        listing.notes.append(f"{without} faces have a box without area")
    listing.parts["all"] = part_of(
        Files(paths), shown_names, words, listing.classes, listing.ignored, column, groups=names
    )
    return listing


_COLUMNS = "name face_id top left right bottom confidence label (0 to 6)"


def _box(words: list[str]) -> tuple[float, ...] | None:
    """Left, top, width, height of top, left, right, bottom; NaN where it has no area, None where one is no number."""
    try:
        top, left, right, bottom = map(float, words)
    except ValueError:
        return None
    box = (left, top, right - left, bottom - top)
    return box if math.isfinite(sum(box)) and box[2] > 0 and box[3] > 0 else (math.nan,) * 4


def _cut_faces(base: Path, root: Path) -> Listing | None:
    """The copy ExpW_image_align_filtrate: aligned faces in folders of class names."""
    listing = Listing("", CLASSES[:7], {})
    found = class_folders(base, root, listing.ignored, listing.faults)
    named = {word: canonical_class(word) for word in sizes_of(found)}
    if not named or not set(named.values()) <= set(listing.classes) or not distinct(found, named):
        return None
    sizes: Counter[str] = Counter()
    for part, folders in found.items():
        paths, words = rows_of(folders, named)
        sizes.update(words)
        listing.parts[part] = part_of(Files(paths), below(root, paths), words, listing.classes, listing.ignored)
    listing.layout = f"{'|'.join(found)}/<class>/".removeprefix("all/")
    listing.sure = bare(base.name) == "expwimagealignfiltrate" or distance(sizes, list(PUBLISHED.values())) <= FAR
    listing.notes.append("this copy does not say which faces are of one photograph, so a cut may part them")
    return listing


INFO = DatasetInfo(
    name="expw",
    classes=CLASSES[:7],
    description="ExpW: 91 793 faces in web photographs, seven classes; no official parts",
    read=read_expw,
    size=224,
    channels=3,
    published=PUBLISHED,
    licence="free to download, for non-commercial research only (CUHK); the photographs belong to their owners",
)
