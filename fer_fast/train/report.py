"""The report of a run: one HTML file that shows how well a model does, where it fails and what it was."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fer_fast.errors import InputError
from fer_fast.page import picture, write_page
from fer_fast.train import figures
from fer_fast.train.shown import chosen_epoch, counted, duration, shares, tables, tiles
from fer_fast.train.sphere import sphere

MOST_MISTAKES = 24

# Title of the panel, its columns with their names, the scale of its axis.
_PANELS = (
    ("Loss", {"train_loss": "training", "val_loss": "validation"}, "linear"),
    ("Accuracy", {"train_accuracy": "training", "val_accuracy": "validation"}, "linear"),
    ("Images per second", {"images_per_second": "images/s"}, "from zero"),
    ("Learning rate", {"learning_rate": "learning rate"}, "log"),
)
_CROPS = {"1": "whole image", "5": "five crops", "10": "ten crops, five of them mirrored"}
_NO_CURVE = {"epoch", "step", "seconds"}


def write_report(
    path: str | Path,
    *,
    title: str,
    metrics: dict[str, Any],
    history: Sequence[dict[str, Any]],
    config: dict[str, Any],
    features: Tensor,
    labels: Tensor,
    scores: Tensor,
    images: Tensor,
    names: Sequence[str] | None,
    classes: Sequence[str],
) -> None:
    """Write the report as a self-contained HTML file: no script, no font, no picture from elsewhere.

    Args:
        path: the file to write.
        title: the headline.
        metrics: what `fer_fast.train.metrics.evaluate` returns; shown too where present: ``split``, ``epoch``,
            ``epochs``, ``val_accuracy``, ``seconds``, ``intervals`` (headline number -> [low, high]), ``intervals_by``
            (image, subject or group), ``crops`` (number of crops -> headline numbers), ``notes`` (lines on the data)
            and what `shown.tables` takes.
        history: rows of ``log.jsonl``, one an epoch; numbers under further names get a panel each. Without
            rows (an evaluation) there are no curves.
        config: the resolved configuration, nested as it likes.
        features: (n, ...) of the images, for the map; may hold NaN.
        labels: (n,) integers, index into `classes`.
        scores: (n, C) probabilities.
        images: uint8 (n, 1 or 3, height, width).
        names: (n,) file or row names, where known.
        classes: the C class names.

    Raises:
        InputError: no image, columns of unequal length, or a file that cannot be written.
    """
    _check(features, labels, scores, images, names, classes)
    labels, scores = labels.detach().cpu().long(), scores.detach().cpu().double()
    flat = features.detach().cpu().float().flatten(1).numpy()
    feature_map, map_note = figures.feature_map(flat, labels.numpy(), classes)
    write_page(
        path,
        "train/report.html.j2",
        title=title,
        facts=_facts(metrics, len(labels), len(classes)),
        headlines=tiles(metrics),
        unit=metrics.get("intervals_by", "image"),
        crops=_crops(metrics.get("crops") or {}),
        curves=_curves(history),
        classes=classes,
        confusion=shares(metrics["confusion_matrix"]),
        per_class=metrics["per_class"],
        notes=metrics.get("notes", []),
        sphere=sphere(flat, labels.numpy(), classes),
        feature_map=feature_map,
        map_note=map_note,
        mistakes=_mistakes(labels, scores, images, names, classes),
        wrong=int((scores.argmax(1) != labels).sum()),
        tables=tables(metrics, config),
    )


def _facts(metrics: dict[str, Any], images: int, classes: int) -> list[str]:
    facts = [counted(images, "image"), f"{classes} classes"]
    if "split" in metrics:
        facts.insert(0, f"split {metrics['split']}")
    if metrics.get("epoch"):
        facts.append(chosen_epoch(metrics))
    if isinstance(metrics.get("val_accuracy"), int | float):
        facts.append(f"validation accuracy {100 * metrics['val_accuracy']:.1f} %")
    if isinstance(metrics.get("seconds"), int | float):
        facts.append(duration(metrics["seconds"]))
    return facts


def _crops(crops: dict[str, dict[str, float]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """What was tested on -> its headline numbers, where there is more than one such."""
    kinds = [(_CROPS.get(count, f"{count} crops"), tiles(numbers)[:3]) for count, numbers in crops.items()]
    return kinds if len(kinds) > 1 else []


def _curves(history: Sequence[dict[str, Any]]) -> list[Any]:
    known = _NO_CURVE.union(*(columns for _, columns, _ in _PANELS))
    further = dict.fromkeys(key for row in history for key in row if key not in known)
    panels = (*_PANELS, *((key, {key: key}, "linear") for key in further))
    drawn = (figures.curves(history, columns, title=title, scale=scale) for title, columns, scale in panels)
    return [curve for curve in drawn if curve is not None]


def _mistakes(
    labels: Tensor, scores: Tensor, images: Tensor, names: Sequence[str] | None, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """The wrong predictions the model was surest of."""
    confidence, predicted = scores.max(1)
    wrong = (predicted != labels).nonzero().flatten()
    surest = wrong[confidence[wrong].argsort(descending=True, stable=True)][:MOST_MISTAKES].tolist()
    return [
        {
            "png": picture(images[i].movedim(0, -1).cpu().numpy()),
            "truth": classes[labels[i]],
            "prediction": classes[predicted[i]],
            "score": float(confidence[i]),
            "name": names[i] if names is not None else f"image {i}",
        }
        for i in surest
    ]


def _check(
    features: Tensor,
    labels: Tensor,
    scores: Tensor,
    images: Tensor,
    names: Sequence[str] | None,
    classes: Sequence[str],
) -> None:
    n = len(labels)
    if n == 0:
        raise InputError("labels: a report takes at least one image, got none")
    for name, column in (("features", features), ("scores", scores), ("images", images), ("names", names)):
        if column is not None and len(column) != n:
            raise InputError(f"{name}: one entry per label is needed, {n}, got {len(column)}")
    if scores.shape != (n, len(classes)):
        raise InputError(f"scores: shape {(n, len(classes))} (images, classes) is needed, got {tuple(scores.shape)}")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.dtype != torch.uint8:
        raise InputError(
            f"images: uint8 (n, 1 or 3, height, width) is needed, got {images.dtype} {tuple(images.shape)}"
        )
