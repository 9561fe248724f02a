"""A model whose features are known by hand: the means of an image's quarters."""

import numpy as np
import torch

from fer_fast.train.backbones import BackboneInfo
from fer_fast.train.checkpoint import save_checkpoint
from fer_fast.train.config import RunConfig, config_parser, resolve, to_dict
from fer_fast.train.learner import build_recogniser
from fer_fast.train.objective import plan_losses

SIDE = 32
SEVEN = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger")


class Quarters(torch.nn.Module):
    """Four features: the mean of each quarter of the image, 2 where it is white and -2 where it is black."""

    def __init__(self, channels):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, images):
        return self.scale * torch.nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), 2).flatten(1)


QUARTERS = BackboneInfo("a test", 4, Quarters)


def quarters_run(folder, *flags, classes=SEVEN, **state):
    """A checkpoint of such a model, its class weights drawn; the backbone "quarters" has to be on the list."""
    flags = ["--backbone=quarters", "--loss=lmcl", f"--augment.size={SIDE}", "--hardware.device=cpu", *flags]
    config: RunConfig = resolve(config_parser(), flags, [])[0]
    torch.manual_seed(0)
    recogniser = build_recogniser(config, plan_losses(config), torch.ones(len(classes)), classes)
    folder.mkdir(parents=True, exist_ok=True)
    about = {"config": to_dict(config), "classes": list(classes), "images": [config.augment.channels, SIDE]}
    save_checkpoint(folder, recogniser.state_dict(), {**about, **state})
    return folder


def picture(quarters, seed=0, noise=0):
    """uint8 (32, 32): a gray for each quarter, 0 to 255, and noise of that height."""
    half = SIDE // 2
    gray = np.kron(np.array(quarters).reshape(2, 2), np.ones((half, half)))
    gray = gray + np.random.default_rng(seed).uniform(-noise, noise, gray.shape)
    return gray.clip(0, 255).round().astype(np.uint8)


def features(image):
    """(4,) in float64, as the model sees a picture."""
    half = SIDE // 2
    means = image.astype(np.float64).reshape(2, half, 2, half).mean((1, 3)).reshape(4)
    return 4 * means / 255 - 2
