"""Frames of videos, whatever the dataset: the same from any thread, in any order."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fer_fast.data.videos import STILL, Frames, count_frames
from fer_fast.errors import InputError
from frames_on_disk import HEIGHT, WIDTH, film, write_picture, write_video


def test_frames_are_the_same_from_any_thread_in_any_order(tmp_path):
    paths = [write_video(tmp_path / f"{i}.avi", film(20, step=10 + i)) for i in range(3)]
    wanted = [(path, frame) for path in paths for frame in range(20)]
    frames = Frames(*zip(*wanted, strict=True), ["whole"] * len(wanted))
    expected = [frames.read(i, gray=False) for i in range(len(wanted))]
    order = np.random.default_rng(0).permutation(len(wanted)).tolist()
    together = threading.Barrier(4)

    def read(turn):
        together.wait()
        return {i: frames.read(i, gray=False) for i in order[turn::4]}

    with ThreadPoolExecutor(4) as pool:
        for part in pool.map(read, range(4)):
            for i, image in part.items():
                assert (image == expected[i]).all()
    values = [image[HEIGHT // 2, WIDTH // 2, 0] for image in expected]
    assert abs(np.array(values) - [frame * (10 + i) for i in range(3) for frame in range(20)]).max() < 8


def test_a_thread_opens_a_video_once_for_frames_in_order(tmp_path, monkeypatch):
    from fer_fast.data import videos

    path = write_video(tmp_path / "a.avi", film())
    opened = []
    monkeypatch.setattr(videos, "open_video", lambda p, real=videos.open_video: opened.append(p) or real(p))
    frames = Frames([path] * 4, [3, 4, 5, 2], ["whole"] * 4)
    for i in range(3):
        frames.read(i, gray=True)
    assert len(opened) == 1
    frames.read(3, gray=True)  # back
    assert len(opened) == 2


def test_taken_frames_keep_file_frame_and_view(tmp_path):
    path, still = write_video(tmp_path / "a.avi", film()), write_picture(tmp_path / "b.png", 70)
    frames = Frames([path, still, path], [2, STILL, 7], ["left", "whole", "lying"])
    taken = frames.take(np.array([2, 1, 0]))
    for i in range(3):
        assert (taken.read(i, gray=False) == frames.read(2 - i, gray=False)).all()
    assert sorted(taken.stamp()) == sorted(frames.stamp())
    assert len({*Frames([path], [2], ["left"]).stamp(), *Frames([path], [2], ["right"]).stamp()}) == 3


def test_colours_are_rgb(tmp_path):
    blue = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    blue[..., 0] = 250  # of BGR
    frames = Frames([write_video(tmp_path / "a.avi", [blue] * 3)], [1], ["whole"])
    red, _, blues = frames.read(0, gray=False)[HEIGHT // 2, WIDTH // 2]
    assert blues > 200 > 60 > red


def test_a_frame_after_the_last_is_an_error(tmp_path):
    path = write_video(tmp_path / "a.avi", film(5))
    assert count_frames(path) == 5
    with pytest.raises(InputError, match="ends after 5 frames, before frame 8"):
        Frames([path], [8], ["whole"]).read(0, gray=True)
