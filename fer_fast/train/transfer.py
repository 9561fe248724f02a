"""From weights of a file into the encoder of a run: names matched, shapes checked, the input of Caffe's networks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fer_fast.data.augment import AugmentConfig
from fer_fast.errors import InputError
from fer_fast.train.backbones import COUNTER, Backbone
from fer_fast.train.models import Encoder
from fer_fast.train.weights import Weights, shown

LEAST_SHARE = 0.9  # of the tensors of backbone and file that must be those of the other

VGGFACE2_MEAN = (91.4953, 103.8827, 131.0912)  # of blue, green, red, 0 to 255

# Names of earlier and other programs -> ours, where the same network had others.
_RENAMED = (
    (re.compile(r"(denselayer\d+)\.(norm|conv)\.([12])\."), r"\1.\2\3."),  # torchvision before 0.3
    (re.compile(r"^(layer\d\.\d+)\.conv4\."), r"\1.se.fc1."),  # SENet-50 of VGGFace2
    (re.compile(r"^(layer\d\.\d+)\.conv5\."), r"\1.se.fc2."),
)


class CaffeInput(nn.Module):
    """Normalised images, RGB or gray, to what VGGFace2's networks were trained on: BGR from 0 to 255 less their mean.

    Args:
        augment: what the images were normalised with.
    """

    def __init__(self, augment: AugmentConfig):
        super().__init__()
        mean, deviation = (
            torch.as_tensor(value, dtype=torch.float32).reshape(-1).expand(3).flip(0).view(3, 1, 1) * 255
            for value in (augment.mean, augment.deviation)
        )
        own = torch.tensor(VGGFACE2_MEAN).view(3, 1, 1)
        # They follow from the configuration: not in a checkpoint.
        self.register_buffer("scale", deviation.clone(), persistent=False)
        self.register_buffer("shift", mean - own, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return images.expand(-1, 3, -1, -1).flip(1) * self.scale + self.shift


@dataclass(frozen=True)
class Match:
    """Which of a backbone's tensors a file holds. What only counts batches does not count here.

    Attributes:
        found: those that fit, by the backbone's names.
        total: how many the backbone has.
        missing: names of those that were not found, with both shapes where the shape alone is wrong.
    """

    found: dict[str, Tensor]
    total: int
    missing: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many of `total` were found."""
        return self.total - len(self.missing)


def match_weights(backbone: Backbone, weights: Weights) -> Match:
    """Find the backbone's tensors in weights.

    A first convolution stored for colour is summed over its channels for a gray backbone: the same response to an image
    whose three channels are equal.

    Raises:
        InputError: less than nine tenths of them are there, or they are less than nine tenths of what the file holds in
            the backbone's parts; or one is not finite.
    """
    translate = backbone.info.translate
    tensors = translate(weights.tensors, backbone.network) if translate else weights.tensors
    tensors = {_renamed(name): value for name, value in tensors.items()}
    own = backbone.network.state_dict()
    found, missing = {}, []
    for name, target in own.items():
        value = None if name not in tensors else _shaped_like(target, tensors[name])
        if value is not None:
            if not value.isfinite().all():
                raise InputError(f"the weights {weights.source} are not all finite numbers: {name}")
            found[name] = value
        elif not name.endswith(COUNTER):
            shapes = f" {tuple(tensors[name].shape)} for {tuple(target.shape)}" if name in tensors else ""
            missing.append(f"{name}{shapes}")
    match = Match(found, sum(not name.endswith(COUNTER) for name in own), tuple(missing))
    surplus = [name for name in tensors if name not in own and not name.endswith(COUNTER)]
    # Beside what the backbone has, in its own parts: a deeper network, or one with more in its blocks.
    parts = {name.split(".")[0] for name in own} - {"classifier"}
    within = [name for name in surplus if name.split(".")[0] in parts]
    if match.count < LEAST_SHARE * max(match.total, match.count + len(within)):
        raise InputError(
            f"the weights {weights.source} are not those of this backbone ({backbone.info.source}): {match.count} of "
            f"{match.total} tensors match; it wants {_some(match.missing)}, they hold {_some(within or surplus)}"
        )
    return match


@torch.no_grad()
def load_encoder(encoder: Encoder, weights: Weights) -> str:
    """Copy weights into an encoder, and say in a line how much of it they filled.

    The backbone takes what matches; those of an earlier run bring layer and head along where these have their shapes.

    Raises:
        InputError: as `match_weights`.
    """
    match = match_weights(encoder.backbone, weights)
    encoder.backbone.network.load_state_dict(match.found, strict=False)
    own = encoder.state_dict()
    rest = {
        name: value
        for name, value in weights.tensors.items()
        if weights.state and name.startswith(("layer.", "head.")) and name in own and own[name].shape == value.shape
    }
    encoder.load_state_dict(rest, strict=False)
    line = f"weights {weights.source}: {match.count} of {match.total} tensors matched"
    if match.missing:
        line += f", without {_some(match.missing)}"
    if rest:
        line += f", and {len(rest)} of layer and head"
    return line + ("; the classifier starts anew" if weights.state else "")


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name


def _shaped_like(target: Tensor, value: Tensor) -> Tensor | None:
    """The value if it has the target's shape, or a shape that means the same; else None."""
    if value.ndim != target.ndim and [n for n in value.shape if n != 1] == [n for n in target.shape if n != 1]:
        return value.reshape(target.shape)  # a linear layer and a convolution of one pixel
    colour = torch.Size((*target.shape[:1], 3, *target.shape[2:]))
    if target.ndim == 4 and target.shape[1] == 1 and value.shape == colour:
        return value.sum(1, keepdim=True)
    return value if value.shape == target.shape else None


def _some(names: Sequence[str]) -> str:
    return (
        ", ".join(map(shown, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "nothing else"
    )
