"""Faces followed from frame to frame, and averages that do not depend on the rate."""

import math

import numpy as np
import pytest

from fer_fast.serve.tracks import Tracker, buffered_overlaps

NOTHING = np.zeros((0, 4)), np.zeros((0, 1))


def box(x, y=0.0, side=40.0):
    return [x, y, side, side]


def follow(frames, rate, **settings):
    """The numbers of each frame's faces, of which only where they are is told."""
    tracker = Tracker(**settings)
    return [
        tracker.follow(i / rate, np.array(boxes, float).reshape(-1, 4), np.zeros((len(boxes), 1)))[0]
        for i, boxes in enumerate(frames)
    ]


def test_overlaps_are_of_boxes_widened_by_half_their_size():
    one = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [100, 0, 10, 20.0]])
    other = np.array([[0, 0, 10, 10], [15, 0, 10, 10], [115, 10, 10, 20.0]])
    got = buffered_overlaps(one, other)
    assert got[0, 0] == 1
    assert got[0, 1] == pytest.approx(5 * 20 / (2 * 400 - 100))
    assert got[2, 2] == pytest.approx(5 * 30 / (2 * 800 - 150))
    assert got[0, 2] == got[2, 0] == 0


@pytest.mark.parametrize("rate", [5, 10, 25])
@pytest.mark.parametrize("hidden", [False, True])
def test_two_faces_that_cross_keep_their_numbers(rate, hidden):
    """To the right at 100 pixels a second, to the left at 130; hidden: while they overlap, the first is not seen."""
    frames, expected = [], []
    for i in range(4 * rate):
        left, right = 100 * i / rate, 400 - 130 * i / rate
        covered = hidden and abs(left - right) < 35
        frames.append([box(right)] if covered else [box(left), box(right)])
        expected.append([2] if covered else [1, 2])
    assert follow(frames, rate) == expected


def test_a_face_that_vanishes_for_less_than_the_lifetime_keeps_its_number():
    for away, numbers in ((0.4, {1}), (0.8, {1}), (1.4, {1, 2})):
        frames = [[] if 1 < i / 5 <= 1 + away else [box(20 * i / 5)] for i in range(20)]
        assert {number for frame in follow(frames, 5) for number in frame} == numbers
    frames = [[] if 1 < i / 5 <= 1.8 else [box(0)] for i in range(20)]
    assert {number for frame in follow(frames, 5, lifetime=0.5) for number in frame} == {1, 2}


def test_a_face_may_move_by_its_own_width_between_two_frames():
    assert follow([[box(40 * i)] for i in range(6)], 5) == [[1]] * 6
    assert follow([[box(0)], [box(400)]], 5) == [[1], [2]]  # another one


def test_a_face_of_the_frame_before_is_the_same_at_any_rate():
    assert follow([[box(0)]] * 4, 0.1) == [[1]] * 4
    assert follow([[box(0)], [], [box(0)]], 0.1) == [[1], [], [2]]


def test_pairs_are_those_of_the_largest_sum_whatever_the_order():
    boxes = [box(0), box(50), box(100), box(150)]
    moved = [box(20), box(70), box(120), box(170)]
    assert follow([boxes, moved[::-1]], 5) == [[1, 2, 3, 4], [4, 3, 2, 1]]


def test_averages_follow_the_equation_and_sum_to_one():
    tracker, rng = Tracker(smoothing=0.7), np.random.default_rng(0)
    times, values = np.array([0, 0.1, 0.5, 0.6, 1.4]), rng.dirichlet(np.ones(4), 5)
    expected = values[0]
    for i, (now, value) in enumerate(zip(times, values, strict=True)):
        if i:
            expected = expected + (1 - math.exp(-(now - times[i - 1]) / 0.7)) * (value - expected)
        _, (got,) = tracker.follow(now, np.array([box(0)]), value[None])
        np.testing.assert_allclose(got, expected, rtol=1e-12)
        assert got.sum() == pytest.approx(1, abs=1e-12)


def test_averages_do_not_depend_on_the_rate():
    ends = []
    for rate in (2, 10, 50):
        tracker = Tracker(lifetime=9)
        for i in range(3 * rate + 1):  # a step: 0 at the first frame, then 1
            _, (value,) = tracker.follow(i / rate, np.array([box(0)]), np.array([[float(i > 0)]]))
        ends.append(value[0])
    np.testing.assert_allclose(ends, 1 - math.exp(-3 / 0.5), rtol=1e-12)


def test_without_smoothing_values_are_what_they_were():
    tracker = Tracker(smoothing=0)
    for now in range(3):
        _, (value,) = tracker.follow(now / 5, np.array([box(0)]), np.array([[float(now)]]))
        assert value == now


def test_frames_without_faces():
    tracker = Tracker()
    for now in range(3):
        numbers, values = tracker.follow(now, *NOTHING)
        assert numbers == []
        assert values.shape == (0, 1)
    assert tracker.follow(3, np.array([box(0)]), np.ones((1, 1)))[0] == [1]
