"""Accuracy by subject: how far it depends on who is in the picture."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fer_fast.train import figures

MOST = 3  # of the lowest and the highest
FEWEST = 2  # subjects; one alone says nothing of others


def by_subject(right: Tensor, subjects: Tensor | None, names: Sequence[str] | None) -> dict[str, Any] | None:
    """Subjects from the lowest accuracy to the highest, as a plot, and those at the ends and in the middle as rows.

    Args:
        right: bool (n,), which images are recognised.
        subjects: int64 (n,), who is in each.
        names: of the images; a subject is shown with that of its first.

    Returns:
        ``plot``, ``count``, ``median`` and ``rows`` (place, subject, images, accuracy); None where subjects are not
        known or there is one.
    """
    if subjects is None or len(found := subjects.unique()) < FEWEST:
        return None
    place = torch.searchsorted(found, subjects)
    images = torch.bincount(place)
    accuracy = torch.bincount(place, right.double()) / images
    order = accuracy.argsort(stable=True)
    middle = (len(order) - 1) // 2
    kept = sorted({*range(min(MOST, len(order))), middle, *range(max(0, len(order) - MOST), len(order))})
    first = {number: row for row, number in reversed(list(enumerate(place.tolist())))}
    called = {"lowest": 0, "median": middle, "highest": len(order) - 1}
    told = {rank: word for word, rank in called.items()}

    def row(rank: int) -> dict[str, Any]:
        number = int(order[rank])
        example = f", {names[first[number]]}" if names is not None else ""
        return {
            "place": told.get(rank, ""),
            "subject": f"{int(found[number])}{example}",
            "images": int(images[number]),
            "accuracy": float(accuracy[number]),
        }

    values = accuracy[order]
    return {
        "plot": figures.ranks(values.numpy(), title="Accuracy of each subject, lowest first"),
        "count": len(order),
        "median": float(values.quantile(0.5)),
        "rows": [row(rank) for rank in kept],
    }
