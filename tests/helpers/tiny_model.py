"""Models that nobody trained, as objects and as checkpoints: what is done with a model is tested on them."""

import torch

from fer_fast.train.checkpoint import save_checkpoint
from fer_fast.train.config import to_dict
from fer_fast.train.evaluation import Trained
from fer_fast.train.hardware import Hardware
from fer_fast.train.learner import build_recogniser
from fer_fast.train.objective import plan_losses
from tiny_backbone import SIDE, configure

CLASSES = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger")


def tiny_model(*flags, images=(1, SIDE), classes=CLASSES, **state):
    """A model of `configure` with these flags; its statistics of BatchNorm and its scores are no trivial ones."""
    torch.manual_seed(0)
    config = configure("--hardware.device", "cpu", *flags)
    recogniser = build_recogniser(config, plan_losses(config), torch.ones(len(classes)), classes)
    for module in recogniser.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    torch.nn.init.normal_(recogniser.classifier.weight)
    hardware = Hardware(config.hardware)
    state = {"config": to_dict(config), "classes": list(classes), "images": list(images), **state}
    return Trained(hardware.place(recogniser).eval(), classes, config, hardware, state, recogniser.state_dict().keys())


def keep(trained, folder):
    """Write its checkpoint; gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(folder, trained.recogniser.state_dict(), trained.state)
    return folder
