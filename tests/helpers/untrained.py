"""Checkpoints of networks that nobody trained: quick, and enough for what does not ask whether they are right."""

import torch

from fer_fast.data import load_dataset
from fer_fast.train.checkpoint import save_checkpoint
from fer_fast.train.config import config_parser, recipe_layer, resolve, to_dict
from fer_fast.train.learner import build_recogniser
from fer_fast.train.objective import plan_losses

CLASSES = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger")
SIDE = 48


def untrained(folder, *flags, loss="lmcl", backbone="mobilenetv3", classes=CLASSES, channels=1, **state):
    """Write the checkpoint of a network with its first weights, the same ones each time."""
    given = ("--backbone", backbone, "--loss", loss, "--augment.size", str(SIDE), "--hardware.precision", "float32")
    config = resolve(config_parser(), [*given, *flags], [recipe_layer("quick")])[0]
    torch.manual_seed(0)
    recogniser = build_recogniser(config, plan_losses(config), torch.ones(len(classes)), classes)
    folder.mkdir(parents=True, exist_ok=True)
    about = {"config": to_dict(config), "classes": list(classes), "images": [channels, SIDE], **state}
    save_checkpoint(folder, recogniser.state_dict(), about)
    return folder


def photograph(faces=1, gap=100, side=160):
    """A picture of generated faces beside one another: uint8 (height, width, 3) RGB."""
    images = load_dataset("faces", split="val", image_size=side, channels=3, samples=7 * -(-faces // 7)).images[:faces]
    picture = torch.full((side + 2 * gap, faces * (side + gap) + gap, 3), 90, dtype=torch.uint8)
    for number, face in enumerate(images):
        left = gap + number * (side + gap)
        picture[gap : gap + side, left : left + side] = face.permute(1, 2, 0)
    return picture.numpy()
