"""FER2013 as people have it: csv with pixels as text, folders of images, shards, parquet; the layout is found out."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from fer_fast.data.archives import read_webdataset, unpacked
from fer_fast.data.files import bases, find, shown
from fer_fast.data.folders import SPLIT_WORDS, class_folders
from fer_fast.data.labels import CLASSES, FAR, Order, canonical_class, distance
from fer_fast.data.listing import Listing, Part
from fer_fast.data.lists import meanings
from fer_fast.data.pictures import Files, Pictures
from fer_fast.data.table import DatasetInfo
from fer_fast.data.tables import PixelTable, TextPixels, read_labelled, read_pixel_table, table_files
from fer_fast.errors import InputError

SIZE = 48
NUMBERED = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
PUBLISHED = {
    "train": dict(zip(NUMBERED, (3995, 436, 4097, 7215, 4830, 3171, 4965), strict=True)),
    "val": dict(zip(NUMBERED, (467, 56, 496, 895, 653, 415, 607), strict=True)),
    "test": dict(zip(NUMBERED, (491, 55, 528, 879, 594, 416, 626), strict=True)),
}
PARTS = {**SPLIT_WORDS, "publictest": "val", "privatetest": "test"}  # folders, tables and values of the column Usage

_CLASSES = CLASSES[:7]
_ORDERS = (
    Order("official", dict(enumerate(NUMBERED))),
    Order("alphabetical", dict(enumerate(sorted(NUMBERED)))),
)
# The copy images/train|validation, whose classes have the official sizes with both parts together.
_RESPLIT_TRAIN = dict(zip(NUMBERED, (3993, 436, 4103, 7164, 4938, 3205, 4982), strict=True))
_HELD_OUT = {  # the only held-out part of a copy: sizes, and what to know
    "private": (PUBLISHED["test"], None),
    "public": (PUBLISHED["val"], "there are no private test images; the public ones are the test part"),
    "both": (
        {name: PUBLISHED["val"][name] + PUBLISHED["test"][name] for name in NUMBERED},
        "the test part holds the public and the private images and does not tell them apart",
    ),
    "re-split": (
        dict(zip(NUMBERED, (960, 111, 1018, 1825, 1139, 797, 1216), strict=True)),
        "this copy is re-split across the official parts: validation is the test part here, and numbers on it do not "
        "compare with published ones",
    ),
}
_SIZES = (*PUBLISHED.values(), _RESPLIT_TRAIN, *(sizes for sizes, _ in _HELD_OUT.values()))
_PREFIXES = {"training": "train", "publictest": "val", "privatetest": "test"}  # of file names
_WHOLE = ("fer2013.csv", "icml_face_data.csv")
_PACKED = ("fer2013.tar.gz", "fer2013.tgz", "fer2013.tar")
_INNER = ("fer2013", "images", "data")  # folders around the data
_NO_LABEL = "-1"


@dataclass
class Copy:
    """All pictures of a copy, in the order in which they are kept.

    Args:
        layout: for people.
        pictures: (n).
        labels: int64 (n,), index into the seven classes; -1 where there is none.
        parts: of each, "train", "val" (public), "test" (private, or both where the copy does not tell) or "", unknown.
        names: of each.
        sure: whether it can be nothing else than FER2013.
    """

    layout: str
    pictures: Pictures
    labels: np.ndarray
    parts: Sequence[str]
    names: Sequence[str]
    sure: bool = False
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    unlabelled: int | None = None


def read_fer2013(root: Path, *, order: str | None = None, joined: bool = False) -> Listing | None:
    """Reads the names of a copy.

    "val" is the public test part and "test" the private one, told by the column Usage, the prefix of file names
    (`PublicTest_`, `PrivateTest_`) or the name of the folder. A copy that holds out one part only is reported on it as
    "test", whatever it is called; "val" is then cut from the training images.

    Args:
        root: the folder with the data, a folder around it, or the csv itself.
        order: what class numbers without names mean, "official" or "alphabetical"; those of a csv are official.
        joined: the protocol of Ad-Corre: "test" is the public and the private part together. "val" is then cut from the
            training images, so that what picks a model is not what is reported.

    Raises:
        InputError: numbers of classes that cannot be told, a table without its columns, `joined` without both parts.
    """
    copy = read_copy(root, order)
    return None if copy is None else _listing(copy, root, joined)


def read_copy(root: Path, order: str | None = None) -> Copy | None:
    """All pictures of FER2013 below `root`, in the order in which they are kept; None where there is no FER2013."""
    if root.is_file():
        if root.suffix.lower() == ".csv":
            copy = _tables([(root, None)])
            copy.sure = root.name.lower() in _WHOLE  # others have the columns of FER2013, and further classes
            return copy
        return _unpacked(root) if root.name.lower() in _PACKED else None
    copies = (form(base, root, order) for base in bases(root, _INNER) for form in _FORMS)
    return next((copy for copy in copies if copy is not None), None)


def _listing(copy: Copy, root: Path, joined: bool) -> Listing:
    """The parts that are trained on and reported, out of those the copy has."""
    parts, known = np.array(copy.parts), copy.labels >= 0
    rows = {part: found for part in PUBLISHED if len(found := np.flatnonzero(known & (parts == part)))}
    if stray := int((known & (parts == "")).sum()):
        copy.ignored["images of no known part"] += stray
    notes, published = list(copy.notes), dict(PUBLISHED)
    if not {"val", "test"} <= rows.keys():
        kind = _report_the_only_one(copy, rows, notes, published)
        if joined and kind != "both":
            raise InputError(f"{shown(root)} ({copy.layout}) has not both test parts, which joined puts together")
        notes.append("there is no validation part; it is cut from the training images")
    elif joined:
        rows["test"] = np.concatenate([rows.pop("val"), rows["test"]])
        published["test"] = _HELD_OUT["both"][0]
    whole = Part(copy.pictures, copy.labels, tuple(copy.names))
    listing = Listing(
        layout=copy.layout,
        classes=_CLASSES,
        parts={part: whole.take(chosen) for part, chosen in rows.items()},
        sure=copy.sure,
        problems=[*copy.problems, *(f"no {part} images" for part in ("train", "test") if part not in rows)],
        notes=notes,
        ignored=copy.ignored,
        unlabelled=copy.unlabelled,
        faults=copy.faults,
        published=published,
    )
    listing.sure |= listing.counts().get("train") in (PUBLISHED["train"], _RESPLIT_TRAIN)
    return listing


def _report_the_only_one(
    copy: Copy, rows: dict[str, np.ndarray], notes: list[str], published: dict[str, Mapping[str, int]]
) -> str | None:
    """Makes the only held-out part of a copy its test part; which of the known ones it is, by its sizes."""
    name = "val" if "val" in rows else "test"
    if name not in rows:
        return None
    rows["test"] = rows.pop(name)
    sizes = dict(zip(_CLASSES, np.bincount(copy.labels[rows["test"]], minlength=7).tolist(), strict=True))
    away, kind = min((distance(sizes, [expected]), kind) for kind, (expected, _) in _HELD_OUT.items())
    if away > FAR:
        notes.append("one part is held out; it is the test part, whatever it is called")
        published["test"] = PUBLISHED[name]
        return None
    published["test"], note = _HELD_OUT[kind]
    notes += [note] if note else []
    if kind == "re-split":
        published["train"] = _RESPLIT_TRAIN
    return kind


def _csv(base: Path, root: Path, order: str | None) -> Copy | None:
    """fer2013.csv or icml_face_data.csv, else train.csv and those beside it, else the packed fer2013.csv."""
    whole, packed = find(base, *_WHOLE, within=root), find(base, *_PACKED, within=root)
    apart = [(found, part) for word, part in PARTS.items() if (found := find(base, f"{word}.csv", within=root))]
    copy = None
    if whole or any(part == "train" for _, part in apart):
        copy = _tables([(whole, None)] if whole else apart)
    if copy is None:
        return None if packed is None else _unpacked(packed)
    if beside := (len(apart) if whole else 0) + (packed is not None):
        copy.ignored[f"tables and archives beside {copy.layout}"] += beside
    return copy


def _unpacked(archive: Path) -> Copy:
    table = unpacked(archive, _WHOLE[0])
    if table is None:
        raise InputError(f"{shown(archive)} holds no {_WHOLE[0]}")
    copy = _tables([(table, None)], f"{archive.name}:{_WHOLE[0]}")
    copy.notes.append(f"{_WHOLE[0]} is unpacked into the cache, {shown(table)}")
    return copy


def _tables(tables: Sequence[tuple[Path, str | None]], called: str | None = None) -> Copy | None:
    """Tables (path, part) with the columns emotion and pixels, and Usage where there is no part; `called` for people.

    A held-out table without emotion is counted as unlabelled: the competition gave its test images so. None where the
    training table has no pixels, and is of another dataset.
    """
    read, unlabelled = [], None
    for path, part in tables:
        table = read_pixel_table(path, SIZE)
        if table is None and part == "train":
            return None
        needed = ("emotion", "usage")[: 1 if part else 2]
        missing = ["pixels"] if table is None else [name for name in needed if name not in table.columns]
        if missing == ["emotion"] and part in ("val", "test"):
            unlabelled = (unlabelled or 0) + len(table.lines)
        elif missing:
            wanted = ", ".join((*needed, "pixels"))
            raise InputError(f"{shown(path)}: no column {missing[0]!r} in the first line; needed: {wanted}")
        else:
            read.append((path, table, *_rows(path, table, part)))
    return Copy(
        layout=called or " + ".join(path.name for path, *_ in read),
        pictures=TextPixels(
            [path for path, table, *_ in read for _ in table.lines],
            np.concatenate([table.pictures.spans for _, table, *_ in read]),
            SIZE,
        ),
        labels=np.concatenate([labels for _, _, labels, *_ in read]),
        parts=[part for _, _, _, parts, _ in read for part in parts],
        names=[f"{called or path.name}:{line}" for path, table, *_ in read for line in table.lines],
        sure=True,
        faults=[fault for *_, faults in read for fault in faults],
        unlabelled=unlabelled,
    )


def _rows(path: Path, table: PixelTable, part: str | None) -> tuple[np.ndarray, list[str], list[str]]:
    """Label and part of each row, and a line for each row that does not tell them."""
    emotions = table.columns["emotion"]
    usages = table.columns.get("usage") or [part] * len(emotions)
    labels, parts = [_number(emotion) for emotion in emotions], [PARTS.get(usage.lower(), "") for usage in usages]
    faults = [
        f"{shown(path)}: line {line}: "
        + (
            f"emotion is {emotion!r}; allowed: 0 to 6 or a class name"
            if label < 0
            else f"Usage is {usage!r}; allowed: Training, PublicTest, PrivateTest"
        )
        for line, emotion, label, usage, place in zip(table.lines, emotions, labels, usages, parts, strict=True)
        if label < 0 or not place
    ]
    return np.array(labels, np.int64), parts, faults


@lru_cache(64)
def _number(emotion: str) -> int:
    """What a csv says of the class, a number or a name -> index into the classes; -1 where it is neither."""
    name = canonical_class(emotion) or dict(zip("0123456", NUMBERED, strict=True)).get(emotion)
    return _CLASSES.index(name) if name in _CLASSES else -1


def _folders(base: Path, root: Path, order: str | None) -> Copy | None:
    """train|test/<class>/*: the prefix of a file name outweighs the folder it lies in."""
    ignored: Counter[str] = Counter()
    paths, words, folders = [], [], []
    for folder, classes in class_folders(base, root, ignored).items():
        for word, found in classes.items():
            paths += found
            words += [word] * len(found)
            folders += [folder] * len(found)
    named = [_PREFIXES.get(path.rpartition("/")[2].partition("_")[0].lower()) for path in paths]
    parts = [name or folder for name, folder in zip(named, folders, strict=True)]
    faults = [
        f"{shown(path)}: a {name} image by its name, in the folder of {folder}"
        for path, name, folder in zip(paths, named, folders, strict=True)
        if name not in (None, folder) and folder != "all" and "train" in (name, folder)
    ]
    labels = None if "all" in parts else _labels(words, parts, order, base, faults)
    if labels is None:
        return None
    return Copy(
        layout=f"folders {_in_order(folders)}, of classes",
        pictures=Files(paths),
        labels=labels,
        parts=parts,
        names=[path.removeprefix(f"{root}/") for path in paths],
        sure=any(named),
        faults=faults,
        ignored=ignored,
    )


def _shards(base: Path, root: Path, order: str | None) -> Copy | None:
    """A WebDataset."""
    samples = read_webdataset(base)
    if samples is None:
        return None
    classes, faults = samples.classes or (), list(samples.faults)
    words = [classes[label] if label < len(classes) else str(label) for label in samples.labels.tolist()]
    parts = [PARTS.get(word.lower(), "") for word in samples.words]
    labels = _labels(words, parts, order, base, faults)
    if labels is None:
        return None
    return Copy(
        f"WebDataset in {_in_order(samples.words)}",
        samples.pictures,
        labels,
        parts,
        samples.names,
        problems=samples.problems,
        faults=faults,
    )


def _parquet(base: Path, root: Path, order: str | None) -> Copy | None:
    """Parquet or arrow files of Hugging Face's datasets."""
    everything = table_files(base)
    files = {word: found for word, found in everything.items() if word in PARTS}
    table = read_labelled([file for found in files.values() for file in found]) if files else None
    if table is None:
        return None
    classes, faults = table.classes or (), []
    words = [classes[label] if 0 <= label < len(classes) else str(label) for label in table.labels.tolist()]
    # A file's part, as many times as it has rows.
    parts = np.repeat([PARTS[word] for word, found in files.items() for _ in found], table.sizes).tolist()
    labels = _labels(words, parts, order, base, faults)
    if labels is None:
        return None
    return Copy(
        f"tables {_in_order(files)}",
        table.pictures,
        labels,
        parts,
        table.names,
        faults=faults,
        ignored=+Counter({"tables of no known part": len(everything) - len(files)}),
        unlabelled=int((table.labels < 0).sum()) or None,
    )


def _labels(
    words: Sequence[str], parts: Sequence[str], order: str | None, where: Path, faults: list[str]
) -> np.ndarray | None:
    """Names or numbers of classes -> indices into the classes, -1 where a word is neither; None where most are not.

    What numbers mean is told by the sizes of the training part.
    """
    seen = Counter(words)
    del seen[_NO_LABEL]
    strays = [word for word in seen if canonical_class(word) not in _CLASSES]
    if 2 * len(strays) > len(seen):
        strays = []
    train = Counter(word for word, part in zip(words, parts, strict=True) if part == "train") or seen
    counts = {word: train[word] for word in seen if word not in strays}
    named = meanings(counts, _CLASSES, _ORDERS, _SIZES, order, where)
    if named is None or any(canonical_class(word) for word in strays):  # contempt: another dataset
        return None
    faults += [f"{shown(where)}: {shown(word)} is no class; allowed: {', '.join(_CLASSES)}" for word in strays]
    indices = {word: _CLASSES.index(name) for word, name in named.items()}
    return np.array([indices.get(word, -1) for word in words], np.int64)


def _in_order(words: Iterable[str]) -> str:
    """Words of parts, once each, training first."""
    places = {word: place for place, word in enumerate(PARTS)}
    return ", ".join(sorted(dict.fromkeys(words), key=lambda word: places.get(word.lower(), len(places))))


_FORMS = (_csv, _folders, _shards, _parquet)

INFO = DatasetInfo(
    name="fer2013",
    classes=_CLASSES,
    description="FER2013: csv, folders, WebDataset or parquet; 48×48 gray, 7 classes",
    read=read_fer2013,
    size=SIZE,
    channels=1,
    published=PUBLISHED,
    licence="Kaggle's competition of 2013, for research; the photographs belong to their owners",
)
