"""A folder of the user's own: train|val|test/<class>/, any class names."""

from collections import Counter
from pathlib import Path

import numpy as np

from fer_fast.data.files import list_folders, list_images
from fer_fast.data.listing import Listing, Part
from fer_fast.data.pictures import Files
from fer_fast.data.table import DatasetInfo

SPLIT_WORDS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def read_folder(root: Path) -> Listing | None:
    """Reads train|val|test/<class>/*: the classes are the folders of the training part, sorted."""
    if not root.is_dir():
        return None
    splits = {SPLIT_WORDS[f.name.lower()]: f for f in list_folders(root) if f.name.lower() in SPLIT_WORDS}
    if "train" not in splits:
        return None
    classes = tuple(sorted(folder.name for folder in list_folders(splits["train"])))
    parts, faults, ignored = {}, [], Counter()
    for split, folder in splits.items():
        paths, labels = [], []
        for class_folder in list_folders(folder):
            if class_folder.name not in classes:
                faults.append(f"{class_folder}: no such class in train; it has: {', '.join(classes)}")
                continue
            found = list_images(class_folder)
            paths += found
            labels += [classes.index(class_folder.name)] * len(found)
        if paths:
            names = tuple(str(path.relative_to(root)) for path in paths)
            parts[split] = Part(Files(paths), np.array(labels, np.int64), names)
    return Listing("train|val|test/<class>/", classes, parts, sure=False, faults=faults, ignored=ignored)


INFO = DatasetInfo(
    name="folder",
    classes=(),
    description="a folder of your own: train|val|test/<any class names>/",
    read=read_folder,
    size=224,
    channels=3,
)
