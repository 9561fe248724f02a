"""Faces followed over the frames of a video, and what is measured of each smoothed along the time."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

LIFETIME = 1.0  # seconds for which a face that is not found keeps its number
SMOOTHING = 0.5  # seconds: time constant of the average
_MOTION = 0.3  # seconds: time constant of the velocity
_BUFFER = 0.5  # of its size, by which a box is widened on every side before boxes are compared
_LEAST = 0.1  # overlap of what can be the same face
_LOST = 0.5  # what the overlap counts of a face that the frame before did not show: where two fit, it is still hidden


@dataclass
class _Track:
    """A face that was seen: its number, when last and where, pixels it moves in a second, and its averages (k,)."""

    number: int
    seconds: float
    box: np.ndarray
    velocity: np.ndarray | None  # before it was seen twice
    values: np.ndarray


class Tracker:
    """Numbers faces from frame to frame, and averages what is measured of each.

    The boxes of a frame and those that the known faces should have by now, moved on at their velocities, are paired so
    that the sum of their overlaps is largest (the Hungarian method). The overlap is the intersection over union of
    boxes widened by half their size on every side, so that it says something of faces that move by their own width
    between two frames (buffered IoU: Yang et al. 2023, Hard to Track Objects with Irregular Motions and Similar
    Appearances?).

    Values x(t) of a face that was last seen at t' become their exponential average
    s(t) = s(t') + (1 - exp(-(t - t') / τ)) · (x(t) - s(t')), s = x where it is first seen: the same
    whatever the rate of frames, up to what happens between them. A sum of 1 stays one.

    Args:
        smoothing: τ in seconds; 0 for none.
        lifetime: seconds after which a face that was not found again, in one frame at least, has gone.
    """

    def __init__(self, smoothing: float = SMOOTHING, lifetime: float = LIFETIME):
        self.smoothing, self.lifetime = smoothing, lifetime
        self._tracks: list[_Track] = []
        self._count = 0
        self._before = -math.inf  # when the last frame was

    def follow(self, seconds: float, boxes: np.ndarray, values: np.ndarray) -> tuple[list[int], np.ndarray]:
        """The numbers of a frame's faces, from 1, and their averages (n, k).

        Args:
            seconds: when; later than at the call before.
            boxes: float (n, 4), left, top, width, height.
            values: (n, k).
        """
        last = min(self._before, seconds - self.lifetime)
        self._tracks = [track for track in self._tracks if track.seconds >= last]
        known = self._pairs(seconds, boxes)
        self._before = seconds
        tracks = []
        for row, (box, value) in enumerate(zip(boxes, values, strict=True)):
            if (track := known.get(row)) is None:
                self._count += 1
                track = _Track(self._count, seconds, box, None, value)
                self._tracks.append(track)
            else:
                _move(track, seconds, box)
                track.values = track.values + _share(seconds - track.seconds, self.smoothing) * (value - track.values)
                track.seconds = seconds
            tracks.append(track)
        averages = np.stack([track.values for track in tracks]) if tracks else values
        return [track.number for track in tracks], averages

    def _pairs(self, seconds: float, boxes: np.ndarray) -> dict[int, _Track]:
        """Which of the known faces each box is."""
        if not self._tracks or not len(boxes):
            return {}
        expected = np.stack([track.box for track in self._tracks])
        for box, track in zip(expected, self._tracks, strict=True):
            if track.velocity is not None:
                box[:2] += track.velocity * (seconds - track.seconds)
        overlaps = buffered_overlaps(expected, boxes)
        overlaps[overlaps < _LEAST] = 0
        overlaps[[track.seconds < self._before for track in self._tracks]] *= _LOST
        pairs = zip(*linear_sum_assignment(-overlaps), strict=True)
        return {int(row): self._tracks[known] for known, row in pairs if overlaps[known, row]}


def buffered_overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union (m, n) of boxes (m, 4) and (n, 4), each widened by half its size on every side."""
    (low, high), (other_low, other_high) = (
        (boxes[:, :2] - _BUFFER * boxes[:, 2:], boxes[:, :2] + (1 + _BUFFER) * boxes[:, 2:]) for boxes in (one, other)
    )
    shared = np.minimum(high[:, None], other_high) - np.maximum(low[:, None], other_low)
    shared = shared.clip(0).prod(2)
    union = (high - low).prod(1)[:, None] + (other_high - other_low).prod(1) - shared
    return shared / np.maximum(union, 1e-9)


def _move(track: _Track, seconds: float, box: np.ndarray) -> None:
    passed = seconds - track.seconds
    moved = (box[:2] + box[2:] / 2 - track.box[:2] - track.box[2:] / 2) / passed
    before = moved if track.velocity is None else track.velocity
    track.velocity = before + _share(passed, _MOTION) * (moved - before)
    track.box = box


def _share(passed: float, constant: float) -> float:
    """The weight of a new value."""
    return 1 - math.exp(-passed / constant) if constant else 1.0
