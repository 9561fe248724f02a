"""Backbones small enough for hundreds of tests, a configuration of theirs, and runs without pictures."""

import torch

from fer_fast.train.backbones import BACKBONES, BackboneInfo
from fer_fast.train.config import config_parser, recipe_layer, resolve

SIDE = 32  # of the images of `configure`


class Tiny(torch.nn.Module):
    """Without BatchNorm, so batches can be split."""

    def __init__(self, channels):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, 8, 5, stride=4)

    def forward(self, images):
        return self.conv(images).relu().mean((2, 3))


TINY = BackboneInfo("a test", 8, Tiny)


class Normed(torch.nn.Module):
    """With BatchNorm, whose statistics move in every forward."""

    def __init__(self, channels):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, 8, 5, stride=4)
        self.norm = torch.nn.BatchNorm2d(8)

    def forward(self, images):
        return self.norm(self.conv(images)).relu().mean((2, 3))


def configure(*flags, recipe="quick"):
    """Two epochs of the tiny network, and what the flags say of the rest."""
    tiny = ("--backbone", "tiny", "--augment.size", str(SIDE), "--batch_size", "8", "--epochs", "2")
    tiny += ("--hardware.precision", "float32", "--ema", "0")
    return resolve(config_parser(), [*tiny, *flags], [recipe_layer(recipe)])[0]


def quicken(patch):
    """A network that trains in an instant, and no pictures in the reports of runs."""
    patch.setitem(BACKBONES, "tiny", TINY)
    patch.setattr("fer_fast.train.report.write_report", lambda path, **_: path.touch())
