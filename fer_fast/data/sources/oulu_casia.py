"""Oulu-CASIA as people have it: the original pictures or the cut ones, by light and strength."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from fer_fast.data.files import bases, list_folders, list_images, shown
from fer_fast.data.labels import CLASSES, canonical_class
from fer_fast.data.listing import Listing
from fer_fast.data.sequences import FRAMES, Sequence, last, part_of, too_short
from fer_fast.data.table import DatasetInfo
from fer_fast.errors import InputError

EXPRESSIONS = tuple(name for name in CLASSES if name not in ("neutral", "contempt"))
LIGHTS, STRENGTHS = ("VL", "NI"), ("Strong", "Weak", "Dark")
SUBJECTS = 80

_PARENTS = {"oulu", "oulucasia", "oulucasianirvis", "boriginalimg", "originalimg", "preprocessimg", "preprocess"}
_CUT = "_Acropped"  # follows the light in the name of a folder of cut pictures


def read_oulu_casia(
    root: Path,
    light: Literal["VL", "NI"] = "VL",
    strength: Literal["Strong", "Weak", "Dark"] = "Strong",
    cropped: bool | None = None,
) -> Listing | None:
    """The last three frames of each sequence.

    Args:
        root: of the user.
        light: VL, visible, or NI, near infrared.
        strength: of the light.
        cropped: whether to take the pictures that come cut to the face (PreProcess); None takes the original ones
            where a copy has both.

    Raises:
        InputError: an option that does not exist, or a copy without what it asks for.
    """
    for option, value, allowed in (("light", light, LIGHTS), ("strength", strength, STRENGTHS)):
        if value not in allowed:
            raise InputError(f"{option} is {value!r}; allowed for oulu-casia: {', '.join(allowed)}")
    trees: dict[tuple[str, str, bool], Path] = {}
    for key, folder in (found for base in bases(root, _PARENTS) for found in _trees(base, root)):
        trees.setdefault(key, folder)
    if not trees:
        return None
    wanted = [(light, strength, cut) for cut in (False, True) if cropped in (None, cut)]
    chosen = next((key for key in wanted if key in trees), None)
    if chosen is None:
        there = ", ".join(sorted(_folder_name(*key) for key in trees))
        kind = {None: "", False: "original ", True: "cropped "}[cropped]
        raise InputError(f"{shown(root)} has no {kind}{light}/{strength} of Oulu-CASIA; it has: {there}")
    layout = f"{'cropped' if chosen[2] else 'original'} pictures, {_folder_name(*chosen)}, last three frames"
    listing = Listing(layout, EXPRESSIONS, {}, faces="whole" if chosen[2] else "align")
    sequences = list(_sequences(trees[chosen], root, listing))
    listing.problems += too_short((sequence.name, len(sequence.frames)) for sequence in sequences)
    if not any(sequence.frames for sequence in sequences):
        raise InputError(f"{shown(trees[chosen])} has no sequence of Oulu-CASIA with images")
    listing.parts["all"] = part_of(sequences, root)
    listing.sequences = sum(bool(sequence.frames) for sequence in sequences)
    return listing


def _trees(base: Path, root: Path) -> Iterator[tuple[tuple[str, str, bool], Path]]:
    """(light, strength, whether cut) -> folder of the subjects, of those below `base`."""
    for folder in list_folders(base, within=root):
        light, cut = folder.name.upper().removesuffix(_CUT.upper()), folder.name.upper().endswith(_CUT.upper())
        for subjects in list_folders(folder, within=root) if light in LIGHTS else ():
            if subjects.name.capitalize() in STRENGTHS:
                yield (light, subjects.name.capitalize(), cut), subjects


def _sequences(tree: Path, root: Path, listing: Listing) -> Iterator[Sequence]:
    """P001/Anger/000.jpeg and so on; every sequence that there should be, also without pictures."""
    for subject in list_folders(tree, within=root):
        name = subject.name.upper()
        if not (name[:1] == "P" and name[1:].isdecimal()):
            listing.ignored["folders that are no subject (P001)"] += 1
            continue
        missing = set(EXPRESSIONS)
        for folder in list_folders(subject, within=root):
            expression = canonical_class(folder.name)
            if expression not in missing:
                listing.ignored["folders that are no expression of Oulu-CASIA, or one again"] += 1
                continue
            missing.discard(expression)
            frames = last(list_images(folder, listing.ignored, root))
            yield Sequence(frames, EXPRESSIONS.index(expression), name, f"{name}/{folder.name}")
        for expression in sorted(missing):
            yield Sequence([], EXPRESSIONS.index(expression), name, f"{name}/{expression}")


def _folder_name(light: str, strength: str, cut: bool) -> str:
    return f"{light}{_CUT * cut}/{strength}"


INFO = DatasetInfo(
    name="oulu-casia",
    classes=EXPRESSIONS,
    description="Oulu-CASIA: 480 sequences of 80 people in a laboratory, six classes, ten folds by subject",
    read=read_oulu_casia,
    size=64,
    channels=1,
    published={"all": dict.fromkeys(EXPRESSIONS, FRAMES * SUBJECTS)},
    licence="on request from its authors, for research only; images must not be passed on",
)
