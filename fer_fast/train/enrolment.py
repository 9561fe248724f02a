"""Custom classes: each is the mean direction of a few images, recognised without training (Lu & Wu 2022, section 3)."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fer_fast import losses
from fer_fast.data.dataset import FaceDataset
from fer_fast.data.progress import watched
from fer_fast.errors import InputError
from fer_fast.registry import available
from fer_fast.train.checkpoint import write_text
from fer_fast.train.evaluation import Trained, match_classes, predict
from fer_fast.train.folder import make_folder, refuse_results

UNKNOWN = -1  # the prediction where no cosine exceeds the threshold


@dataclass(frozen=True)
class Enrolment:
    """How classes are enrolled and tried; the defaults are the paper's, which tries ten images of each class.

    Args:
        samples: images of each class that its prototype is made of.
        threshold: what the largest cosine has to exceed, -1 or more and below 1.
        verify: images of each class that are tried; None tries all.
        seed: decides which images are drawn.
    """

    samples: int = 10
    threshold: float = 0.6
    verify: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, count in (("enrol", self.samples), ("verify", self.verify)):
            if count is not None and count < 1:
                raise InputError(f"{name} is {count}; allowed: 1 or more images a class")
        if not -1 <= self.threshold < 1:
            raise InputError(f"threshold is {self.threshold}; allowed: a cosine, -1 or more and below 1")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed is {self.seed}; allowed: 0 to 2^63 - 1")


def prototypes(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The directions of classes, c_k = normalise(mean of x_i / ‖x_i‖ over y_i = k) (equation 4): (classes, d).

    Args:
        features: (n, d).
        labels: int64 (n,), 0 to classes - 1; each comes at least once.
        classes: how many there are.
    """
    sums = features.new_zeros(classes, features.shape[1]).index_add_(0, labels, F.normalize(features, dim=1))
    return F.normalize(sums, dim=1)  # a sum has the direction of its mean


def recognise(features: Tensor, directions: Tensor, threshold: float) -> Tensor:
    """The class of the largest cosine where that exceeds the threshold, else `UNKNOWN`: int64 (n,).

    Args:
        features: (n, d).
        directions: (C, d) of length one.
        threshold: for the cosine.
    """
    best, chosen = (F.normalize(features, dim=1) @ directions.T).max(1)
    return chosen.where(best > threshold, UNKNOWN)


def draw(dataset: FaceDataset, count: int, seed: int, classes: tuple[str, ...], purpose: str) -> FaceDataset:
    """So many images of each of these classes, drawn at random.

    Raises:
        InputError: a class has fewer.
    """
    generator, labels = torch.Generator().manual_seed(seed), match_classes(dataset, classes)
    rows = []
    for number, name in enumerate(classes):
        of_class = (labels == number).nonzero().flatten()
        if len(of_class) < count:
            raise InputError(
                f"{purpose} takes {count} {dataset.split} images of each class; {name} has {len(of_class)}"
            )
        rows.append(of_class[torch.randperm(len(of_class), generator=generator)[:count]])
    return dataset.subset(torch.cat(rows))


def evaluate_enrolment(
    trained: Trained, enrolled: FaceDataset, verified: FaceDataset, how: Enrolment, out: Path | None = None
) -> dict[str, Any]:
    """Enrol classes from images of one split and recognise those of another, by no class the model was trained on.

    Args:
        trained: a checkpoint, whose classifier tells classes by direction.
        enrolled: the split that prototypes are drawn from.
        verified: the split that is recognised; it has no image of the first.
        how: numbers of images, threshold and seed.
        out: where metrics.json is written, if anywhere.

    Returns:
        "accuracy", "average_accuracy" (the mean of the recalls of classes present), "per_class" {name: "recall",
        "unknown", "support"}, "confusion_matrix" (its last column is "unknown"), "enrol" {"samples", "threshold",
        "verify", "seed", "unknown": the share of images}, "classes", "recipe" (of the checkpoint), "split", "images",
        "seconds", "data" (digests).

    Raises:
        InputError: a classifier of another kind, a class with too few images, or a folder that holds metrics.
    """
    _check_classifier(trained)
    if out is not None:
        refuse_results(out, "metrics.json")
    started = time.perf_counter()
    there = torch.cat((enrolled.labels, match_classes(verified, enrolled.classes))).unique()
    classes = tuple(enrolled.classes[number] for number in there.tolist())
    enrolled = draw(enrolled, how.samples, how.seed, classes, "enrol")
    if how.verify is not None:
        verified = draw(verified, how.verify, how.seed, classes, "verify")
    directions = prototypes(_features(trained, enrolled), match_classes(enrolled, classes), len(classes))
    predictions = recognise(_features(trained, verified), directions, how.threshold)
    metrics = {
        **_score(match_classes(verified, classes), predictions, classes),
        "recipe": trained.config.recipe,
        "split": verified.split,
        "images": len(verified),
        "seconds": time.perf_counter() - started,
        "data": {"enrolled": enrolled.digest(), verified.split: verified.digest()},
        "notes": list(verified.notes),
        "enrol": {**asdict(how), "unknown": float((predictions == UNKNOWN).double().mean())},
    }
    if out is not None:
        make_folder(out)
        write_text(out / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    return metrics


def _check_classifier(trained: Trained) -> None:
    if not trained.recogniser.classifier.directional:
        rows = [row.name for row in available() if getattr(getattr(losses, row.cls), "directional", False)]
        raise InputError(
            f"custom classes are told by direction, as {', '.join(rows)} do; the classifier of this checkpoint is "
            f"{trained.recogniser.classifier.name}"
        )


def _features(trained: Trained, dataset: FaceDataset) -> Tensor:
    augment = trained.config.augment
    with watched(f"reading {dataset.split}") as progress:
        features, _ = predict(
            trained.recogniser, dataset.images, augment, trained.hardware, progress=progress, crops=augment.crops
        )
    return features


def _score(labels: Tensor, predictions: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """What there is to say of predictions, of which the last column of the matrix is those that are unknown."""
    wide = len(classes) + 1  # modulo which UNKNOWN is the last column
    table = torch.bincount(labels * wide + predictions % wide, minlength=len(classes) * wide).view(-1, wide)
    support, hits, unknown = table.sum(1), table.diagonal(), table[:, -1]
    present = support > 0
    recall = hits.double() / support
    return {
        "accuracy": float(hits.sum().double() / len(labels)),
        "average_accuracy": float(recall[present].mean()),
        "per_class": {
            name: {
                "recall": float(r) if n else None,
                "unknown": float(u.double() / n) if n else None,
                "support": int(n),
            }
            for name, r, u, n in zip(classes, recall, unknown, support, strict=True)
        },
        "confusion_matrix": table.tolist(),
        "classes": list(classes),
    }
