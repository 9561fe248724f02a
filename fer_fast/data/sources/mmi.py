"""MMI as people have it: Sessions/<number>/ with a video, what it shows in xml, and from where it was taken."""

import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from fer_fast.data.files import IMAGE_SUFFIXES, bases, files_ending, find, list_folders, shown
from fer_fast.data.labels import CLASSES
from fer_fast.data.listing import Listing, Part
from fer_fast.data.sequences import FRAMES, middle, some, too_short
from fer_fast.data.table import DatasetInfo
from fer_fast.data.videos import STILL, VIDEO_SUFFIXES, Frames, View, count_frames
from fer_fast.errors import InputError

EXPRESSIONS = tuple(name for name in CLASSES if name not in ("neutral", "contempt"))
NUMBERED = dict(enumerate(("anger", "disgust", "fear", "happiness", "sadness", "surprise"), 1))
SEQUENCES = dict(zip(NUMBERED.values(), (33, 32, 28, 42, 32, 41), strict=True))
FRONTAL, PROFILE, DUAL = "0", "1", "2"  # views of a track
# Which half of a dual view is the frontal one: no file of a session says it, and people sat on either side.
FRONTAL_HALF: dict[str, View] = dict.fromkeys(("S001", "S002", "S017"), "right") | dict.fromkeys(
    ("S003", "S005", "S006", "S015", "S016"), "left"
)

_PARENTS = {"mmi", "mmidatabase", "mmifacialexpressiondatabase"}
_RECORDING = re.compile(r"(S\d+)-\d+", re.IGNORECASE)
_XML_BYTES = 1 << 20
_LONGEST = 9  # digits of an emotion


class _Session(NamedTuple):
    """A session that is used: the file and the frame of each of its pictures."""

    name: str
    files: list[Path]
    frames: list[int]
    view: View
    label: int
    subject: str


def read_mmi(root: Path, stills: bool = False) -> Listing | None:
    """The three middle frames of the frontal video of each session that shows one of six expressions.

    Args:
        root: of the user.
        stills: whether to take the photographs of sessions that have no video, too.

    Raises:
        InputError: a copy in which no session can be used.
    """
    found = next(filter(None, (_sessions(base, root) for base in bases(root, _PARENTS))), None)
    if found is None:
        return None
    listing = Listing("sessions, three middle frames of the frontal view", EXPRESSIONS, {}, faces="align")
    sessions, guesses = [], defaultdict(list)
    for folder in list_folders(found, within=root):
        try:
            if session := _session(folder, root, stills, listing, guesses):
                sessions.append(session)
        except InputError as error:
            listing.faults.append(str(error))
        except OSError as error:
            listing.faults.append(f"{shown(error.filename)} cannot be read: {error.strerror}")
    if not sessions and not listing.faults:
        reasons = "; ".join(f"{n} {reason}" for reason, n in listing.ignored.items())
        raise InputError(f"{shown(found)} has no session of MMI that can be used: {reasons}")
    videos = [session for session in sessions if session.frames[0] != STILL]
    listing.problems += too_short((session.name, len(session.frames)) for session in videos)
    for guess, names in guesses.items():
        listing.notes += some(names, guess)
    listing.parts["all"] = _part(sessions, root)
    listing.sequences = len(videos)
    return listing


def _sessions(base: Path, root: Path) -> Path | None:
    """The folder Sessions in `base`, or `base` itself, if a numbered folder in it holds a recording."""
    found = find(base, "Sessions", within=root) or base
    folders = list_folders(found, within=root) if found.is_dir() else ()
    sessions = (folder for folder in folders if folder.name.isdecimal())
    files = (file for folder in sessions for file in files_ending(folder, (".xml", *VIDEO_SUFFIXES), root))
    return found if any(_RECORDING.match(file.name) for file in files) else None


