"""Videos: which frames are taken and when they were, faces that move, what is written, and files that are broken."""

import csv
import json
import math
import os
import resource
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from fer_fast.cli import main
from fer_fast.data.videos import looks_like_video, open_video
from fer_fast.errors import InputError
from fer_fast.serve import video as video_module
from fer_fast.serve.model import load
from fer_fast.serve.video import Film, Followed, Frame, Sampled, watch
from frames_on_disk import film, write_picture, write_video
from one_line import fails
from untrained import CLASSES, photograph, untrained

FPS = 25
SIDE = 160
KINDS = {"avi": "MJPG", "mp4": "mp4v", "mkv": "mp4v", "wmv": "WMV2", "mpg": "mpg1", "mov": "mp4v"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("video") / "run")


@pytest.fixture(scope="module")
def faces():
    """Two generated faces (160, 160, 3) BGR that are found."""
    page = photograph(2)[..., ::-1]
    return page[100:260, 100:260], page[100:260, 360:520]


def record(path, frames, fps=FPS, code="MJPG"):
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*code), fps, frames[0].shape[1::-1])
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def scene(*placed, width=800, height=400):
    """A frame of faces at these places; the later ones in front."""
    frame = np.full((height, width, 3), 90, np.uint8)
    for image, left, top in placed:
        frame[top : top + SIDE, round(left) : round(left) + SIDE] = image
    return frame


