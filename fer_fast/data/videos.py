"""Pictures that are frames of videos."""

import os
import re
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np

from fer_fast.data.decode import decode
from fer_fast.data.files import IMAGE_SUFFIXES
from fer_fast.data.pictures import Pictures, check_regular, file_bytes, stamp_of
from fer_fast.errors import InputError

# What is wrong with a video is said once, by name.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

VIDEO_SUFFIXES = (".avi", ".mp4", ".mov", ".m4v", ".mpg", ".mpeg", ".mkv", ".webm", ".wmv")
STILL = -1  # the number of the frame of an image file
MOST_PIXELS = 1 << 26
# How these containers begin. FFmpeg goes by content, and would follow a playlist under any name to other files.
_CONTAINERS = re.compile(
    rb"RIFF....AVI |....(?:ftyp|moov|mdat|wide|free|skip)|\x00\x00\x01[\xba\xb3]|\x1aE\xdf\xa3|0&\xb2u\x8ef\xcf\x11",
    re.DOTALL,
)
# AVIF and HEIF, pictures in such a container.
_STILLS = re.compile(rb"....ftyp(?:avi[fs]|he[iv][cmsx]|mif1|msf1)", re.DOTALL)
# MMI stores frontal views lying on their side, except those of 480 rows.
_UPRIGHT_ROWS = 480

View = Literal["whole", "lying", "left", "right"]


def open_video(path: Path | str) -> cv2.VideoCapture:
    """A video at its first frame.

    Raises:
        InputError: it cannot be opened as a video.
        OSError: it cannot be read.
    """
    check_regular(path)
    with open(path, "rb") as file:
        known = _CONTAINERS.match(file.read(16))
        # One thread a video: the cache already reads many at once.
        options = [cv2.CAP_PROP_N_THREADS, 1]
        video = cv2.VideoCapture(spelled(path, file.fileno()), cv2.CAP_FFMPEG, options) if known else None
    if video is None or not video.isOpened():
        raise InputError("not a video that can be opened")
    if not 0 < video.get(cv2.CAP_PROP_FRAME_WIDTH) * video.get(cv2.CAP_PROP_FRAME_HEIGHT) <= MOST_PIXELS:
        raise InputError(f"a video of frames without size, or of more than {MOST_PIXELS} pixels")
    return video


def looks_like_video(path: Path | str) -> bool:
    """Whether a file is to be read as a video: by its ending, else as it begins."""
    name = os.fspath(path).lower()
    if name.endswith(VIDEO_SUFFIXES) or name.endswith(IMAGE_SUFFIXES) or not os.path.isfile(path):
        return name.endswith(VIDEO_SUFFIXES) and not os.path.isdir(path)
    try:
        with open(path, "rb") as file:
            begins = file.read(16)
    except OSError:  # said by whatever reads it
        return False
    return bool(_CONTAINERS.match(begins)) and not _STILLS.match(begins)


def spelled(path: Path | str, descriptor: int) -> str:
    """A name for OpenCV of a file or folder that is open; one that is not UTF-8 would end the process."""
    name = os.path.abspath(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"/dev/fd/{descriptor}"
    return name


def count_frames(path: Path | str) -> int:
    """How many frames a video says it has.

    Raises:
        InputError: it cannot be opened, or says nothing.
    """
    video = open_video(path)
    count = video.get(cv2.CAP_PROP_FRAME_COUNT)
    if not 1 <= count < 1 << 24:
        raise InputError("a video that does not say how many frames it has")
    return int(count)


class _Playing(NamedTuple):
    """A video that a thread has open, and the frame that comes next."""

    path: str
    following: int
    video: cv2.VideoCapture


class Frames(Pictures):
    """Frames of videos, and image files beside them."""

    def __init__(self, paths: Sequence[Path | str], frames: Sequence[int], views: Sequence[View]):
        """One entry a picture.

        Args:
            paths: of the video, or of the image.
            frames: number of the frame, from 0; `STILL` for an image.
            views: what of a frame is shown. whole: all of it; lying: turned 90° clockwise, except frames of 480 rows;
                left, right: that half. Images are shown as they are.
        """
        self.paths, self.frames, self.views = [os.fspath(path) for path in paths], list(frames), list(views)
        self._playing = threading.local()

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int, *, gray: bool) -> np.ndarray:
        path, frame = self.paths[index], self.frames[index]
        if frame == STILL:
            return decode(file_bytes(path), gray=gray)
        image = cv2.cvtColor(self._frame(path, frame), cv2.COLOR_BGR2GRAY if gray else cv2.COLOR_BGR2RGB)
        return np.ascontiguousarray(_shown(image, self.views[index]))

    def stamp(self) -> Iterable[str]:
        yield from map(stamp_of, dict.fromkeys(self.paths))
        rows = zip(self.paths, self.frames, self.views, strict=True)
        yield from (f"{path} {frame} {view}" for path, frame, view in rows)

    def take(self, rows: np.ndarray) -> "Frames":
        chosen = rows.tolist()
        columns = (self.paths, self.frames, self.views)
        return Frames(*([column[row] for row in chosen] for column in columns))

    def _frame(self, path: str, frame: int) -> np.ndarray:
        """Counted from the first frame: seeking lands elsewhere in some codecs. A thread goes on where it stopped."""
        playing: _Playing | None = self._playing.__dict__.pop("now", None)
        if playing is None or playing.path != path or playing.following > frame:
            playing = _Playing(path, 0, open_video(path))
        for number in range(playing.following, frame):
            if not playing.video.grab():
                raise InputError(f"a video that ends after {number} frames, before frame {frame}")
        good, image = playing.video.read()
        if not good:
            raise InputError(f"a video whose frame {frame} cannot be read")
        self._playing.now = playing._replace(following=frame + 1)
        return image


def _shown(image: np.ndarray, view: View) -> np.ndarray:
    height, width = image.shape[:2]
    if view == "lying" and height != _UPRIGHT_ROWS:
        return cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)
    halves = {"left": image[:, : width // 2], "right": image[:, width // 2 :]}
    return halves.get(view, image)
