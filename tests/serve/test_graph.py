"""The graph that is exported: what it does to pixels, and that it gives what the checkpoint gives."""

import cv2
import pytest
import torch

from fer_fast.data.prepare import to_size
from fer_fast.serve.export import traced
from fer_fast.serve.graph import Exported, resampling
from fer_fast.serve.model import FaceModel
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.convolution import SmallMapConv2d
from fer_fast.train.evaluation import predict
from tiny_backbone import TINY
from tiny_model import tiny_model

SIZES = [(48, 48), (96, 96), (49, 48), (100, 70), (131, 47), (20, 70), (24, 96), (30, 31), (7, 5), (1, 1)]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(BACKBONES, "tiny", TINY)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_faces_of_any_size_are_resampled_as_their_preparation_does_it(height, width):
    picture = torch.randint(256, (height, width), generator=torch.Generator().manual_seed(height), dtype=torch.uint8)
    ours = resampling(height, 48) @ picture.float() @ resampling(width, 48).T
    theirs = torch.from_numpy(to_size(picture.numpy(), 48)).float()
    # OpenCV rounds to levels after each of its two steps, and enlarges by weights of 1/2048 whose products it cuts off.
    shrinks, enlarges = max(height, width) > 48, min(height, width) < 48
    bound = 0.5 * (1 + (shrinks and enlarges)) + 0.3 * enlarges
    assert (ours - theirs).abs().max() <= bound + 1e-3


def test_faces_of_the_model_s_size_stay_as_they_are():
    assert torch.equal(resampling(48, 48), torch.eye(48))


def test_areas_are_those_of_opencv_to_the_last_digit():
    line = torch.rand(1, 101, generator=torch.Generator().manual_seed(0))
    theirs = cv2.resize(line.numpy(), (48, 1), interpolation=cv2.INTER_AREA)
    torch.testing.assert_close(line @ resampling(101, 48).T, torch.from_numpy(theirs), rtol=1e-5, atol=1e-6)


def outputs(trained, faces):
    augment = trained.config.augment
    features, scores = predict(trained.recogniser, faces, augment, trained.hardware, crops=augment.crops)
    cosines = FaceModel(trained).cosines(features)
    return {"scores": scores, "embeddings": features} | ({} if cosines is None else {"cosines": cosines})


KINDS = {
    "softmax": (),
    "weighted-softmax": ("--loss", "weighted-softmax"),
    "lmcl": ("--loss", "lmcl"),
    "arcface": ("--loss", "arcface"),
    "a-softmax": ("--loss", "a-softmax"),
    "l-softmax": ("--loss", "l-softmax"),
    "variant": ("--loss", "variant"),
    "embeddings": ("--loss", "ad-corre"),
    "two views": ("--loss", "ensc"),
    "nodes": ("--loss", "lmcl", "--model.nodes", "3"),
    "five crops": ("--augment.crops", "5"),
    "ten crops": ("--augment.crops", "10"),
    "equalised": ("--augment.equalize", "true"),
    "equalised crops": ("--augment.equalize", "true", "--augment.crops", "5"),
    "constants by channel": ("--augment.channels", "3", "--augment.mean", "[0.4, 0.5, 0.6]"),
}
IMAGES = {"as the network takes them": (1, 32), "smaller": (1, 20), "larger": (1, 50), "of three channels": (3, 32)}


def check(trained):
    """The graph before and after it is traced, against the checkpoint."""
    exported = Exported(trained)
    program = traced(exported).module()
    channels, side = trained.state["images"]
    for count in (1, 2, 5):
        faces = torch.randint(256, (count, channels, side, side), generator=torch.Generator().manual_seed(count)).byte()
        expected = outputs(trained, faces)
        assert tuple(expected) == exported.outputs
        larger = faces.repeat_interleave(2, 2).repeat_interleave(3, 3)  # the same face
        for found in (exported(faces), program(faces), program(larger)):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_checkpoint_gives(kind):
    check(tiny_model(*KINDS[kind], images=(3 if kind == "constants by channel" else 1, 32)))


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("flags", [(), ("--augment.channels", "3"), ("--augment.equalize", "true")])
def test_images_of_another_size_or_colour_than_the_network_s(kind, flags):
    check(tiny_model(*flags, images=IMAGES[kind]))


@pytest.mark.parametrize(
    "backbone", ["alexnet", "googlenet", "resnet18", "mobilenetv3"]
)  # the others: the same, slower
def test_networks(backbone):
    check(tiny_model("--backbone", backbone))


def test_the_model_stays_as_it_was():
    trained = tiny_model("--backbone", "resnet18")
    before = {name: value.clone() for name, value in trained.recogniser.state_dict().items()}
    exported = Exported(trained)
    kinds = [{type(module) for module in model.modules()} for model in (exported, trained.recogniser)]
    assert [SmallMapConv2d in kind for kind in kinds] == [False, True]
    assert all(torch.equal(value, before[name]) for name, value in trained.recogniser.state_dict().items())
    assert all(parameter.requires_grad for parameter in trained.recogniser.parameters())
