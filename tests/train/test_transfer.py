"""From a file's weights into an encoder: names and shapes, the networks of VGGFace2, earlier runs, what is refused."""

import re
from functools import partial

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from fer_fast.data.augment import AugmentConfig, Normalise
from fer_fast.errors import InputError
from fer_fast.train.backbones import BACKBONES, build_backbone
from fer_fast.train.checkpoint import save_checkpoint
from fer_fast.train.config import ModelConfig
from fer_fast.train.models import Encoder
from fer_fast.train.transfer import CaffeInput, load_encoder, match_weights
from fer_fast.train.weights import Weights, read_weights
from vggface2 import caffe_features, caffe_weights, python_2_pickle


def network(name="resnet18", channels=3, seed=0, **keywords):
    """A backbone whose every tensor, statistics included, is its own."""
    torch.manual_seed(seed)
    backbone = build_backbone(name, channels, **keywords)
    for key, value in backbone.network.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    return backbone.eval()


def loaded(backbone, weights):
    backbone.network.load_state_dict(match_weights(backbone, weights).found, strict=False)
    return backbone.eval()


def assert_same_function(one, other, images):
    """In float64: features of random weights reach 1e10, where float32 tells the order of a sum."""
    with torch.inference_mode():
        one, other, images = one.double(), other.double(), images.double()
        torch.testing.assert_close(one(images), other(images), rtol=1e-5, atol=1e-5)


# Names


@pytest.mark.parametrize("counters", [True, False])
def test_counters_of_batches_do_not_count(counters):
    original = network()
    stored = {k: v for k, v in original.network.state_dict().items() if counters or "num_batches" not in k}
    match = match_weights(network(seed=1), Weights("w", stored))
    assert (match.count, match.total, match.missing) == (100, 100, ())
    assert_same_function(loaded(network(seed=1), Weights("w", stored)), original, torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("alexnet", torchvision.models.alexnet),
        ("googlenet", partial(torchvision.models.googlenet, aux_logits=True, init_weights=False)),
        ("resnet18", torchvision.models.resnet18),
        ("resnet50", torchvision.models.resnet50),
        ("densenet121", torchvision.models.densenet121),
        ("mobilenetv3", torchvision.models.mobilenet_v3_large),
    ],
)
def test_weights_of_torchvision_give_the_same_function(name, theirs):
    torch.manual_seed(0)
    theirs = theirs(weights=None).eval()
    for key, value in theirs.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(1e-3, 1.5)  # small enough that an epsilon shows
    weights = Weights("theirs", theirs.state_dict())
    match = match_weights(build_backbone(name), weights)
    assert match.count == match.total
    if name in ("alexnet", "mobilenetv3"):
        theirs.classifier = theirs.classifier[:-1]
    elif name == "densenet121":
        theirs.classifier = nn.Identity()
    else:
        theirs.fc = nn.Identity()
    assert_same_function(loaded(network(name, seed=1), weights), theirs, torch.randn(2, 3, 64, 64))


def test_densenet_by_the_names_it_once_had():
    original = network("densenet121")
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name): value
        for name, value in original.network.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert_same_function(
        loaded(network("densenet121", seed=1), Weights("old", old)), original, torch.randn(2, 3, 32, 32)
    )


