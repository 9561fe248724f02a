"""Images that are the same, or nearly: a 64-bit difference hash of each."""

import cv2
import numpy as np


def difference_hash(image: np.ndarray) -> np.int64:
    """64 bits of an image uint8 (height, width, 1 or 3): whether each of 8×8 places is brighter than its right neighbour."""
    gray = image[..., 0] if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (9, 8), interpolation=cv2.INTER_AREA)
    return np.packbits(small[:, :-1] > small[:, 1:]).view(np.int64)[0]
