"""Videos: frames at a rate, the faces of each named and followed, and the video with these drawn on it."""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from fer_fast.data.prepare import Prepared
from fer_fast.data.videos import open_video, spelled
from fer_fast.errors import InputError
from fer_fast.serve.drawing import draw, marks
from fer_fast.serve.model import BATCH, FaceModel, NamedFace
from fer_fast.serve.pictures import AHEAD, Which, ahead, cut
from fer_fast.serve.tracks import Tracker

RATE = 5.0  # frames a second
_SIDES = 640, 1920  # the longer side of an annotated video lies between; its codec takes no 8 192 pixels
_USUAL = 25.0  # frames a second of a video that does not say
_LONGEST = 3600.0  # seconds: a time further from the one before is a mistake
_MEMORY = 1 << 28  # bytes of frames that wait at once


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
        number: from 0, of all frames.
        seconds: after the first frame.
        slot: of the moments that the rate gives, the one it stands for.
        image: uint8 (height, width, 3) BGR.
    """

    number: int
    seconds: float
    slot: int
    image: np.ndarray


class Sampled:
    """Frames of a video at a rate, decoded once and in order.

    Of the frames around each moment k / rate the first is taken: at most half the time of a frame earlier. Times are
    those of the file, also where frames come unevenly; where these make no sense, a frame follows the one before at the
    rate of the video.

    Attributes:
        rate: frames a second, at most the video's own.
        expected: how many frames the video says it has; 0 where it does not say.
        frames: how many were read so far, all counted.
        taken: how many of these were given.
        seconds: when the last one was.

    Raises:
        InputError: it cannot be opened as a video.
    """

    def __init__(self, path: str, rate: float = RATE):
        try:
            self._video = open_video(path)
        except (InputError, OSError) as error:
            raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
        own = self._video.get(cv2.CAP_PROP_FPS)
        self.path, self.own = path, own if 0 < own <= 1000 else _USUAL
        self.rate, self.frames, self.taken, self.seconds = min(rate, self.own), 0, 0, 0.0
        count = self._video.get(cv2.CAP_PROP_FRAME_COUNT)
        self.expected = int(count) if 0 < count < 1 << 31 else 0
        pixels = self._video.get(cv2.CAP_PROP_FRAME_WIDTH) * self._video.get(cv2.CAP_PROP_FRAME_HEIGHT)
        # Half of them are ahead, half wait for a batch to be full.
        self.most = int(min(max(_MEMORY / (2 * 3 * pixels), 1), AHEAD))

    def __iter__(self) -> Iterator[Frame]:
        last, start = -1, 0.0
        while self._video.grab():
            now = self._video.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if not self.frames:
                start = now if math.isfinite(now) else 0.0
            elif not self.seconds < now - start < self.seconds + _LONGEST:
                self.seconds += 1 / self.own
            else:
                self.seconds = now - start
            number, self.frames = self.frames, self.frames + 1
            slot = math.floor((self.seconds + 0.5 / self.own) * self.rate)
            if slot > last:
                good, image = self._video.retrieve()
                if not good:
                    self.frames -= 1
                    return
                last, self.taken = slot, self.taken + 1
                yield Frame(number, self.seconds, slot, image)

    def cut_short(self) -> str | None:
        """A line for a video that ended before the time it says it has; None where it did not."""
        whole, read = self.expected / self.own, self.seconds + 1 / self.own
        if not self.frames or read >= whole - max(2 / self.own, 0.01 * whole):
            return None
        return f"{self.path}: cut short: {self.frames} of about {self.expected} frames could be read, {read:.1f} s"


class Followed(NamedTuple):
    """A frame, its faces with scores averaged over time, and the number that each keeps from frame to frame."""

    frame: Frame
    numbers: list[int]
    faces: list[NamedFace]


def watch(
    model: FaceModel,
    sampled: Sampled,
    *,
    faces: Which = "all",
    tracker: Tracker | None = None,
    progress: Callable[[int], None] = lambda frames: None,
) -> Iterator[Followed]:
    """Name the faces of a video's frames and follow them, in batches over frames, of which a bounded number wait.

    Args:
        model: what names them.
        sampled: the frames.
        faces: all, or the largest of each frame; whole: each frame is a face already.
        tracker: how faces are followed; see there for what becomes of scores and cosines.
        progress: called with the number of frames read so far.
    """
    how, tracker = model.trained.preparation(), tracker or Tracker()
    code = cv2.COLOR_BGR2GRAY if how.channels == 1 else cv2.COLOR_BGR2RGB

    def find(frame: Frame) -> list[Prepared]:
        return [face for face in cut(cv2.cvtColor(frame.image, code), how, faces) if face.found]

    waiting: list[tuple[Frame, list[Prepared]]] = []
    for frame, found in ahead(sampled, find, sampled.most):
        waiting.append((frame, found.result()))
        if len(waiting) >= sampled.most or sum(len(prepared) for _, prepared in waiting) >= BATCH:
            yield from _followed(model, waiting, tracker)
            progress(sampled.frames)
            waiting = []
    yield from _followed(model, waiting, tracker)
    progress(sampled.frames)


def _followed(model: FaceModel, waiting: list[tuple[Frame, list[Prepared]]], tracker: Tracker) -> Iterator[Followed]:
    features, scores = model.score([face for _, faces in waiting for face in faces])
    cosines = model.cosines(features)
    measured = (scores if cosines is None else torch.cat((scores, cosines), 1)).double().numpy()
    start = 0
    for frame, faces in waiting:
        own = measured[start : start + len(faces)]
        start += len(faces)
        boxes = np.array([face.box for face in faces], dtype=float).reshape(-1, 4)
        numbers, averages = tracker.follow(frame.seconds, boxes, own)
        smooth = torch.from_numpy(averages).split(scores.shape[1], dim=1)
        # The cosines' average may have another best class than that of the scores, which people see.
        best = smooth[0].argmax(1)
        yield Followed(frame, numbers, model.named(faces, best, smooth[0], None if cosines is None else smooth[1]))


class Film:
    """A video of the frames with their faces drawn on it, MPEG-4, as a context.

    It has the sampled frames only, each shown until the next one: it takes as long as the video it was made of. The
    longer side is brought between 640 and 1 920 pixels. The file appears, whole, at the end of the context, however
    that is left.

    Raises:
        InputError: at the end, it could not be written whole; nothing is left of it.
    """

    def __init__(self, path: Path, rate: float, classes: tuple[str, ...]):
        self.path, self.rate, self.classes = path, rate, classes
        self._writer: cv2.VideoWriter | None = None
        self._slot = -1
        self._shown: np.ndarray | None = None

    def __enter__(self) -> "Film":
        self._folder = os.open(self.path.parent, os.O_RDONLY)
        self._part = f".predict-{os.getpid()}.mp4"
        return self

    def add(self, followed: Followed) -> None:
        """The next frame."""
        frame = followed.frame
        image = cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB)
        side = min(max(*image.shape[:2], _SIDES[0]), _SIDES[1])
        page = draw(image, marks(followed.faces, self.classes, (f"#{number}" for number in followed.numbers)), side)
        if self._writer is None:
            self._size = tuple(length // 2 * 2 for length in page.shape[1::-1])  # the codec takes even sides
            self._writer = self._open()
        while self._shown is not None and self._slot + 1 < frame.slot:
            self._write(self._shown)
        shown = cv2.cvtColor(page, cv2.COLOR_RGB2BGR)
        if shown.shape[1::-1] != self._size:
            shown = cv2.resize(shown, self._size, interpolation=cv2.INTER_AREA)
        self._shown = shown
        self._write(shown)

    def _write(self, image: np.ndarray) -> None:
        self._writer.write(image)
        self._slot += 1

    def _open(self) -> cv2.VideoWriter:
        writer = cv2.VideoWriter(self._name(), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), self.rate, self._size)
        if not writer.isOpened():
            raise InputError(f"{self.path}: OpenCV cannot write a video of {self._size[0]} × {self._size[1]} there")
        return writer

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        part, whole = self.path.parent / self._part, True
        try:
            if self._writer is not None:
                self._writer.release()
                if whole := self._is_whole():
                    os.replace(part, self.path)
        finally:
            part.unlink(missing_ok=True)
            os.close(self._folder)
        if not whole and kind is None:
            raise InputError(f"{self.path}: the video cannot be written whole; is the disk full?")

    def _is_whole(self) -> bool:
        """OpenCV does not say where a disk was full."""
        written = cv2.VideoCapture(self._name(), cv2.CAP_FFMPEG)
        return written.isOpened() and written.get(cv2.CAP_PROP_FRAME_COUNT) == self._slot + 1

    def _name(self) -> str:
        return os.path.join(spelled(self.path.parent, self._folder), self._part)
