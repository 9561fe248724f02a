"""Where in an image a class is seen: LayerCAM, a class activation map that is told apart also on earlier maps."""

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_fast.train.models import Recogniser

_HEAT = 0.65  # of the colour where a map is 1
POSITIONS = 36  # of the map that is looked at: six by six tell eyes from mouth
PART = 8  # images at a time: gradients keep the activations of every layer


def class_activation(recogniser: Recogniser, images: Tensor, classes: Tensor) -> Tensor:
    """How much each place of an image speaks for a class: float32 (n, h, w) in [0, 1], 1 at the strongest place.

    L = max(0, Σ_k max(0, ∂z_c/∂A_k) A_k), A_k the channels of the last map of the network that has 36 positions or more
    (else of the largest), z_c the logit without a margin; enlarged bilinearly to the image and divided by its maximum.
    All 0 where nothing speaks for the class. ResNet-18's last map of 48 pixels has four positions, on which Grad-CAM,
    whose weights are the slopes' means, paints a corner of every face; on earlier maps these means say little.
    With a linear classifier of positive weights w on a pooled map L is the class activation map Σ_k w_ck A_k.

    The recogniser is used in evaluation mode and left in the mode it was in; its gradients stay as they are.

    Args:
        recogniser: of any backbone and head.
        images: float (n, c, h, w) as the network takes them, normalised, on its device.
        classes: int64 (n,), the class of each image to look for, on the same device.

    Source: P.-T. Jiang et al., LayerCAM: exploring hierarchical class activation maps for localization, 2021.
    """
    if not len(images):
        return images.new_zeros(0, *images.shape[-2:], dtype=torch.float32)
    training = recogniser.training
    recogniser.eval()
    with torch.inference_mode(False), torch.enable_grad():
        pairs = zip(images.split(PART), classes.split(PART), strict=True)
        maps = torch.cat([_activation(recogniser, *pair) for pair in pairs])
    recogniser.train(training)
    return maps


def heated(face: np.ndarray, found: np.ndarray) -> np.ndarray:
    """A face under its map: the stronger, the less of the face and the more of the colour.

    Args:
        face: uint8 (height, width, 3) RGB.
        found: (h, w) in [0, 1], as `class_activation` gives one.
    """
    found = cv2.resize(found, face.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap((255 * found).round().astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    share = _HEAT * found[..., None]
    return ((1 - share) * face + share * colours).round().astype(np.uint8)


def _activation(recogniser: Recogniser, images: Tensor, classes: Tensor) -> Tensor:
    maps: list[Tensor] = []

    def keep(module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        # AlexNet's adaptive pool spreads one position over 36.
        if output.ndim != 4 or isinstance(module, nn.AdaptiveAvgPool2d):
            return
        if not maps or output[0, 0].numel() >= min(POSITIONS, maps[0][0, 0].numel()):
            maps[:] = [output]

    hooks = [module.register_forward_hook(keep) for module in _chain(recogniser.encoder.backbone.network)]
    try:
        # A copy: gradients flow also where all weights are frozen or the images are of inference mode.
        _, logits = recogniser(images.clone().requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    (slopes,) = torch.autograd.grad(logits.gather(1, classes[:, None].clone()).sum(), maps)
    with torch.no_grad():
        found = (slopes.float().relu() * maps[0].float()).sum(1, keepdim=True).relu().nan_to_num(0, 0)
        found = F.interpolate(found, size=images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        highest = found.amax((1, 2), keepdim=True)
        return torch.where(highest > 0, found / highest, 0.0)


def _chain(network: nn.Module) -> Iterator[nn.Module]:
    """The modules that follow one another, of which each gives all that the next ones see; no branches of a block."""
    for module in network.children():
        yield from _chain(module) if type(module) is nn.Sequential else (module,)
