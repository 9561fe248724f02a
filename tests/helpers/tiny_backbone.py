"""A backbone small enough for hundreds of tests."""

import torch

from fer_fast.train.backbones import BackboneInfo


class Tiny(torch.nn.Module):
    """Without BatchNorm, so batches can be split."""

    def __init__(self, channels):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, 8, 5, stride=4)

    def forward(self, images):
        return self.conv(images).relu().mean((2, 3))


TINY = BackboneInfo("a test", 8, Tiny)
