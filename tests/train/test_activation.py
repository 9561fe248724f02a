"""Class activation: the map of every backbone and head, equal to the formula where one can be written down."""

import pytest
import torch
from torch.nn import functional as F

from fer_fast import losses
from fer_fast.train.activation import class_activation
from fer_fast.train.backbones import BACKBONES, build_backbone
from fer_fast.train.config import ModelConfig
from fer_fast.train.models import SHAPES, Encoder, Recogniser
from tiny_backbone import TINY


def recogniser(name, shape="single", channels=1, loss="SoftmaxLoss", **model):
    torch.manual_seed(0)
    encoder = Encoder(build_backbone(name, channels), shape, ModelConfig(**{"embedding_dim": 16, **model}), 7)
    built = Recogniser(encoder, getattr(losses, loss)(7, encoder.feature_dim)).eval()
    torch.nn.init.normal_(built.classifier.weight)
    return built


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_and_head(name, shape):
    model, images = recogniser(name, shape), torch.randn(1, 1, 33, 41).expand(7, -1, -1, -1)
    maps = class_activation(model, images, torch.arange(7))
    assert maps.shape == (7, 33, 41)
    assert maps.dtype == torch.float32
    assert not maps.requires_grad
    assert (maps >= 0).all()
    assert (maps <= 1).all()
    peaks = maps.amax((1, 2))
    assert ((peaks - 1).abs() < 1e-6).logical_or(peaks == 0).all()
    assert peaks.sum() >= 1
    assert maps[peaks > 0][0].std() > 0
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(("name", "side"), [("resnet18", 192), ("densenet121", 192), ("googlenet", 192)])
def test_pooled_maps_and_a_linear_classifier_give_the_class_activation_map(name, side):
    """Σ_k w_ck A_k, from the map that the pooled features are the mean of."""
    model, images = recogniser(name), torch.randn(2, 1, side, side)
    torch.nn.init.uniform_(model.classifier.weight)
    classes = model(images)[1].argmax(1)
    network, seen = model.encoder.backbone.network, {}
    last = {"resnet18": "layer4", "densenet121": "features", "googlenet": "inception5b"}[name]
    hook = network.get_submodule(last).register_forward_hook(lambda _m, _i, output: seen.update(map=output.detach()))
    features = model(images)[0]
    hook.remove()
    torch.testing.assert_close(seen["map"].mean((2, 3)), features.detach())
    cam = torch.einsum("nk,nkhw->nhw", model.classifier.weight.detach()[classes], seen["map"]).relu()
    wanted = F.interpolate(cam[:, None], size=(side, side), mode="bilinear", align_corners=False)[:, 0]
    assert wanted.amax((1, 2)).min() > 0
    torch.testing.assert_close(class_activation(model, images, classes), wanted / wanted.amax((1, 2), keepdim=True))


def test_small_images_are_told_apart_by_an_earlier_map():
    """ResNet-18 leaves four positions of 48 pixels; 36 are looked at."""
    model, images = recogniser("resnet18"), torch.randn(1, 1, 48, 48)
    found = class_activation(model, images, torch.tensor([3]))
    block, (classes, kept) = model.encoder.backbone.network.layer2, (torch.tensor([3]), [])
    hook = block.register_forward_hook(lambda _m, _i, output: kept.append(output))
    (slopes,) = torch.autograd.grad(model(images)[1].gather(1, classes[:, None]).sum(), kept)
    hook.remove()
    assert kept[0].shape[2:] == (6, 6)
    wanted = (slopes.clamp(min=0) * kept[0]).sum(1, keepdim=True).clamp(min=0).detach()
    wanted = F.interpolate(wanted, size=(48, 48), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(found, wanted / wanted.max())


def test_a_bright_place_is_found(monkeypatch):
    """One channel answers to light, one class to that channel."""
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    model = recogniser("tiny")
    with torch.no_grad():
        model.encoder.backbone.network.conv.weight.zero_()[0] = 1
        model.encoder.backbone.network.conv.bias.zero_()
        model.classifier.weight.zero_()[3, 0] = 1
    images = torch.zeros(2, 1, 48, 48)
    images[0, 0, 4:12, 30:38] = 1
    images[1, 0, 30:38, 4:12] = 1
    maps = class_activation(model, images, torch.tensor([3, 3]))
    for found, (row, column) in zip(maps, ((8, 34), (34, 8)), strict=True):
        at = divmod(int(found.argmax()), 48)
        assert abs(at[0] - row) <= 4
        assert abs(at[1] - column) <= 4
    assert class_activation(model, images, torch.tensor([0, 0])).abs().max() == 0  # no channel speaks for it


@pytest.mark.parametrize("loss", ["LMCLLoss", "ArcFaceLoss", "ASoftmaxLoss"])
def test_other_classifiers_and_widths(loss, monkeypatch):
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    encoder = Encoder(build_backbone("tiny", 3), "single", ModelConfig(nodes=5), 7)
    model = Recogniser(encoder, getattr(losses, loss)(7, encoder.feature_dim))
    maps = class_activation(model, torch.randn(20, 3, 32, 32), torch.arange(20) % 7)
    assert maps.shape == (20, 32, 32)
    assert maps.amax() == 1


def test_parts_do_not_matter(monkeypatch):
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    model, images, classes = recogniser("tiny"), torch.randn(19, 1, 32, 32), torch.arange(19) % 7
    whole = class_activation(model, images, classes)
    for i in (0, 7, 8, 18):
        torch.testing.assert_close(class_activation(model, images[i : i + 1], classes[i : i + 1])[0], whole[i])
    assert class_activation(model, images[:0], classes[:0]).shape == (0, 32, 32)


def test_it_works_in_inference_mode_with_frozen_weights_and_leaves_the_mode(monkeypatch):
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    model = recogniser("tiny").requires_grad_(False)
    images, classes = torch.randn(2, 1, 32, 32), torch.tensor([1, 2])
    wanted = class_activation(model, images, classes)
    model.train()
    with torch.inference_mode():
        torch.testing.assert_close(class_activation(model, images + 0, classes + 0), wanted)
    assert model.training
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert (class_activation(model, images, classes) - wanted).abs().max() < 0.1
