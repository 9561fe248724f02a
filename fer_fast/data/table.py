"""One row of the table of datasets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources

from fer_fast.data.dataset import FaceDataset
from fer_fast.data.listing import Listing


@dataclass(frozen=True)
class DatasetInfo:
    """One dataset.

    Args:
        name: what users type.
        classes: names of the classes, in the order of the labels.
        description: one line for `fer-fast list`.
        read: `read(root, **options) -> Listing | None` of a copy on disk; None where the folder holds something else.
            Raises InputError where it is this dataset and cannot be told what is in it. Its keywords are its options.
        draw: for a dataset that is drawn: `draw(*, split, seed, **options) -> FaceDataset`.
        size, channels: of the images where the user says nothing.
        published: part -> class -> images, as published.
        licence: one line: who gives it to whom, and for what.
        extends: the dataset that lies in every copy of this one too; where both are found it is this one.
    """

    name: str
    classes: tuple[str, ...]
    description: str
    read: Callable[..., Listing | None] | None = None
    draw: Callable[..., FaceDataset] | None = None
    size: int = 48
    channels: int = 1
    published: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    licence: str = ""
    extends: str = ""

    @property
    def needs_root(self) -> bool:
        """Whether a folder of the user is read."""
        return self.read is not None


def page(name: str) -> str:
    """The page of a dataset, Markdown."""
    return resources.files("fer_fast.data").joinpath("pages", f"{name}.md").read_text(encoding="utf-8")
