"""A folder of the user's own: train|val|test/<class>/ or <class>/, any class names."""

from pathlib import Path

from fer_fast.data.files import bases, shown
from fer_fast.data.folders import class_folders, distinct, rows_of
from fer_fast.data.labels import CLASSES, canonical_class
from fer_fast.data.listing import Listing
from fer_fast.data.lists import below, part_of
from fer_fast.data.pictures import Files
from fer_fast.data.table import DatasetInfo


def read_folder(root: Path) -> Listing | None:
    """Reads train|val|test/<class>/*, or <class>/* as the part "all"; a folder around that does not matter.

    The classes are the folders of the training part, sorted. Where all of them are known names of expressions and no
    two are the same expression, they get the canonical names, in the order that all datasets have.
    """
    for base in bases(root, ()):
        listing = Listing("", (), {}, sure=False)
        found = class_folders(base, root, listing.ignored, listing.faults)
        words = set(found.get("train") or [word for folders in found.values() for word in folders])
        if len(words) < 2:
            continue
        named = {word: canonical_class(word) for folders in found.values() for word in folders}
        if None in named.values() or not distinct(found, named):
            named = {word: word for word in named}
        known = {named[word] for word in words}
        order = CLASSES if known <= set(CLASSES) else sorted(known)
        listing.classes = tuple(name for name in order if name in known)
        for part, folders in found.items():
            listing.faults += [
                f"{shown(base)}: {part} has the class {shown(word)}, train has not: "
                + ", ".join(map(shown, listing.classes))
                for word in folders
                if named[word] not in known
            ]
            paths, names = rows_of({word: inside for word, inside in folders.items() if named[word] in known}, named)
            if paths:
                listing.parts[part] = part_of(Files(paths), below(root, paths), names, listing.classes, listing.ignored)
        listing.layout = f"{'|'.join(found)}/<class>/".removeprefix("all/")
        return listing
    return None


INFO = DatasetInfo(
    name="folder",
    classes=(),
    description="a folder of your own: train|val|test/<any class names>/, or <any class names>/",
    read=read_folder,
    size=224,
    channels=3,
)
