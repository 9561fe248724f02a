"""One dataset to train and select on, another to report on: classes of the same name are the same class."""

from dataclasses import replace

import torch

from fer_fast.data.dataset import FaceDataset
from fer_fast.data.opened import Drawn, OnDisk
from fer_fast.data.splits import absence
from fer_fast.errors import InputError


class Crossed:
    """Two datasets as one, whose test split is the second.

    Args:
        trained: gives train and val.
        reported: gives test, its official test part or else everything.

    Attributes:
        notes: what is known of the copies as a whole, a line each.
        folds: None; neither is cut into folds.
    """

    folds: None = None

    def __init__(self, trained: Drawn | OnDisk, reported: Drawn | OnDisk):
        self.trained, self.reported = trained, reported
        self.notes = tuple(f"{data.info.name}: {line}" for data in (trained, reported) for line in data.notes)
        whole = isinstance(reported, OnDisk) and "test" not in reported.listing.parts
        self.notes += (f"reported on {reported.info.name}, {'all of it' if whole else 'its test part'}",)
        faces = [data.preparation.faces for data in (trained, reported) if isinstance(data, OnDisk)]
        if len(set(faces)) > 1:
            self.notes += (f"faces: {faces[0]} in training, {faces[1]} in test, so pictures in both may go unseen",)

    def split(self, split: str) -> FaceDataset:
        """One split; what it has of classes that are not trained on is left out of test.

        Raises:
            InputError: data that cannot be read, or no image of a class that is trained on.
        """
        if split != "test":
            return self.trained.split(split)
        drawn = isinstance(self.trained, Drawn)
        classes = self.trained.split("val").classes if drawn else self.trained.listing.classes
        return of_classes(self.reported.split("test"), classes)

    def duplicated(self, split: str) -> int:
        """How many images of a split are also, pixel for pixel or nearly, in the test split; of val none is."""
        return self.trained.duplicated(split) if split == "train" else 0


def of_classes(dataset: FaceDataset, classes: tuple[str, ...]) -> FaceDataset:
    """The images of these classes, with a note of how many others there were and of the classes that have none.

    Raises:
        InputError: there is no such image.
    """
    counts = dict(zip(dataset.classes, dataset.class_counts().tolist(), strict=True))
    others = {name: count for name, count in counts.items() if count and name not in classes}
    if not (present := [name for name in classes if counts.get(name)]):
        raise InputError(
            f"the {dataset.split} data has images of {', '.join(others)} and none of what is trained on: "
            f"{', '.join(classes)}"
        )
    notes = dataset.notes
    if others:
        known = torch.tensor([name in classes for name in dataset.classes])
        dataset = dataset.subset(known[dataset.labels].nonzero().flatten())
        named = ", ".join(f"{count} of {name}" for name, count in others.items())
        notes += (f"{sum(others.values())} images of classes that are not trained on are left out: {named}",)
    where = f"the {dataset.split} split"
    return replace(dataset, notes=notes + absence(where, [name for name in classes if name not in present]))
