"""What of a face speaks for a class: class-activation maps laid over faces."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from fer_fast.data.prepare import Prepared
from fer_fast.serve.model import FaceModel
from fer_fast.train.activation import heated

SHOWN = 160  # pixels of a side


def explained(model: FaceModel, faces: Sequence[Prepared], classes: Sequence[int]) -> list[np.ndarray]:
    """Faces under the class activation of these classes (see `Trained.activation`): uint8 (160, 160, 3) RGB each.

    Args:
        faces: as `fer_fast.serve.pictures.cut` gives them.
        classes: one a face, as index into the model's classes.
    """
    if not faces:
        return []
    images = torch.from_numpy(np.stack([face.pixels for face in faces])).permute(0, 3, 1, 2).contiguous()
    maps = model.trained.activation(images, torch.tensor(classes)).cpu().numpy()
    return [heated(shown(face), seen) for face, seen in zip(faces, maps, strict=True)]


def shown(face: Prepared) -> np.ndarray:
    """A face at the size of the page: uint8 (160, 160, 3) RGB."""
    image = cv2.resize(face.pixels, (SHOWN, SHOWN), interpolation=cv2.INTER_CUBIC)
    return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