def listed(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class Stub:
    """A video of frames at given times; some of them cannot be decoded."""

    def __init__(self, times, fps=25.0, count=None, broken=()):
        self.times, self.broken, self.at = times, broken, -1
        self.about = {cv2.CAP_PROP_FPS: fps, cv2.CAP_PROP_FRAME_COUNT: len(times) if count is None else count}

    def get(self, what):
        sides = {cv2.CAP_PROP_FRAME_WIDTH: 8, cv2.CAP_PROP_FRAME_HEIGHT: 8}
        return self.times[self.at] * 1000 if what == cv2.CAP_PROP_POS_MSEC else {**sides, **self.about}[what]

    def grab(self):
        self.at += 1
        return self.at < len(self.times)

    def retrieve(self):
        return self.at not in self.broken, np.zeros((8, 8, 3), np.uint8)


def sampled(monkeypatch, rate, *given, **settings):
    monkeypatch.setattr(video_module, "open_video", lambda path: Stub(*given, **settings))
    return Sampled("x.mp4", rate)


@pytest.mark.parametrize(("fps", "rate"), [(25, 5), (30, 5), (29.97, 29.97), (29.97, 10), (24, 7), (25, 100), (1, 5)])
def test_frames_are_taken_at_the_rate(monkeypatch, fps, rate):
    times = [round(i / fps, 3) for i in range(200)]  # whole milliseconds, as Matroska has them
    source = sampled(monkeypatch, rate, times, fps)
    taken = list(source)
    rate = min(rate, fps)
    assert source.rate == rate
    assert [frame.slot for frame in taken] == list(range(math.floor((times[-1] + 0.5 / fps) * rate) + 1))
    for frame in taken:
        assert frame.seconds == times[frame.number]
        assert -0.51 / fps - 1e-3 <= frame.seconds - frame.slot / rate <= 1 / fps + 1e-3
    assert (source.frames, source.taken) == (200, len(taken))
    assert source.cut_short() is None


def test_frames_that_come_unevenly_keep_their_times(monkeypatch):
    times = [0, 0.04, 0.08, 1.5, 1.54, 1.9, 4.0]
    taken = list(sampled(monkeypatch, 5, times))
    assert [(frame.seconds, frame.slot) for frame in taken] == [(0, 0), (1.5, 7), (1.9, 9), (4.0, 20)]


@pytest.mark.parametrize(
    "times", [[0.0] * 50, [math.nan] * 50, [-1.0] * 50, [5.0, *(1e9 + i for i in range(49))], [*range(50, 0, -1)]]
)
def test_times_that_make_no_sense_are_counted(monkeypatch, times):
    taken = list(sampled(monkeypatch, 5, times))
    np.testing.assert_allclose([frame.seconds for frame in taken], np.arange(10) / 5, atol=1e-9)


@pytest.mark.parametrize("fps", [0, math.nan, -1, 90000])
def test_a_rate_that_makes_no_sense_is_the_usual_one(monkeypatch, fps):
    assert sampled(monkeypatch, 5, [0.0], fps).own == 25


def test_a_video_that_ends_too_early_says_so(monkeypatch):
    times = [i / 25 for i in range(100)]
    source = sampled(monkeypatch, 5, times, count=400)
    assert len(list(source)) == 20
    assert source.cut_short() == "x.mp4: cut short: 100 of about 400 frames could be read, 4.0 s"
    source = sampled(monkeypatch, 5, times, broken=[50])
    assert [frame.number for frame in source] == list(range(0, 50, 5))
    assert "50 of about 100" in source.cut_short()


@pytest.mark.parametrize("kind", KINDS)
def test_containers_are_videos_by_ending_and_by_content(tmp_path, kind):
    try:
        path = record(tmp_path / f"a.{kind}", film(30, step=8), code=KINDS[kind])
    except AssertionError:
        pytest.skip(f"OpenCV writes no {kind} here")
    assert looks_like_video(path)
    bare = path.rename(tmp_path / "bare")
    assert looks_like_video(bare)
    source = Sampled(str(bare))
    assert len(list(source)) == 6
    assert source.cut_short() is None
    odd = bare.rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.avi"))  # OpenCV crashes on such a name
    assert open_video(odd).grab()


def test_pictures_are_no_videos(tmp_path):
    assert not looks_like_video(write_picture(tmp_path / "a.png"))
    for name, data in {
        "avif": b"\0\0\0 ftypavif\0\0\0\0",
        "heic": b"\0\0\0 ftypheic",
        "text": b"a" * 20,
        "e": b"",
    }.items():
        (tmp_path / name).write_bytes(data)
        assert not looks_like_video(tmp_path / name)
    assert looks_like_video(tmp_path / "not there.MP4")
    assert not looks_like_video(tmp_path / "not there")
    (tmp_path / "folder.mp4").mkdir()
    assert not looks_like_video(tmp_path / "folder.mp4")


@pytest.mark.parametrize("most", [1, 3, 64])
def test_two_faces_that_cross_keep_their_numbers(checkpoint, faces, tmp_path, most):
    """The second passes in front of the first, which is not seen for a while; whatever the number of frames at once."""
    frames = [scene((faces[0], 20 + 4 * i, 60), (faces[1], 580 - 5 * i, 90)) for i in range(100)]
    source = Sampled(str(record(tmp_path / "a.avi", frames)))
    source.most = most
    seen = [
        {number: face.box[0] for number, face in zip(followed.numbers, followed.faces, strict=True)}
        for followed in watch(load(checkpoint, "cpu"), source)
    ]
    assert len(seen) == 20
    first, second = sorted(seen[0], key=seen[0].get)
    assert {number for frame in seen for number in frame} == {first, second}
    for number, step in ((first, 20), (second, -25)):
        lefts = [(i, frame[number]) for i, frame in enumerate(seen) if number in frame]
        assert len(lefts) > 10
        slope = np.polyfit(*np.array(lefts).T, 1)[0]
        assert slope == pytest.approx(step, abs=2)


def test_a_face_that_vanishes_for_a_moment_keeps_its_number(checkpoint, faces, tmp_path, capsys):
    frames = [scene(*([(faces[0], 20 + 3 * i, 100)] if not 30 <= i < 40 else [])) for i in range(75)]
    path = record(tmp_path / "a.mp4", frames, code="mp4v")
    out = tmp_path / "out"
    assert main(["predict", "--checkpoint", str(checkpoint), str(path), "--rate", "12.5", "--out", str(out)]) == 0
    printed, errors = capsys.readouterr()
    assert printed.splitlines()[0].split() == ["file", "track", "first", "last", "class", "mean", "score"]
    (row,) = printed.splitlines()[1:]
    assert row.split()[:4] == [str(path), "1", "0.0", "3.0"]
    assert errors == f"fer-fast: {path}: 12.5 frames a second, of 25\n"

    table = listed(out / "a.mp4.csv")
    assert {line["track"] for line in table} == {"1"}
    assert [int(line["frame"]) for line in table] == [i for i in range(0, 75, 2) if not 30 <= i < 40]
    for line in table:
        assert float(line["seconds"]) == pytest.approx(int(line["frame"]) / 25, abs=2e-3)
        assert sum(float(line[f"score_{name}"]) for name in CLASSES) == pytest.approx(1, abs=1e-4)
        assert float(line["score"]) == max(float(line[f"score_{name}"]) for name in CLASSES)
        assert abs(int(line["left"]) - 3 * int(line["frame"]) - 50) < 40
    drawn = cv2.VideoCapture(str(out / "a.mp4"))
    assert drawn.get(cv2.CAP_PROP_FPS) == 12.5
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 38
    assert (drawn.get(cv2.CAP_PROP_FRAME_WIDTH), drawn.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (800, 400)
    assert not (out / "predictions.csv").exists()  # of pictures, of which there were none
    assert sorted(path.name for path in out.iterdir()) == ["a.mp4", "a.mp4.csv"]


def test_a_line_of_json_for_each_frame(checkpoint, faces, tmp_path, capsys):
    path = record(tmp_path / "a.avi", [scene((faces[0], 100, 100))] * 20 + [scene()] * 20)
    assert main(["predict", "--json", "--checkpoint", str(checkpoint), str(path)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["file"], row["frame"], row["seconds"]) for row in rows] == [
        (str(path), 5 * i, pytest.approx(i / 5, abs=2e-3)) for i in range(8)
    ]
    assert [[face["track"] for face in row["faces"]] for row in rows] == [[1]] * 4 + [[]] * 4
    assert {tuple(row["size"]) for row in rows} == {(800, 400)}


def test_the_annotated_video_takes_as_long_as_the_video(checkpoint, tmp_path, monkeypatch):
    """Frames that come unevenly are shown until the next one."""
    times = [0, 0.04, 0.08, 1.5, 1.54, 1.9, 4.0]
    monkeypatch.setattr(video_module, "open_video", lambda path: Stub(times))
    path = tmp_path / "x.mp4"
    path.write_bytes(b"\0\0\0 ftypisom")
    assert main(["predict", "--checkpoint", str(checkpoint), str(path), "--out", str(tmp_path / "out")]) == 0
    drawn = cv2.VideoCapture(str(tmp_path / "out" / "x.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 21
    assert drawn.get(cv2.CAP_PROP_FPS) == 5


@pytest.mark.parametrize("stop", [None, KeyboardInterrupt])
def test_a_full_disk_leaves_no_half_video(tmp_path, stop):
    film, noise = Film(tmp_path / "a.mp4", 5.0, ()), np.random.default_rng(0)

    def write():
        for slot in range(9):
            image = noise.integers(256, size=(480, 640, 3), dtype=np.uint8)
            film.add(Followed(Frame(slot, slot / 5, slot, image), [], []))
        if stop:
            raise stop

    with limited(100_000), pytest.raises(stop or InputError) as caught, film:
        write()
    assert stop or str(caught.value) == f"{tmp_path / 'a.mp4'}: the video cannot be written whole; is the disk full?"
    assert list(tmp_path.iterdir()) == []


@contextmanager
def limited(size):
    """Files of this process of at most so many bytes, like a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_videos_that_are_broken_are_named_and_the_rest_done(checkpoint, tmp_path, capsys):
    good = write_video(tmp_path / "good.avi", film(50, step=5))
    data = good.read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mov").write_bytes(b"#EXTM3U\nhttp://localhost/x")
    cv2.VideoWriter(str(tmp_path / "zero.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48)).release()
    names = ("gone.mp4", "cut.avi", "empty.mp4", "text.mov", "zero.avi", "good.avi")
    given = [str(tmp_path / name) for name in names]
    assert main(["predict", "--checkpoint", str(checkpoint), *given, "--out", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err.splitlines()
    said = {name: [line.partition(": ")[2] for line in errors if f"/{name}:" in line] for name in names}
    assert ["error" in "".join(lines) for lines in said.values()] == [True, False, True, True, True, False]
    assert "cut short" in said["cut.avi"][1]
    assert "no face was found in 10 frames" in said["good.avi"][-1]
    assert "No such file" in said["gone.mp4"][0]
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["cut.avi.mp4", "cut.avi.mp4.csv", "good.avi.mp4", "good.avi.mp4.csv"]
    assert main(["predict", "--json", "--checkpoint", str(checkpoint), given[3]]) == 2
    assert "not a video" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize("shape", [(16, 1600), (8, 8), (2161, 3841)])
def test_frames_of_any_size(checkpoint, tmp_path, shape):
    path = record(tmp_path / "a.mkv", [np.full((*shape, 3), 9 * i, np.uint8) for i in range(9)], code="MJPG")
    given = ["predict", "--checkpoint", str(checkpoint), str(path), "--faces", "whole", "--out", str(tmp_path / "out")]
    assert main(given) == 0
    drawn = cv2.VideoCapture(str(tmp_path / "out" / "a.mkv.mp4"))
    size = drawn.get(cv2.CAP_PROP_FRAME_WIDTH), drawn.get(cv2.CAP_PROP_FRAME_HEIGHT)
    assert 640 <= max(size) <= 1920
    assert len({line["track"] for line in listed(tmp_path / "out" / "a.mkv.mp4.csv")}) == 1


def test_frames_that_wait_are_bounded_by_their_size(monkeypatch):
    class Large(Stub):
        def get(self, what):
            return 8192 if what in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT) else super().get(what)

    monkeypatch.setattr(video_module, "open_video", lambda path: Large([0.0]))
    assert Sampled("x").most == 1
    monkeypatch.setattr(video_module, "open_video", lambda path: Stub([0.0]))
    assert Sampled("x").most == 64


def test_results_that_are_there_stay(checkpoint, tmp_path, capsys):
    path = write_video(tmp_path / "a.avi", film(5))
    (tmp_path / "a.avi.mp4.csv").write_text("mine")
    given = ["predict", "--checkpoint", checkpoint, path, "--out"]
    assert "a.avi.mp4.csv is there already" in fails([*given, tmp_path], capsys)
    moved = path.rename(tmp_path / "a.mp4")
    assert "a.mp4 is there already" in fails([*given[:-2], moved, "--out", tmp_path], capsys)


def test_a_video_is_read_once_and_a_missing_one_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"x\.avi: No such file or directory"):
        Sampled(str(tmp_path / "x.avi"))
    path = write_video(tmp_path / "a.avi", film(20, step=10))
    opened = []
    real = video_module.open_video
    monkeypatch.setattr(video_module, "open_video", lambda p: opened.append(p) or real(p))
    assert len(list(Sampled(str(path)))) == 4
    assert opened == [str(path)]
