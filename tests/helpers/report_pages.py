"""A report on random predictions, its page, and the pictures in it."""

import base64

import cv2
import numpy as np
import torch

from fer_fast.train.metrics import evaluate
from fer_fast.train.report import write_report
from html_page import Page

CLASSES = ("neutral", "happiness", "sadness")


def run(n: int = 40, classes: tuple[str, ...] = CLASSES, channels: int = 3, size: int = 16, **changes) -> dict:
    """Arguments of a report on random predictions."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(len(classes), (n,), generator=generator)
    scores = torch.rand(n, len(classes), generator=generator).softmax(1)
    numbers = evaluate(labels, scores, classes)
    del numbers["intervals"]  # which earlier versions did not have
    arguments = {
        "title": "center · resnet18 · faces",
        "metrics": {**numbers, "split": "test", "seconds": 83.4},
        "history": [{"epoch": e, "train_loss": 2 / e, "val_loss": 2.5 / e, "learning_rate": 0.1} for e in range(1, 5)],
        "config": {"loss": "center", "optimiser": {"name": "sgd", "rate": 0.1}, "root": None},
        "features": torch.randn(n, 8, generator=generator),
        "labels": labels,
        "scores": scores,
        "images": torch.randint(256, (n, channels, size, size), generator=generator, dtype=torch.uint8),
        "names": tuple(f"face_{i}.jpg" for i in range(n)),
        "classes": classes,
    }
    return arguments | changes


def written(path, **arguments) -> tuple[str, Page]:
    write_report(path / "report.html", **arguments)
    text = (path / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def noise(size=8):
    """A class activation that is noise."""
    return lambda rows, classes: torch.rand(len(rows), size, size, generator=torch.Generator().manual_seed(0))


def pixels(address):
    coded = np.frombuffer(base64.b64decode(address.split(",")[1]), np.uint8)
    return cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB).astype(int)