def _session(
    folder: Path, root: Path, stills: bool, listing: Listing, guesses: dict[str, list[str]]
) -> _Session | None:
    """None where it is left aside; `listing` says why. `guesses` takes what is not told -> names.

    Raises:
        InputError: its xml cannot be read, or its video cannot be opened.
    """
    annotations, videos, images = (
        [file for file in files_ending(folder, endings, root) if _RECORDING.match(file.name)]
        for endings in ((".xml",), VIDEO_SUFFIXES, IMAGE_SUFFIXES)
    )
    emotion = _emotion([file for file in annotations if _RECORDING.fullmatch(file.stem)], listing)
    if emotion is None:
        return None
    view = _track_view(find(folder, "session.xml", within=root))
    if view not in (None, FRONTAL, DUAL):
        listing.ignored["sessions in profile" if view == PROFILE else "sessions of an unknown view"] += 1
        return None
    if not videos and not (stills and images):
        kind = "with photographs in place of a video (option stills)" if images else "without a video"
        listing.ignored[f"sessions {kind}"] += 1
        return None
    if len(videos) > 1:
        listing.ignored["further videos of a session"] += len(videos) - 1
    files, frames = _middle(min(videos, key=lambda file: len(file.stem))) if videos else (images, [STILL] * len(images))
    subject = _RECORDING.match(files[0].name)[1].upper()
    name = f"{folder.name}/{files[0].name}"
    if view is None:
        guesses["do not say their view, and are taken as frontal"].append(name)
    if view == DUAL and subject not in FRONTAL_HALF:
        guesses["show two views, of which the left is taken as the frontal one"].append(name)
    half = FRONTAL_HALF.get(subject, "left") if view == DUAL else "lying"
    return _Session(name, files, frames, half, EXPRESSIONS.index(NUMBERED[emotion]), subject)


def _middle(video: Path) -> tuple[list[Path], list[int]]:
    try:
        frames = middle(range(count_frames(video)))
    except InputError as error:
        raise InputError(f"{shown(video)}: {error}") from None
    return [video] * len(frames), frames


def _emotion(files: list[Path], listing: Listing) -> int | None:
    """The number of the emotion that the xml files of a recording (not the -oao_aucs ones) say; None where it is none
    of the six, and `listing` says why."""
    values = set()
    for path in files:
        tags = _elements(path, "metatag")
        values.update(tag.get("value", "").strip() for tag in tags if tag.get("name", "").lower() == "emotion")
    value = next(iter(values), None)
    if value is None:
        listing.ignored["sessions without an emotion tag"] += 1
    elif len(values) > 1 or not value.isdecimal() or not value.strip("0") or len(value) > _LONGEST:
        tags = ", ".join(sorted(ascii(value[:20]) for value in values))
        listing.problems.append(f"{shown(files[0].parent)} is left out: its emotion tags are {tags}, not one number")
    elif int(value) in NUMBERED:
        return int(value)
    else:
        listing.ignored["sessions of other emotions than the six"] += 1
    return None


def _track_view(path: Path | None) -> str | None:
    """`FRONTAL`, `PROFILE`, `DUAL` (both side by side) or something else; None where no session.xml says it."""
    tracks = _elements(path, "track") if path else []
    return next((track["view"].strip() for track in tracks if "view" in track), None)


def _elements(path: Path, tag: str) -> list[dict[str, str]]:
    """The attributes, in lower case, of the elements of this tag, anywhere in an xml file.

    Raises:
        InputError: it is no xml, or defines entities, which can stand for gigabytes or for other files.
    """
    with path.open("rb") as file:
        data = file.read(_XML_BYTES + 1)
    if len(data) > _XML_BYTES:
        raise InputError(f"{shown(path)}: larger than an annotation can be ({_XML_BYTES} bytes)")
    if b"\0" in data or b"<!DOCTYPE" in data or b"<!ENTITY" in data:  # \0: UTF-16, in which the words look otherwise
        raise InputError(f"{shown(path)}: defines a document type or is not in UTF-8; annotations of MMI do neither")
    try:
        elements = ElementTree.fromstring(data).iter()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{shown(path)}: not an xml file that can be read ({error})") from None
    return [
        {key.lower(): value for key, value in element.attrib.items()}
        for element in elements
        if element.tag.rpartition("}")[2].lower() == tag
    ]


def _part(sessions: list[_Session], root: Path) -> Part:
    rows = [(session, *picture) for session in sessions for picture in zip(session.files, session.frames, strict=True)]
    at = ("" if frame == STILL else f":{frame}" for _, _, frame in rows)
    return Part(
        Frames([file for _, file, _ in rows], [frame for *_, frame in rows], [session.view for session, *_ in rows]),
        np.array([session.label for session, *_ in rows], np.int64),
        tuple(shown(file.relative_to(root)) + frame for (_, file, _), frame in zip(rows, at, strict=True)),
        subjects=tuple(session.subject for session, *_ in rows),
        groups=tuple(session.name for session, *_ in rows),
    )


INFO = DatasetInfo(
    name="mmi",
    classes=EXPRESSIONS,
    description="MMI: 208 frontal videos of 30 people in a laboratory, six classes, ten folds by subject",
    read=read_mmi,
    size=64,
    channels=1,
    published={"all": {name: FRAMES * n for name, n in SEQUENCES.items()}},
    licence="on request from its authors, for research only; images must not be passed on",
)
