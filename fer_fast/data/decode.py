"""From the bytes of an image file to pixels, the way a viewer shows them."""

import cv2
import numpy as np

from fer_fast.errors import InputError


def decode(data: bytes, *, gray: bool) -> np.ndarray:
    """Bytes of an image file -> uint8 (height, width), or (height, width, 3) RGB.

    Raises:
        InputError: no image, or a broken one; the reason in one line.
    """
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise InputError("not an image that can be decoded")
    return image
