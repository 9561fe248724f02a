"""Runs to be verified: their pictures, numbers as if predictions were others, and a machine that is another."""

import torch

from fer_fast.train import provenance
from fer_fast.train.metrics import evaluate

COUNTS = {"train": 8, "val": 4, "test": 6}  # of each class


def turned(metrics, count):
    """As if so many predictions of the first class had been others, and the numbers those of them."""
    row = metrics["confusion_matrix"][0]
    full, other = sorted(range(3), key=row.__getitem__)[::-1][:2]
    row[full], row[other] = row[full] - count, row[other] + count
    pairs = [(i, j) for i, row in enumerate(metrics["confusion_matrix"]) for j, n in enumerate(row) for _ in range(n)]
    labels, predicted = torch.tensor(pairs).T
    told = evaluate(labels, torch.eye(3)[predicted], metrics["classes"])
    metrics.update({key: told[key] for key in told if not key.startswith("auc")})


def elsewhere(monkeypatch):
    here = provenance.describe_device
    monkeypatch.setattr(provenance, "describe_device", lambda hardware: {**here(hardware), "threads": 99})