def test_colour_is_summed_for_gray():
    colour = network()
    gray = loaded(network(channels=1, seed=1), Weights("w", colour.network.state_dict()))
    image = torch.randn(2, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(gray(image), colour(image.expand(-1, 3, -1, -1)))


# What is refused


def test_less_than_nine_tenths_is_another_network():
    state = network().network.state_dict()
    names = [name for name in state if "num_batches" not in name]
    for kept, fits in ((90, True), (89, False)):
        weights = Weights("w.pth", {name: state[name] for name in names[:kept]})
        if fits:
            assert match_weights(network(), weights).count == kept
            continue
        with pytest.raises(InputError) as caught:
            match_weights(network(), weights)
        expected = (
            f"w.pth are not those of this backbone (timm resnet18): 89 of 100 tensors match; it wants {names[89]}, "
        )
        assert expected in str(caught.value)


def test_a_refusal_names_what_differs_on_both_sides():
    weights = Weights("ir50.pth", {"input_layer.0.weight": torch.zeros(64, 3, 3, 3), "bn1.weight": torch.zeros(32)})
    with pytest.raises(InputError) as caught:
        match_weights(network(), weights)
    text = str(caught.value)
    assert "0 of 100 tensors match; it wants conv1.weight, bn1.weight (32,) for (64,), bn1.bias and 97 more" in text
    assert text.endswith("they hold input_layer.0.weight")


@pytest.mark.parametrize(
    ("theirs", "backbone", "message"),
    [
        (torchvision.models.resnet18, "resnet50", "it wants layer1.0.conv1.weight (64, 64, 3, 3) for (64, 64, 1, 1)"),
        (torchvision.models.resnet50, "seresnet50", "265 of 329 tensors match; it wants layer1.0.se.fc1.weight"),
        (
            torchvision.models.resnet34,
            "resnet18",
            "100 of 100 tensors match; it wants nothing else, they hold layer1.2.",
        ),
        (
            torchvision.models.resnet101,
            "resnet50",
            "265 of 265 tensors match; it wants nothing else, they hold layer3.6.",
        ),
    ],
)
def test_weights_of_another_network_are_refused(theirs, backbone, message):
    with pytest.raises(InputError, match="are not those of this backbone") as caught:
        match_weights(build_backbone(backbone), Weights("w", theirs(weights=None).state_dict()))
    assert message in str(caught.value)


def test_a_network_with_more_in_its_blocks_is_another():
    weights = Weights("w", network("seresnet50").network.state_dict())
    with pytest.raises(InputError, match=r"they hold layer1\.0\.se\.fc1\.weight"):
        match_weights(build_backbone("resnet50"), weights)


def test_numbers_that_are_not_finite(tmp_path):
    state = network().network.state_dict()
    state["bn1.bias"][3] = float("nan")
    with pytest.raises(InputError, match=r"are not all finite numbers: bn1\.bias"):
        match_weights(network(seed=1), Weights("w", state))


def test_names_of_a_file_cannot_spoil_the_line():
    name = "\x1b[2J\n" + 1000 * "x"
    with pytest.raises(InputError) as caught:
        match_weights(network(), Weights("w", {name: torch.zeros(1)}))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


# VGGFace2


@pytest.mark.parametrize("name", ["resnet50", "seresnet50"])
def test_a_file_of_vggface2_is_the_function_it_was_trained_as(tmp_path, name):
    state = caffe_weights(squeezed=name == "seresnet50")
    path = tmp_path / f"{name}_ft_weight.pkl"
    path.write_bytes(python_2_pickle({key: value.numpy() for key, value in state.items()}))
    weights = read_weights(path)
    colour = torch.randint(0, 256, (2, 3, 70, 70), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    for images, augment in (
        (colour, AugmentConfig(size=70, channels=3, mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))),
        (colour[:, :1], AugmentConfig(size=70, channels=1, mean=0.3, deviation=0.2)),
    ):
        backbone = build_backbone(name, augment.channels, caffe=CaffeInput(augment))
        assert match_weights(backbone, weights).missing == ()
        with torch.inference_mode():
            expected = caffe_features(state, images.expand(-1, 3, -1, -1))
            features = loaded(backbone, weights)(Normalise(augment)(images))
            standard = loaded(build_backbone(name), weights)(Normalise(augment)(images).expand(-1, 3, -1, -1))
        torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
        assert (
            standard - expected
        ).abs().mean() > 0.05 * expected.abs().mean()  # without the geometry: another function


def test_the_geometry_is_that_of_two_backbones():
    assert [name for name, info in BACKBONES.items() if info.caffe] == ["resnet50", "seresnet50"]
    for name, stem in (("resnet18", "standard"), ("resnet50", "small")):
        message = f"'caffe' with stem {stem} does not exist for {name}; with standard for resnet50, seresnet50"
        with pytest.raises(InputError, match=message):
            build_backbone(name, 3, stem=stem, caffe=CaffeInput(AugmentConfig()))


# Encoders


def encoder(seed, **keywords):
    return Encoder(network("resnet18", seed=seed), "single", ModelConfig(**keywords), 3).eval()


def test_an_earlier_run_brings_layer_and_head_where_they_fit(tmp_path):
    first = encoder(0, nodes=16)
    named = {f"encoder.{name}": value for name, value in first.state_dict().items()}
    about = {"config": {"model": {"geometry": "standard"}}, "classes": ["a"]}
    save_checkpoint(tmp_path, {**named, "classifier.weight": torch.zeros(9, 16)}, about)
    weights = read_weights(tmp_path)
    assert weights.source == read_weights(tmp_path / "checkpoint.safetensors").source
    second = encoder(1, nodes=16)
    line = load_encoder(second, weights)
    assert line.startswith(f"weights {tmp_path / 'checkpoint.safetensors'}: 100 of 100 tensors matched")
    assert line.endswith(", and 2 of layer and head; the classifier starts anew")
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(second(images).features, first(images).features)
    third = encoder(1, nodes=8)
    assert load_encoder(third, weights).endswith("100 of 100 tensors matched; the classifier starts anew")
    with torch.inference_mode():
        torch.testing.assert_close(third.backbone(images), first.backbone(images))


def test_the_line_names_what_was_not_found(tmp_path):
    stored = {name: value for name, value in network().network.state_dict().items() if name != "bn1.bias"}
    stored["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    save_file(stored, tmp_path / "w.safetensors")
    line = load_encoder(encoder(1), read_weights(tmp_path / "w.safetensors"))
    assert line.endswith("98 of 100 tensors matched, without conv1.weight (64, 3, 3, 3) for (64, 3, 7, 7), bn1.bias")
