"""Generated faces: reproducible, person-disjoint, as imbalanced as asked, and hard for a linear classifier."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fer_fast.data import CLASSES, Augment, AugmentConfig, Normalise, epoch_batches, load_dataset
from fer_fast.data.faces import ACTIONS, PROTOTYPES, class_shares, draw_photographs, sample_faces
from fer_fast.errors import InputError


def faces(**options):
    return load_dataset("faces", **{"samples": 64, **options})


def test_same_arguments_same_bits_and_every_argument_counts():
    base = faces().digest()
    assert faces().digest() == base
    others = [{"seed": 1}, {"split": "val"}, {"split": "test"}, {"identities": 3}, {"num_classes": 8}, {"channels": 3}]
    assert len({base, *(faces(**other).digest() for other in others)}) == len(others) + 1


@pytest.mark.parametrize("size", [32, 48, 96])
def test_bits_do_not_depend_on_the_chunk(size):
    labels = torch.arange(8).repeat(3)
    generator = torch.Generator().manual_seed(2)
    face = sample_faces(labels, torch.arange(24) % 5, 5, 3, generator)
    whole = draw_photographs(face, 24, size)
    assert whole.shape == (24, 3, size, size)
    for chunk in (1, 7, 24):
        assert torch.equal(draw_photographs(face, 24, size, chunk), whole)


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (48, 3), (224, 1)])
def test_shape_and_contrast(size, channels):
    dataset = faces(samples=14, image_size=size, channels=channels)
    assert dataset.images.shape == (14, channels, size, size)
    assert dataset.class_counts().tolist() == [2] * 7
    assert (dataset.images.float().flatten(1).std(1) > 4).all()
    if channels == 3:
        assert (dataset.images[:, 0] != dataset.images[:, 2]).any()


def test_drawing_size_and_image_size_are_two_things():
    assert faces(samples=4, size=96, image_size=40).images.shape == (4, 1, 40, 40)
    assert faces(samples=4, size=96).images.shape == (4, 1, 96, 96)


def test_people_are_in_one_split_only_and_evenly_used():
    splits = [faces(split=split, identities=9) for split in ("train", "val", "test")]
    people = [set(dataset.subjects.tolist()) for dataset in splits]
    assert [len(group) for group in people] == [9, 9, 9]
    assert len(set.union(*people)) == 27
    used = splits[0].subjects.unique(return_counts=True)[1]
    assert used.max() - used.min() <= 1


@pytest.mark.parametrize(
    ("imbalance", "counts"),
    [
        (None, [10, 9, 9, 9, 9, 9, 9]),
        ([1, 1, 1, 1, 1, 1, 26], [2, 2, 2, 2, 2, 2, 52]),
        ({"disgust": 0.4}, [10, 10, 10, 10, 10, 4, 10]),
    ],
)
def test_imbalance_is_exact(imbalance, counts):
    assert faces(imbalance=imbalance).class_counts().tolist() == counts


def test_shares_add_up():
    for samples in range(1, 40):
        shares = class_shares(samples, torch.tensor([1.0, 2.0, 4.5]))
        assert shares.sum() == samples
        assert (shares - samples * torch.tensor([1.0, 2.0, 4.5]) / 7.5).abs().max() < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 31}, "size is 31; allowed: 32 to 224"),
        ({"image_size": 300}, "size is 300; allowed: 32 to 224"),
        ({"num_classes": 6}, "num_classes is 6; allowed: 7, or 8"),
        ({"samples": 0}, "samples is 0"),
        ({"samples": 2.5}, "samples is 2.5"),
        ({"identities": -1}, "identities is -1"),
        ({"identities": 0}, "identities is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"imbalance": [1, 2]}, "7 numbers above 0"),
        ({"imbalance": [1, 1, 1, 1, 1, 1, 0]}, "7 numbers above 0"),
        ({"imbalance": [1, 1, 1, 1, 1, 1, float("nan")]}, "7 numbers above 0"),
        ({"imbalance": "abc"}, "one number above 0 per class"),
        ({"imbalance": 3}, "one number above 0 per class"),
        ({"imbalance": {"boredom": 1}}, "names the class 'boredom'"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        faces(**options)


def test_every_class_has_a_prototype_of_known_actions():
    assert tuple(PROTOTYPES) == CLASSES
    assert all(set(row) <= set(ACTIONS) for rows in PROTOTYPES.values() for row in rows)


def test_contempt_is_one_sided_and_nothing_else_is():
    labels = torch.arange(8).repeat(200)
    face = sample_faces(labels, torch.zeros_like(labels), 1, 1, torch.Generator().manual_seed(0))
    left, right = (face[half]["lip_corner_pull"].flatten() for half in ("left", "right"))
    ratio = torch.minimum(left, right) / torch.maximum(left, right).clamp(min=1e-9)
    contempt = labels == CLASSES.index("contempt")
    assert ratio[contempt].max() < 0.25
    assert ratio[labels == CLASSES.index("happiness")].min() > 0.6
    assert 0.3 < (left > right)[contempt].float().mean() < 0.7


def accuracy(model, images, labels):
    model.eval()
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def train(model, images, labels, epochs, batch_size, rate, prepare=lambda batch, _: batch, decay=0.02):
    generator = torch.Generator().manual_seed(0)
    steps = epochs * len(epoch_batches(labels, batch_size, generator=torch.Generator()))
    optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    for _ in range(epochs):
        model.train()
        for index in epoch_batches(labels, batch_size, generator=generator):
            optimiser.zero_grad()
            F.cross_entropy(model(prepare(images[index], generator)), labels[index]).backward()
            optimiser.step()
            schedule.step()


def test_a_small_network_learns_what_a_linear_classifier_cannot():
    """On people nobody has seen; the numbers of a longer run stand in the docstring of `load_faces`."""
    torch.manual_seed(0)
    config = AugmentConfig(size=32)
    train_set, test_set = faces(samples=4000, size=32), faces(samples=1000, size=32, split="test")
    normalise = Normalise(config)
    train_pixels, test_pixels = normalise(train_set.images), normalise(test_set.images)

    linear = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 7))
    train(linear, train_pixels, train_set.labels, epochs=10, batch_size=256, rate=1e-3, decay=0.3)
    linear_accuracy = accuracy(linear, test_pixels, test_set.labels)

    def block(inputs, outputs, stride):
        convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

    network = nn.Sequential(
        block(1, 24, 2), block(24, 48, 1), nn.MaxPool2d(2), block(48, 64, 1), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 16, 7),
    )  # fmt: skip
    augment = Augment(AugmentConfig(size=32, mirror=0.5))
    train(network, train_set.images, train_set.labels, 8, 100, 8e-3, augment)
    network_accuracy = accuracy(network, test_pixels, test_set.labels)

    assert linear_accuracy < 0.35
    assert network_accuracy > linear_accuracy + 0.2
