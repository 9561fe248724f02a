"""Checkpoints of networks that nobody trained: quick, and enough for what does not ask whether they are right."""

import torch

from fer_fast.data import load_dataset
from tiny_model import CLASSES, keep, tiny_model

SIDE = 48


def untrained(folder, *flags, loss="lmcl", backbone="mobilenetv3", classes=CLASSES, channels=1, **state):
    """Write the checkpoint of a network with its first weights, the same ones each time."""
    given = ("--backbone", backbone, "--loss", loss, "--augment.size", str(SIDE))
    return keep(tiny_model(*given, *flags, images=(channels, SIDE), classes=classes, **state), folder)


def photograph(faces=1, gap=100, side=160):
    """A picture of generated faces beside one another: uint8 (height, width, 3) RGB."""
    images = load_dataset("faces", split="val", image_size=side, channels=3, samples=7 * -(-faces // 7)).images[:faces]
    picture = torch.full((side + 2 * gap, faces * (side + gap) + gap, 3), 90, dtype=torch.uint8)
    for number, face in enumerate(images):
        left = gap + number * (side + gap)
        picture[gap : gap + side, left : left + side] = face.permute(1, 2, 0)
    return picture.numpy()
