"""predictions.safetensors: what a model said of each image of the reported split, so that models can be compared."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fer_fast.data.dataset import FaceDataset
from fer_fast.errors import InputError
from fer_fast.train.checkpoint import CHECKPOINT
from fer_fast.written import write_bytes

PREDICTIONS = "predictions.safetensors"
_FORMAT = "fer-fast predictions 1"


class Predictions(NamedTuple):
    """Predictions in the order of the images.

    Attributes:
        labels: int64 (n,), index into the classes.
        scores: float32 (n, C) probabilities.
        classes: the C names.
        split: of the images.
        data: SHA-256 of the images, their labels and classes (`FaceDataset.digest`).
        names: SHA-256 of the names of the images in their order, empty where they have none.
    """

    labels: Tensor
    scores: Tensor
    classes: tuple[str, ...]
    split: str
    data: str
    names: str

    def confusion(self) -> Tensor:
        """How many images of each class (rows) were taken for each: int64 (C, C)."""
        classes = len(self.classes)
        pairs = self.labels * classes + self.scores.argmax(1)
        return torch.bincount(pairs, minlength=classes**2).view(classes, classes)

    def same_images(self, other: "Predictions") -> bool:
        """Whether both are of the same images in the same order, possibly of another size."""
        named = bool(self.names) and self.names == other.names and self.labels.equal(other.labels)
        return self.data == other.data or named


def save_predictions(folder: Path, labels: Tensor, scores: Tensor, classes: tuple[str, ...], of: FaceDataset) -> None:
    """Write predictions on a dataset into a folder.

    Args:
        folder: that is there.
        labels: int64 (n,), index into `classes`.
        scores: (n, C) probabilities.
        classes: those of the model, which may be more than those of the dataset.
        of: the dataset.

    Raises:
        InputError: the file cannot be written.
    """
    metadata = {
        "format": _FORMAT,
        "classes": json.dumps(classes),
        "split": of.split,
        "data": of.digest(),
        "names": hashlib.sha256(json.dumps(of.names).encode()).hexdigest() if of.names else "",
    }
    tensors = {"labels": labels.contiguous(), "scores": scores.float().contiguous()}
    write_bytes(folder / PREDICTIONS, save(tensors, metadata))


def load_predictions(folder: Path) -> Predictions:
    """The predictions in the folder of a run or an evaluation.

    Raises:
        InputError: no such file, or one that fer-fast did not write.
    """
    path = folder / PREDICTIONS
    if not path.is_file():
        checkpoint = folder if (folder / CHECKPOINT).exists() else "RUN"
        raise InputError(
            f"{folder} has no {PREDICTIONS}, which earlier versions did not write; "
            f"make a folder that has it: fer-fast eval --checkpoint {checkpoint} --out DIR"
        )
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("format") != _FORMAT:
                raise InputError(f"{path} holds no predictions of fer-fast (format {about.get('format')!r})")
            labels, scores = (file.get_tensor(name) for name in ("labels", "scores"))
            classes = tuple(json.loads(about["classes"]))
            found = Predictions(labels, scores, classes, *(about[key] for key in ("split", "data", "names")))
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    fits = labels.ndim == 1 and len(labels) > 0 and scores.shape == (len(labels), len(classes))
    if not fits or labels.min() < 0 or labels.max() >= len(classes):
        raise InputError(f"{path} is damaged: {tuple(labels.shape)} labels, {tuple(scores.shape)} scores")
    return found
