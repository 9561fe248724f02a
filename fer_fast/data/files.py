"""Images in folders: which files there are, and decoding many of them at once."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def list_images(folder: Path) -> list[Path]:
    """The image files directly in `folder`, by name, without hidden ones, which copies from a Mac bring along."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def list_folders(folder: Path) -> list[Path]:
    """The folders directly in `folder`, by name, without hidden ones."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX")))


def decode_gray(paths: Sequence[Path], size: int) -> tuple[Tensor, dict[int, str], dict[int, str]]:
    """Decodes files with a pool of threads (the decoder releases the interpreter lock).

    Returns:
        images uint8 (n, 1, size, size), resized where a file has another size and zero where it cannot be read;
        faults: position -> what is wrong with a file that cannot be read;
        resized: position -> the size of a file that had another one.
    """
    images = np.zeros((len(paths), 1, size, size), dtype=np.uint8)
    faults: dict[int, str] = {}
    resized: dict[int, str] = {}

    def decode(position: int) -> None:
        try:
            # Not cv2.imread: it cannot open names beyond ASCII on Windows.
            image = cv2.imdecode(np.fromfile(paths[position], dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
        except (OSError, cv2.error) as error:
            faults[position] = f"cannot be read ({str(error).strip().splitlines()[-1]})"
            return
        if image is None:
            faults[position] = "is not an image that can be decoded"
            return
        if image.shape != (size, size):
            resized[position] = f"{image.shape[1]}×{image.shape[0]}"
            image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
        images[position, 0] = image

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        list(pool.map(decode, range(len(paths)), chunksize=256))
    return torch.from_numpy(images), faults, resized
