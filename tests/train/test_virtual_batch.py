"""Virtual batches: one loss over several real batches gives the gradients of one large batch."""

import pytest
import torch

from fer_fast.data.dataset import FaceDataset
from fer_fast.data.labels import CLASSES
from fer_fast.errors import InputError
from fer_fast.train.backbones import BACKBONES, BackboneInfo
from fer_fast.train.config import ModelConfig, config_parser, recipe_layer, resolve
from fer_fast.train.loop import Trainer
from fer_fast.train.models import SHAPES, Encoder, encode
from fer_fast.train.progress import LineProgress


class Network(torch.nn.Module):
    """A convolution; with it, where asked for, what a second forward pass could get wrong: dropout and BatchNorm."""

    def __init__(self, channels, *layers):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, 8, 5, stride=4)
        self.layers = torch.nn.Sequential(*layers)
        self.feature_dim, self.calls = 8, []

    def forward(self, images):
        self.calls.append(len(images))
        return self.layers(self.conv(images)).relu().mean((2, 3))


def encoder(*layers, shape="embeddings"):
    torch.manual_seed(0)
    return Encoder(Network(1, *layers), shape, ModelConfig(embedding_dim=4, projection_dim=4, dropout=0), 3)


def gradients(network, run):
    outputs = run()
    # Every image's output with every other's: a loss that parts taken one by one could not give.
    sum((field.sum(-2) ** 3).sum() for field in outputs if field is not None).backward()
    return [parameter.grad.clone() for parameter in network.parameters()]


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):  # sums in another order, in float32
        assert (one - other).norm() <= 1e-6 * other.norm()


@pytest.mark.parametrize("shape", list(SHAPES))
def test_gradients_are_those_of_one_large_batch(shape):
    images = torch.randn(11, 1, 16, 16)
    whole, parts = encoder(shape=shape), encoder(shape=shape)
    expected = gradients(whole, lambda: whole(images))
    found = gradients(parts, lambda: encode(parts, images, 4))
    assert_same(found, expected)
    assert parts.backbone.calls[:3] == [4, 4, 3]
    assert sorted(parts.backbone.calls) == [3, 3, 4, 4, 4, 4]  # each a second time in the backward
    assert whole.backbone.calls == [11]


def test_the_second_pass_repeats_dropout():
    images = torch.randn(8, 1, 16, 16)
    network = encoder(torch.nn.Dropout(0.5))
    torch.manual_seed(1)
    found = gradients(network, lambda: encode(network, images, 4))
    network.zero_grad()
    torch.manual_seed(1)
    joined = [network(part) for part in images.split(4)]  # the same masks, with all activations kept
    expected = gradients(
        network, lambda: [torch.cat([o.features for o in joined]), torch.cat([o.embeddings for o in joined], 1)]
    )
    assert_same(found, expected)


def test_batch_normalisation_counts_a_batch_once():
    images = torch.randn(12, 1, 16, 16)
    network, plain = encoder(torch.nn.BatchNorm2d(8)), encoder(torch.nn.BatchNorm2d(8))
    gradients(network, lambda: encode(network, images, 4))
    for part in images.split(4):
        plain(part)
    norm, expected = network.backbone.layers[0], plain.backbone.layers[0]
    assert norm.num_batches_tracked == 3
    assert torch.equal(norm.running_mean, expected.running_mean)
    assert torch.equal(norm.running_var, expected.running_var)
    assert norm.momentum == 0.1


def faces(count):
    labels = torch.arange(count) % 3
    noise = torch.randint(0, 40, (count, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    return FaceDataset((noise + labels.view(-1, 1, 1, 1) * 70).to(torch.uint8), labels, CLASSES[:3], "train")


def fitted(monkeypatch, *flags, recipe="ad-corre"):
    monkeypatch.setitem(BACKBONES, "tiny", BackboneInfo("a test", 8, Network))
    common = ("--backbone", "tiny", "--augment.size", "32", "--augment.channels", "1", "--epochs", "1")
    # No random change of an image: batches of another size would draw another one.
    still = ("rotation", "crop_padding", "brightness", "contrast", "mirror", "shear", "erasing", "grayscale")
    common += tuple(word for name in still for word in (f"--augment.{name}", "0"))
    common += ("--augment.scale", "[1.0, 1.0]", "--model.dropout", "0", "--select", "last", "--ema", "0")
    trainer = Trainer(resolve(config_parser(), [*common, *flags], [recipe_layer(recipe)])[0], faces(24), faces(6))
    trainer.fit(LineProgress(), lambda: None)
    return trainer


@pytest.mark.parametrize("recipe", ["ad-corre", "ecan"])
def test_a_run_equals_that_of_the_large_batch(monkeypatch, recipe):
    whole = fitted(monkeypatch, "--batch_size", "12", recipe=recipe)
    virtual = fitted(monkeypatch, "--batch_size", "4", "--virtual_batch", "3", recipe=recipe)
    assert virtual.step == whole.step == 2
    expected = whole.learner.state_dict()
    for name, value in virtual.learner.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_a_virtual_batch_of_none_is_refused():
    with pytest.raises(InputError, match="virtual_batch is 0"):
        resolve(config_parser(), ["--virtual_batch", "0"], [])
