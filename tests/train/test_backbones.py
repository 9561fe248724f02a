"""The nine backbones: shapes, gray and colour, small images, stems, freezing, weights from a file."""

import pytest
import torch

from fer_fast.errors import InputError
from fer_fast.train.backbones import BACKBONES, build_backbone

NAMES = (
    "alexnet",
    "googlenet",
    "resnet18",
    "resnet50",
    "densenet121",
    "mobilenetv3",
    "resnest50",
    "seresnet50",
    "xception",
)


def test_table_holds_the_nine_names():
    assert tuple(BACKBONES) == NAMES


@pytest.mark.parametrize(("channels", "side"), [(1, 48), (3, 224)])
@pytest.mark.parametrize("name", NAMES)
def test_pooled_features(name, channels, side):
    backbone = build_backbone(name, channels).eval()
    with torch.inference_mode():
        features = backbone(torch.randn(2, channels, side, side))
    assert features.shape == (2, BACKBONES[name].feature_dim)
    assert features.isfinite().all()
    assert (features[0] - features[1]).abs().max() > 0


@pytest.mark.parametrize("name", [name for name, info in BACKBONES.items() if info.small_stem])
def test_small_stem_keeps_the_resolution(name):
    maps = {}
    for stem in ("standard", "small"):
        backbone = build_backbone(name, 1, stem=stem).eval()
        backbone.network.layer1.register_forward_hook(lambda _m, _i, out, stem=stem: maps.update({stem: out.shape[-1]}))
        with torch.inference_mode():
            assert backbone(torch.randn(1, 1, 48, 48)).shape == (1, BACKBONES[name].feature_dim)
    assert maps == {"standard": 12, "small": 48}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet81", 3), "resnet18"),
        (("resnet18", 2), "1 .gray. or 3"),
        (("alexnet", 3, "small"), "resnet18"),
        (("resnet18", 3, "tiny"), "standard, small"),
    ],
)
def test_bad_requests_name_what_is_allowed(arguments, message):
    name, channels, *stem = arguments
    with pytest.raises(InputError, match=message):
        build_backbone(name, channels, **({"stem": stem[0]} if stem else {}))


def test_frozen_stages_neither_learn_nor_gather_statistics():
    backbone = build_backbone("resnet18", 1)
    backbone.freeze(2)
    backbone.train()
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    backbone(torch.randn(4, 1, 32, 32)).sum().backward()
    frozen = ("conv1", "bn1", "layer1")
    for name, parameter in backbone.network.named_parameters():
        assert (parameter.grad is None) == name.startswith(frozen), name
    after = backbone.network.state_dict()
    moved = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert moved == {"layer2", "layer3", "layer4"}


def test_freezing_more_than_there_is():
    with pytest.raises(InputError, match="0 stages"):
        build_backbone("densenet121", 1).freeze(1)
