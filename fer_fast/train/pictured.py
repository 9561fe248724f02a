"""The faces of a report: surest mistakes, classes that are confused side by side, and where a class is seen."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fer_fast.data.dataset import Images, to_channels
from fer_fast.page import picture
from fer_fast.train.activation import heated

MOST_MISTAKES = 24
MOST_PAIRS = 4
MOST_OF_A_PAIR = 6  # faces on either side
MOST_ACTIVATIONS = 8  # rows of right and of wrong ones

# Rows (k,) and a class of each (k,) -> (k, h, w) in [0, 1].
Activation = Callable[[Tensor, Tensor], Tensor]


class Faces:
    """Predictions with their images.

    Args:
        labels: int64 (n,).
        scores: float (n, C).
        images: uint8 (n, 1 or 3, height, width).
        names: of the images, where known.
        classes: the C names.
    """

    def __init__(
        self,
        labels: Tensor,
        scores: Tensor,
        images: Tensor | Images,
        names: Sequence[str] | None,
        classes: Sequence[str],
    ):
        self.labels, self.images, self.names, self.classes = labels, images, names, classes
        self.confidence, self.predicted = scores.max(1)

    def mistakes(self) -> list[dict[str, Any]]:
        """The wrong predictions the model was surest of."""
        return [
            {
                "png": picture(self._pixels(row)),
                "truth": self.classes[self.labels[row]],
                "prediction": self.classes[self.predicted[row]],
                "score": float(self.confidence[row]),
                "name": self._name(row),
            }
            for row in self._surest(self.predicted != self.labels, MOST_MISTAKES)
        ]

    def confused(self, confusion: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
        """The pairs of classes of which one is most often taken for the other, as the surest faces of either side."""
        counts = torch.tensor(confusion).fill_diagonal_(0)
        support = torch.tensor(confusion).sum(1)
        order = counts.flatten().argsort(descending=True, stable=True)[:MOST_PAIRS].tolist()
        cells = [divmod(cell, len(counts)) for cell in order]
        return [
            {
                "truth": self.classes[truth],
                "prediction": self.classes[taken],
                "count": int(counts[truth, taken]),
                "share": float(counts[truth, taken] / support[truth]),
                "wrong": self._side((self.labels == truth) & (self.predicted == taken)),
                "right": self._side((self.labels == taken) & (self.predicted == taken)),
            }
            for truth, taken in cells
            if counts[truth, taken]
        ]

    def activations(self, activation: Activation) -> dict[str, list[dict[str, Any]]]:
        """Of each class the prediction the model was surest of, among the right and among the wrong ones.

        Each with the places that speak for the prediction and, where that is wrong, those that speak for the truth.
        """
        right = self._one_of_each(self.predicted == self.labels)
        wrong = self._one_of_each(self.predicted != self.labels)
        rows = torch.tensor([*right, *wrong, *wrong], dtype=torch.int64)
        seen = torch.cat((self.predicted[rows[: len(right) + len(wrong)]], self.labels[wrong]))
        maps = activation(rows, seen).cpu().numpy()
        shown = [
            {
                "truth": self.classes[self.labels[row]],
                "prediction": self.classes[self.predicted[row]],
                "score": float(self.confidence[row]),
                "face": picture(self._pixels(row), ".jpg"),
                "seen": self._heated(row, maps[place]),
            }
            for place, row in enumerate([*right, *wrong])
        ]
        for place, row in enumerate(wrong):
            shown[len(right) + place]["missed"] = self._heated(row, maps[len(right) + len(wrong) + place])
        return {"right": shown[: len(right)], "wrong": shown[len(right) :]}

    def _one_of_each(self, which: Tensor) -> list[int]:
        surest = (self._surest(which & (self.labels == number), 1) for number in range(len(self.classes)))
        return [row for rows in surest for row in rows][:MOST_ACTIVATIONS]

    def _side(self, which: Tensor) -> list[str]:
        return [picture(self._pixels(row), ".jpg") for row in self._surest(which, MOST_OF_A_PAIR)]

    def _surest(self, which: Tensor, most: int) -> list[int]:
        rows = which.nonzero().flatten()
        return rows[self.confidence[rows].argsort(descending=True, stable=True)][:most].tolist()

    def _pixels(self, row: int) -> np.ndarray:
        return self.images[row].movedim(0, -1).cpu().numpy()

    def _heated(self, row: int, found: np.ndarray) -> str:
        face = to_channels(self.images[row][None], 3)[0].movedim(0, -1).cpu().numpy()
        return picture(heated(face, found), ".jpg")

    def _name(self, row: int) -> str:
        return self.names[row] if self.names is not None else f"image {row}"
