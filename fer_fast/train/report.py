"""The report of a run: one HTML file that shows how well a model does, where it fails and what it was."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from fer_fast.data.dataset import Images
from fer_fast.errors import InputError
from fer_fast.page import write_page
from fer_fast.train import figures
from fer_fast.train.calibration import reliability, tempered
from fer_fast.train.pictured import Activation, Faces
from fer_fast.train.shown import chosen_epoch, counted, duration, finite, shares, tables, tiles
from fer_fast.train.sphere import sphere
from fer_fast.train.subjects import by_subject

# Title of the panel, its columns with their names, the scale of its axis.
_LOSS = (("Loss", {"train_loss": "training", "val_loss": "validation"}, "linear"),)
_LOSSES = (
    ("Training objective", {"train_loss": "training objective"}, "linear"),
    ("Validation cross-entropy", {"val_loss": "validation cross-entropy"}, "linear"),
)
_PANELS = (
    ("Accuracy", {"train_accuracy": "training", "val_accuracy": "validation"}, "linear"),
    ("Learning rate", {"learning_rate": "learning rate"}, "log"),
)
_CROPS = {"1": "whole image", "5": "five crops", "10": "ten crops, five of them mirrored"}
_NO_CURVE = {"epoch", "step", "seconds", "images_per_second"}


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
    images: Tensor | Images,
    names: Sequence[str] | None,
    classes: Sequence[str],
    subjects: Tensor | None = None,
    activation: Activation | None = None,
    one_loss: bool = False,
) -> None:
    """Write the report as a self-contained HTML file: no script, no font, no picture from elsewhere.

    Args:
        path: the file to write.
        title: the headline.
        metrics: what `fer_fast.train.metrics.evaluate` returns; shown too where present: ``split``, ``epoch``,
            ``epochs``, ``val_accuracy``, ``seconds``, ``intervals`` (headline number -> [low, high]), ``intervals_by``
            (image, subject or group), ``crops`` (number of crops -> headline numbers), ``notes`` (lines on the data),
            ``counts`` (split -> images), ``parameters``, ``device``, ``calibration`` (what
            `fer_fast.train.calibration.calibration` returns) and what `shown.tables` takes.
        history: rows of ``log.jsonl``, one an epoch; numbers under further names get a panel each. Without
            rows (an evaluation) there are no curves.
        config: the resolved configuration, nested as it likes.
        features: (n, ...) of the images, for the map; may hold NaN.
        labels: (n,) integers, index into `classes`.
        scores: (n, C) probabilities.
        images: uint8 (n, 1 or 3, height, width).
        names: (n,) file or row names, where known.
        classes: the C class names.
        subjects: int64 (n,), who is in each image, where known.
        activation: gives the class activation of images by their rows, for pictures of it.
        one_loss: training minimises what validation measures, so that both share an axis.

    Raises:
        InputError: no image, columns of unequal length, or a file that cannot be written.
    """
    _check(labels, scores, images, classes, features=features, names=names, subjects=subjects)
    labels, scores = labels.detach().cpu().long(), scores.detach().cpu().double()
    flat = features.detach().cpu().float().flatten(1).numpy()
    feature_map, map_note = figures.feature_map(flat, labels.numpy(), classes)
    faces, wrong = Faces(labels, scores, images, names, classes), scores.argmax(1) != labels
    write_page(
        path,
        "train/report.html.j2",
        title=title,
        facts=_facts(metrics, len(labels), len(classes)),
        headlines=tiles(metrics),
        unit=metrics.get("intervals_by", "image"),
        chance=_chance(metrics["confusion_matrix"], classes),
        crops=_crops(metrics.get("crops") or {}),
        curves=_curves(history, metrics.get("epoch"), one_loss),
        one_loss=one_loss,
        speed=_speed(history),
        classes=classes,
        confusion=shares(metrics["confusion_matrix"]),
        per_class=metrics["per_class"],
        notes=metrics.get("notes", []),
        sphere=sphere(flat, labels.numpy(), classes),
        feature_map=feature_map,
        map_note=map_note,
        calibration=_calibration(metrics.get("calibration") or {}, labels, scores),
        people=by_subject(~wrong, subjects, names),
        confused=faces.confused(metrics["confusion_matrix"]),
        activations=faces.activations(activation) if activation is not None else None,
        mistakes=faces.mistakes(),
        wrong=int(wrong.sum()),
        tables=tables(metrics, config),
    )


def _facts(metrics: dict[str, Any], images: int, classes: int) -> list[str]:
    facts = [counted(images, "image"), f"{classes} classes"]
    if "split" in metrics:
        facts.insert(0, f"split {metrics['split']}")
    if counts := metrics.get("counts"):
        facts.append(", ".join(counted(number, f"{split} image") for split, number in counts.items()))
    if metrics.get("epoch"):
        facts.append(chosen_epoch(metrics))
    if isinstance(metrics.get("val_accuracy"), int | float):
        facts.append(f"validation accuracy {100 * metrics['val_accuracy']:.1f} %")
    if isinstance(metrics.get("seconds"), int | float):
        facts.append(duration(metrics["seconds"]))
    if metrics.get("parameters"):
        facts.append(f"{metrics['parameters'] / 1e6:.1f} M parameters")
    if device := metrics.get("device"):
        together = f"on {device['count']} processes" if device.get("count", 1) > 1 else None
        facts.append(" ".join(filter(None, (device.get("type"), device.get("precision"), together))))
    return facts


def _chance(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> dict[str, Any]:
    """What answering without looking gives: the largest class always, as a share; classes that are there."""
    support = [sum(row) for row in confusion]
    most = max(range(len(support)), key=support.__getitem__)
    return {"class": classes[most], "share": support[most] / sum(support), "present": sum(map(bool, support))}


def _crops(crops: dict[str, dict[str, float]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """What was tested on -> its headline numbers, where there is more than one such."""
    kinds = [(_CROPS.get(count, f"{count} crops"), tiles(numbers)[:3]) for count, numbers in crops.items()]
    return kinds if len(kinds) > 1 else []


def _curves(history: Sequence[dict[str, Any]], epoch: int | None, one_loss: bool) -> list[Any]:
    panels = (*(_LOSS if one_loss else _LOSSES), *_PANELS)
    known = _NO_CURVE.union(*(columns for _, columns, _ in panels))
    further = dict.fromkeys(key for row in history for key in row if key not in known)
    panels += tuple((key, {key: key}, "linear") for key in further)
    drawn = (
        figures.curves(history, columns, title=title, scale=scale, marked=epoch) for title, columns, scale in panels
    )
    return [curve for curve in drawn if curve is not None]


def _speed(history: Sequence[dict[str, Any]]) -> str:
    """Images per second in a line; nothing where no row tells."""
    speeds = [value for row in history if (value := finite(row.get("images_per_second"), 0.0)) > 0]
    if not speeds:
        return ""
    spread = f", {min(speeds):.0f} to {max(speeds):.0f} by epoch" if len(speeds) > 1 else ""
    return f"Training read {median(speeds):.0f} images per second{spread}."


def _calibration(numbers: dict[str, Any], labels: Tensor, scores: Tensor) -> dict[str, Any] | None:
    """The diagram with the numbers that belong to it; None of a result of an earlier version."""
    if not numbers:
        return None
    temperature = numbers.get("temperature")
    after = reliability(labels, tempered(scores, temperature), numbers["bins"]) if temperature else None
    return {**numbers, "diagram": figures.reliability_diagram(reliability(labels, scores, numbers["bins"]), after)}


def _check(
    labels: Tensor, scores: Tensor, images: Tensor | Images, classes: Sequence[str], **columns: Sequence[Any] | None
) -> None:
    n = len(labels)
    if n == 0:
        raise InputError("labels: a report takes at least one image, got none")
    for name, column in {"scores": scores, "images": images, **columns}.items():
        if column is not None and len(column) != n:
            raise InputError(f"{name}: one entry per label is needed, {n}, got {len(column)}")
    if scores.shape != (n, len(classes)):
        raise InputError(f"scores: shape {(n, len(classes))} (images, classes) is needed, got {tuple(scores.shape)}")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.dtype != torch.uint8:
        raise InputError(
            f"images: uint8 (n, 1 or 3, height, width) is needed, got {images.dtype} {tuple(images.shape)}"
        )
