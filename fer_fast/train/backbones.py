"""The nine backbones: one table over timm and torchvision, adapted to gray and to small images."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from fer_fast.errors import InputError
from fer_fast.suggest import one_of
from fer_fast.train.convolution import as_products

COUNTER = "num_batches_tracked"  # a tensor that older files lack and that no network needs


@dataclass(frozen=True)
class BackboneInfo:
    """One row of the table.

    Attributes:
        source: where the network comes from, for people.
        feature_dim: width of the pooled features.
        build: function of the number of input channels that returns the network without its classifier.
        minimum_size: the smallest image side in pixels it can take; smaller images are enlarged to it.
        small_stem: changes the stem in place for small images, or None where no such practice exists.
        caffe: changes the geometry in place to the one Caffe's networks have, or None where weights of none exist.
        translate: gives tensors of another program's network the names of this one.
        stages: module names of each stage, in order, for freezing; empty where the network has no such division.
    """

    source: str
    feature_dim: int
    build: Callable[[int], nn.Module]
    minimum_size: int = 32
    small_stem: Callable[[nn.Module, int], None] | None = None
    stages: tuple[tuple[str, ...], ...] = ()
    caffe: Callable[[nn.Module], None] | None = None
    translate: Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]] | None = None


class Backbone(nn.Module):
    """A network that maps images (n, channels, height, width) to pooled features (n, feature_dim).

    Images smaller than the network's minimum (AlexNet: 63 pixels; all others: 32) are enlarged bilinearly to it.
    """

    def __init__(self, network: nn.Module, info: BackboneInfo, convert: nn.Module | None = None):
        super().__init__()
        self.convert = convert or nn.Identity()
        self.network = network
        self.info = info
        self.feature_dim = info.feature_dim
        self._frozen: list[nn.Module] = []

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        shortest = min(height, width)
        if shortest < self.info.minimum_size:
            scale = self.info.minimum_size / shortest
            size = (round(height * scale), round(width * scale))
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        return self.network(self.convert(images))

    def freeze(self, stages: int) -> None:
        """Keep the first `stages` stages as they are: no gradient, BatchNorm by its stored statistics.

        Raises:
            InputError: the network is not divided into that many stages.
        """
        if not 0 <= stages <= len(self.info.stages):
            raise InputError(
                f"model.frozen_stages is {stages}, but this backbone ({self.info.source}) has "
                f"{len(self.info.stages)} stages that can be frozen"
            )
        names = [name for stage in self.info.stages[:stages] for name in stage]
        self._frozen = [self.network.get_submodule(name) for name in names]
        for module in self._frozen:
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


def find_backbone(name: str) -> BackboneInfo:
    """The row of a backbone; an unknown name is an `InputError` that names the nearest."""
    return BACKBONES[one_of(name, BACKBONES, "backbone")]


def build_backbone(name: str, channels: int = 3, *, stem: str = "standard", caffe: nn.Module | None = None) -> Backbone:
    """Build one backbone with fresh weights from torch's global generator.

    Args:
        name: a key of `BACKBONES`.
        channels: 1 (gray) or 3 (colour) input channels.
        stem: "standard" is the published network. "small", for images around 48 pixels, is the usual change to a
            ResNet: the first convolution keeps the resolution (stride 1; 3×3 where it was one 7×7) and the max-pool
            goes. It costs about 16 times the arithmetic.
        caffe: turns images into the input of Caffe's networks, of three channels, and asks for their geometry: the
            stride of a stage in its first convolution, max-pool that rounds up, without padding.

    Raises:
        InputError: unknown name, channels or stem, or a geometry that the backbone does not have.
    """
    if channels not in (1, 3):
        raise InputError(f"a backbone takes 1 (gray) or 3 (colour) channels, not {channels}")
    info = find_backbone(name)
    if caffe is not None and (info.caffe is None or stem != "standard"):
        fitting = ", ".join(key for key, row in BACKBONES.items() if row.caffe)
        raise InputError(
            f"model.geometry 'caffe' with stem {stem} does not exist for {name}; with standard for {fitting}"
        )
    network = info.build(3 if caffe is not None else channels)
    if caffe is not None:
        info.caffe(network)
    if stem == "small":
        if info.small_stem is None:
            fitting = ", ".join(key for key, row in BACKBONES.items() if row.small_stem)
            raise InputError(f"model.stem 'small' does not exist for {name}; it does for {fitting}")
        info.small_stem(network, channels)
    elif stem != "standard":
        raise InputError(f"model.stem is {stem!r}; allowed: standard, small")
    return Backbone(as_products(network), info, caffe)


def _timm(model: str, channels: int) -> nn.Module:
    import timm

    return timm.create_model(model, pretrained=False, num_classes=0, in_chans=channels)


def _alexnet(channels: int) -> nn.Module:
    from torchvision.models import alexnet

    network = alexnet(weights=None)
    network.classifier = network.classifier[:-1]
    if channels == 1:
        network.features[0] = nn.Conv2d(1, 64, kernel_size=11, stride=4, padding=2)
    return network


def _googlenet(channels: int) -> nn.Module:
    from torchvision.models import googlenet

    network = googlenet(weights=None, aux_logits=False, init_weights=False)
    network.fc = nn.Identity()
    if channels == 1:
        network.conv1.conv = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return network


def _small_resnet_stem(network: nn.Module, channels: int) -> None:
    network.conv1 = nn.Conv2d(channels, network.conv1.out_channels, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()


def _small_deep_stem(network: nn.Module, _channels: int) -> None:
    network.conv1[0].stride = (1, 1)
    network.maxpool = nn.Identity()


def _caffe_resnet(network: nn.Module) -> None:
    network.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)
    for block in (network.layer2[0], network.layer3[0], network.layer4[0]):
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)


def _from_torchvision_mobilenet(tensors: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """torchvision's MobileNet V3 is timm's, its tensors in the same order under other names."""
    if "features.0.0.weight" not in tensors:
        return tensors
    names = [name for name in network.state_dict() if not name.endswith(COUNTER)]
    values = [value for name, value in tensors.items() if not name.endswith(COUNTER)]
    # Its BatchNorm adds 0.001 to a variance where timm's adds 0.00001.
    return {
        name: value + (1e-3 - 1e-5) if name.endswith("running_var") else value
        for name, value in zip(names, values, strict=False)
    }


_RESNET = {
    "stages": (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)),
    "small_stem": _small_resnet_stem,
}

BACKBONES: dict[str, BackboneInfo] = {
    "alexnet": BackboneInfo("torchvision alexnet", 4096, _alexnet, minimum_size=63),
    "googlenet": BackboneInfo("torchvision googlenet", 1024, _googlenet),
    "resnet18": BackboneInfo("timm resnet18", 512, partial(_timm, "resnet18"), **_RESNET),
    "resnet50": BackboneInfo("timm resnet50", 2048, partial(_timm, "resnet50"), caffe=_caffe_resnet, **_RESNET),
    "densenet121": BackboneInfo("timm densenet121", 1024, partial(_timm, "densenet121")),
    "mobilenetv3": BackboneInfo(
        "timm mobilenetv3_large_100",
        1280,
        partial(_timm, "mobilenetv3_large_100"),
        translate=_from_torchvision_mobilenet,
    ),
    "resnest50": BackboneInfo(
        "timm resnest50d", 2048, partial(_timm, "resnest50d"), **{**_RESNET, "small_stem": _small_deep_stem}
    ),
    "seresnet50": BackboneInfo("timm seresnet50", 2048, partial(_timm, "seresnet50"), caffe=_caffe_resnet, **_RESNET),
    "xception": BackboneInfo("timm legacy_xception", 2048, partial(_timm, "legacy_xception")),
}
