"""Classes of a dataset that a model was not trained on, enrolled and recognised (Lu & Wu 2022, section 5.2)."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fer_fast.data.dataset import FaceDataset
from fer_fast.data.progress import watched
from fer_fast.errors import InputError
from fer_fast.page import write_page
from fer_fast.serve.enrolment import (
    NO_CLASS,
    THRESHOLD,
    UNKNOWN,
    check_classifier,
    check_threshold,
    prototypes,
    recognise,
)
from fer_fast.train.evaluation import Trained, match_classes, predict
from fer_fast.train.folder import make_folder, refuse_results
from fer_fast.train.shown import shares
from fer_fast.written import write_text


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
    threshold: float = THRESHOLD
    verify: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, count in (("enrol", self.samples), ("verify", self.verify)):
            if count is not None and count < 1:
                raise InputError(f"{name} is {count}; allowed: 1 or more images a class")
        check_threshold(self.threshold)
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed is {self.seed}; allowed: 0 to 2^63 - 1")


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
    """Enrol classes from images of one split and recognise those of another.

    By the enrolled classes alone, as the paper does; and, before and after, by the model's own classes alone and by
    all, where an enrolled class takes the place of one of the model's that has its name.

    Args:
        trained: a checkpoint, whose classifier tells classes by direction.
        enrolled: the split that prototypes are drawn from.
        verified: the split that is recognised; it has no image of the first.
        how: numbers of images, threshold and seed.
        out: where metrics.json and report.html are written, if anywhere.

    Returns:
        "accuracy", "average_accuracy" (the mean of the recalls of classes present), "per_class" {name: "recall",
        "unknown", "support"}, "confusion_matrix" (its last column is "unknown"), "enrol" {"samples", "threshold",
        "verify", "seed", "unknown": the share of images}, "classes", "recipe" (of the checkpoint), "split", "images",
        "seconds", "data" (digests). "before" holds "classes" (the model's), "confusion_matrix" (how often each is the
        nearest to images of a class) and "unknown"; "after" all classes and their matrix, with the first three.

    Raises:
        InputError: a classifier of another kind, a class with too few images, or a folder that holds metrics.
    """
    check_classifier(trained)
    if out is not None:
        refuse_results(out, "metrics.json", "report.html")
    started = time.perf_counter()
    there = torch.cat((enrolled.labels, match_classes(verified, enrolled.classes))).unique()
    classes = tuple(enrolled.classes[number] for number in there.tolist())
    enrolled = draw(enrolled, how.samples, how.seed, classes, "enrol")
    if how.verify is not None:
        verified = draw(verified, how.verify, how.seed, classes, "verify")
    directions = prototypes(features_of(trained, enrolled), match_classes(enrolled, classes), len(classes))
    features, labels = features_of(trained, verified), match_classes(verified, classes)
    own = F.normalize(trained.recogniser.classifier.weight.detach().float().cpu(), dim=1)
    kept = [number for number, name in enumerate(trained.classes) if name not in classes]
    every = (*(trained.classes[number] for number in kept), *classes)
    predictions = recognise(features, directions, how.threshold)
    best, before = (F.normalize(features, dim=1) @ own.T).max(1)
    after = recognise(features, torch.cat((own[kept], directions)), how.threshold)
    metrics = {
        **_score(labels, predictions, classes, classes),
        "before": {
            "classes": list(trained.classes),
            "confusion_matrix": _confusion(labels, before, len(classes), len(trained.classes))[:, :-1].tolist(),
            "unknown": float((best <= how.threshold).double().mean()),
        },
        "after": _score(labels, after, classes, every),
        "recipe": trained.config.recipe,
        "split": verified.split,
        "images": len(verified),
        "seconds": time.perf_counter() - started,
        "data": {"enrolled": enrolled.digest(), verified.split: verified.digest()},
        "notes": list(verified.notes),
        "enrol": {**asdict(how), "unknown": float((predictions == NO_CLASS).double().mean())},
    }
    if out is not None:
        make_folder(out)
        _write_report(out / "report.html", trained, metrics)
        write_text(out / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    return metrics


def features_of(trained: Trained, dataset: FaceDataset) -> Tensor:
    """The features (n, d) of a dataset's images, as the run's test crops give them."""
    augment = trained.config.augment
    with watched(f"reading {dataset.split}") as progress:
        features, _ = predict(
            trained.recogniser, dataset.images, augment, trained.hardware, progress=progress, crops=augment.crops
        )
    return features


def _confusion(labels: Tensor, predictions: Tensor, classes: int, called: int) -> Tensor:
    """How often images of each class (row) are called by each name (column), the last column of those unknown."""
    wide = called + 1  # modulo which NO_CLASS is the last column
    return torch.bincount(labels * wide + predictions % wide, minlength=classes * wide).view(-1, wide)


def _score(labels: Tensor, predictions: Tensor, classes: Sequence[str], called: Sequence[str]) -> dict[str, Any]:
    """What there is to say of predictions among the names `called`, of which the last are the classes of the labels."""
    table = _confusion(labels, predictions, len(classes), len(called))
    support, hits, unknown = table.sum(1), table.diagonal(len(called) - len(classes)), table[:, -1]
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
        "classes": list(called),
    }


def _write_report(path: Path, trained: Trained, metrics: dict[str, Any]) -> None:
    """The page: what images are called without their classes, with these beside the model's own, and by these alone."""
    how, after, classes = metrics["enrol"], metrics["after"], metrics["classes"]
    before = metrics["before"]
    views = [
        (
            "Before",
            f"The nearest of the model's {len(before['classes'])} classes; no cosine exceeds the threshold for "
            f"{before['unknown']:.1%} of the images.",
            before["confusion_matrix"],
            before["classes"],
        ),
        (
            "After",
            f"By all {len(after['classes'])}: the model's own, and those that were enrolled.",
            after["confusion_matrix"],
            [*after["classes"], UNKNOWN],
        ),
        (
            "Alone",
            f"By the {len(classes)} that were enrolled, as the paper recognises them.",
            metrics["confusion_matrix"],
            [*classes, UNKNOWN],
        ),
    ]
    write_page(
        path,
        "serve/custom_classes.html.j2",
        title=f"{len(classes)} classes enrolled in {trained.config.loss} · {trained.config.backbone}",
        facts=[
            f"{how['samples']} images of train each",
            f"{metrics['split']}, {metrics['images']:,} images",
            f"unknown where no cosine exceeds {how['threshold']:g}",
        ],
        tiles={
            "average accuracy, enrolled classes alone": metrics["average_accuracy"],
            "average accuracy among all": after["average_accuracy"],
            "unknown, alone": how["unknown"],
        },
        notes=metrics["notes"],
        tables=[
            (heading, text, zip(classes, shares(table), strict=True), columns)
            for heading, text, table, columns in views
        ],
    )
