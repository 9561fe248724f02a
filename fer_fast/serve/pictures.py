"""From what people hand over (files, arrays, tensors) to the faces that a model takes."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, TypeAlias, TypeVar

import cv2
import numpy as np
from PIL import Image
from torch import Tensor

from fer_fast.data.decode import decode, from_pillow
from fer_fast.data.pictures import Files
from fer_fast.data.prepare import Preparation, Prepared, prepare, prepare_each
from fer_fast.errors import InputError
from fer_fast.serve.threads import cores

Picture: TypeAlias = str | os.PathLike[str] | bytes | np.ndarray | Image.Image | Tensor
Which: TypeAlias = Literal["all", "largest", "whole"]
WHICH: tuple[Which, ...] = ("all", "largest", "whole")
BATCH = 64  # faces that go through the network at once
AHEAD = 64  # pictures that are decoded before anybody asked for them

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def pixels(picture: Picture, *, gray: bool) -> np.ndarray:
    """A picture as `fer_fast.data.decode` gives it: uint8 (height, width), or (height, width, 3) RGB.

    Args:
        picture: an image file, or all bytes of one; uint8 (height, width[, 1 or 3]) RGB as an array; a PIL image, which
            is turned as its camera says; a uint8 tensor of shape (1 or 3, height, width), as torchvision reads it.
        gray: whether one channel is wanted.

    Raises:
        InputError: none of these, or a file that cannot be read, which is named.
    """
    if isinstance(picture, str | os.PathLike):
        return _from_file(os.fspath(picture), gray)
    if isinstance(picture, bytes):
        return decode(picture, gray=gray)
    if isinstance(picture, Image.Image):
        picture = from_pillow(picture)
    elif isinstance(picture, Tensor):
        picture = picture.detach().cpu().movedim(0, -1).numpy() if picture.ndim == 3 else picture.detach().cpu().numpy()
    if not isinstance(picture, np.ndarray):
        raise InputError(f"images: a file, an array, a tensor or a PIL image is needed, got {type(picture).__name__}")
    flat = picture[..., 0] if picture.ndim == 3 and picture.shape[-1] == 1 else picture
    if picture.dtype != np.uint8 or not picture.size or not (flat.ndim == 2 or (flat.ndim == 3 and flat.shape[2] == 3)):
        raise InputError(
            f"images: uint8 of shape (height, width) or (height, width, 3) is needed, got {picture.dtype} "
            f"{picture.shape}"
        )
    if gray and flat.ndim == 3:
        flat = cv2.cvtColor(np.ascontiguousarray(flat), cv2.COLOR_RGB2GRAY)
    return np.ascontiguousarray(flat)


def _from_file(path: str, gray: bool) -> np.ndarray:
    try:
        return Files([path]).read(0, gray=gray)
    except (InputError, OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def several(images: Picture | Iterable[Picture]) -> Iterable[Picture]:
    """One picture or several, as several."""
    one = isinstance(images, str | os.PathLike | bytes | np.ndarray | Tensor) or not isinstance(images, Iterable)
    if one and isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
        return iter(images)
    return [images] if one else images


def cut(image: np.ndarray, how: Preparation, which: Which) -> list[Prepared]:
    """The faces of a picture as the model takes them.

    Args:
        image: as `pixels` gives it.
        how: the model's own preparation.
        which: all: every face found, the largest first; largest: that alone; whole: the picture is a face already.
            Where none is found, both give the central square, of which `found` is False.
    """
    if which == "all":
        return prepare_each(image, how)
    return [prepare(image, None, how.whole() if which == "whole" else how)]


def ahead(items: Iterable[_In], do: Callable[[_In], _Out], most: int = AHEAD) -> Iterator[tuple[_In, Future[_Out]]]:
    """Items and what `do` gives for each, done by as many threads as there are cores, in order, a bounded way ahead."""
    waiting: deque[tuple[_In, Future[_Out]]] = deque()
    pool = ThreadPoolExecutor(cores())
    try:
        for item in items:
            waiting.append((item, pool.submit(do, item)))
            if len(waiting) > most:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
