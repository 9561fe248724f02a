"""Features of three dimensions on the unit sphere, as Figure 3 of Lu & Wu 2022 shows them: the places of a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fer_fast.train.figures import FEWEST_POINTS, PALETTE, sample

MOST_POINTS = 500  # each is a layer that the browser sorts by depth
MOST_NAMES = 12  # more would cover the points
_FORMS = ("disc", "square", "ring")  # three against eight colours: 24 classes stay apart


@dataclass(frozen=True)
class Place:
    """Where something is on the sphere, in degrees: `east` of the meridian that faces the reader, `north` of the
    equator; and how its class is drawn.
    """

    east: str
    north: str
    colour: str
    form: str
    name: str


@dataclass(frozen=True)
class Sphere:
    """A picture of directions.

    Attributes:
        points: one an image.
        means: the mean direction of each class that has points.
        named: whether the names are written beside the means.
        note: a line on what is shown.
    """

    points: list[Place]
    means: list[Place]
    named: bool
    note: str


def sphere(features: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Sphere | None:
    """Directions x / ‖x‖ of features and the mean direction of each class, Σ x / ‖x‖ over its images.

    Args:
        features: (n, 3); rows that are not finite or zero have no direction and are left out, and of many rows a fixed
            sample is drawn.
        labels: (n,) index into `classes`.
        classes: the class names.

    Returns:
        ``None`` for features of other dimensions, or with fewer than five directions.
    """
    if features.shape[1] != 3:
        return None
    features = features.astype(np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    directions = np.divide(features, lengths, out=np.full_like(features, np.nan), where=lengths > 0)
    kept, note = sample(directions, MOST_POINTS, "without a direction")
    if len(kept) < FEWEST_POINTS:
        return None
    sums = {c: directions[(labels == c) & np.isfinite(directions).all(1)].sum(0) for c in range(len(classes))}
    return Sphere(
        points=[_place(directions[i], labels[i], classes) for i in kept],
        means=[_place(total, c, classes) for c, total in sums.items() if total.any()],
        named=len(classes) <= MOST_NAMES,
        note=f"The features of {note}, each at length 1, on a sphere that stands still under the pointer. "
        "Large rings are the mean directions of the classes.",
    )


def _place(direction: np.ndarray, label: int, classes: Sequence[str]) -> Place:
    """The third coordinate points up, the second away from the reader."""
    right, back, up = direction
    return Place(
        east=f"{np.degrees(np.arctan2(right, -back)):.1f}",
        north=f"{np.degrees(np.arctan2(up, np.hypot(right, back))):.1f}",
        colour=PALETTE[label % len(PALETTE)],
        form=_FORMS[label // len(PALETTE) % len(_FORMS)],
        name=classes[label],
    )
