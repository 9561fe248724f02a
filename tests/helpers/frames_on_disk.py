"""Small pictures and videos for trees of datasets as people have them."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

WIDTH, HEIGHT = 64, 48  # of a film


def picture(value: int = 128, *, width: int = 48, height: int = 48, gray: bool = True) -> np.ndarray:
    """A ramp around `value`: no two values give the same picture."""
    ramp = np.linspace(-20, 20, width * height).reshape(height, width)
    image = np.clip(value + ramp, 0, 255).astype(np.uint8)
    return image if gray else np.dstack([image, 255 - image, image // 2])


def film(count=9, *, width=WIDTH, height=HEIGHT, step=20):
    """Frame i is of the gray i · step; its left half has a bright bar at the top, its right half one at the bottom."""
    frames = []
    for i in range(count):
        frame = np.full((height, width, 3), i * step, np.uint8)
        frame[: height // 4, : width // 2] = 255
        frame[-height // 4 :, width // 2 :] = 255
        frames.append(frame)
    return frames


def write_picture(path: Path, value: int = 128, **keywords) -> Path:
    """An image file, in the format of its ending; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    good, data = cv2.imencode(path.suffix.lower(), picture(value, **keywords))
    assert good
    path.write_bytes(data)
    return path


def write_video(path: Path, frames: Iterable[np.ndarray]) -> Path:
    """Motion JPEG in avi, uint8 (height, width, 3) BGR."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = list(frames)
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def refuse(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Files of this name may not be opened, as where their owner is another user."""
    real = Path.open

    def open_file(path, *arguments, **keywords):
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", open_file)
