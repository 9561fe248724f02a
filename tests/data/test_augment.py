"""Augmentation: per image, from one generator, and equal to the plain path where nothing is switched on."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fer_fast.data import CLASSES, Augment, AugmentConfig, FaceDataset, Normalise
from fer_fast.data.augment import equalize, five_crop, fourteen_fold
from fer_fast.errors import InputError

GEOMETRY = AugmentConfig(crop_padding=0.1, mirror=0.5, rotation=10.0, shear=5.0, scale=(0.9, 1.1))
STRONG = replace(GEOMETRY, erasing=0.5, grayscale=0.2, brightness=0.3, contrast=0.3, saturation=0.3)
EVERYTHING = replace(STRONG, blur=0.5, equalize=True, channels=3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(count=6, channels=1, size=48):
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator(9))


def smooth_images(count=4, size=48):
    coarse = torch.rand(count, 1, 5, 5, generator=generator(3))
    fine = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)
    return (fine.clamp(0, 1) * 255).byte()


@pytest.mark.parametrize("config", [AugmentConfig(), GEOMETRY, STRONG, EVERYTHING])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_strength_gives_finite_float_images(config, channels):
    config = replace(config, size=40, channels=channels)
    for given in (1, 3):
        output = Augment(config)(random_images(channels=given), generator())
        assert output.shape == (6, channels, 40, 40)
        assert output.dtype == torch.float32
        assert output.isfinite().all()


def test_nothing_on_is_the_plain_path():
    images = random_images(channels=3)
    for config in (AugmentConfig(size=32, channels=3), AugmentConfig(size=48), AugmentConfig(size=64, equalize=True)):
        assert torch.equal(Augment(config)(images, generator()), Normalise(config)(images))


def test_values_are_normalised_with_mean_and_deviation():
    images = torch.full((2, 3, 8, 8), 255, dtype=torch.uint8)
    config = AugmentConfig(size=8, channels=3, mean=(0.5, 0.25, 0.0), deviation=(0.5, 0.25, 2.0))
    assert torch.allclose(Normalise(config)(images)[0, :, 0, 0], torch.tensor([1.0, 3.0, 0.5]))


def test_all_randomness_is_the_generator():
    augment = Augment(EVERYTHING)
    images = random_images(channels=3)
    source = generator(4)
    first, second = augment(images, source), augment(images, source)
    torch.manual_seed(123)
    source = generator(4)
    assert torch.equal(augment(images, source), first)
    assert torch.equal(augment(images, source), second)
    assert not torch.equal(first, second)


def test_every_image_gets_its_own_change():
    same = random_images(1, 3).expand(8, -1, -1, -1)
    output = Augment(EVERYTHING)(same, generator())
    assert len({row.numpy().tobytes() for row in output}) == 8


def test_an_image_does_not_depend_on_its_batch():
    images = smooth_images(5)
    augment = Augment(replace(STRONG, blur=1.0))
    whole = augment(images, generator(2))
    other = images.clone()
    other[1:] = 0
    assert torch.allclose(augment(other, generator(2))[0], whole[0], atol=1e-6)


def test_mirror_is_a_flip():
    images = random_images()
    config = AugmentConfig(mirror=1.0)
    assert torch.allclose(Augment(config)(images, generator()), Normalise(config)(images).flip(3), atol=1e-4)


def test_mirror_comes_as_often_as_asked():
    images = random_images(1).expand(2000, -1, -1, -1)[:, :, :8, :8]
    output = Augment(AugmentConfig(size=8, mirror=0.3))(images, generator())
    plain = Normalise(AugmentConfig(size=8))(images[:1])
    flipped = ((output - plain).abs().amax((1, 2, 3)) > 1e-3).float().mean().item()
    assert abs(flipped - 0.3) < 0.04  # 4 standard deviations


def test_crop_shifts_by_at_most_the_padding():
    image = torch.zeros(1, 1, 48, 48, dtype=torch.uint8)
    image[:, :, 23:25, 23:25] = 255
    output = Augment(AugmentConfig(crop_padding=0.125))(image.expand(500, -1, -1, -1), generator())
    weight = (output - output.amin((2, 3), keepdim=True)).squeeze(1)
    centre = (weight.sum(1) * torch.arange(48)).sum(1) / weight.sum((1, 2))
    assert (centre - 23.5).abs().max() <= 6.01
    assert (centre - 23.5).abs().max() > 5
    assert abs(centre.mean() - 23.5) < 0.7


def test_rotation_and_zoom_reach_their_limits_only():
    image = torch.zeros(1, 1, 65, 65, dtype=torch.uint8)
    image[:, :, 31:34, 50:53] = 255  # right of the middle, at radius 19
    config = AugmentConfig(size=65, rotation=20.0, scale=(0.8, 1.25))
    output = Augment(config)(image.expand(500, -1, -1, -1), generator())
    weight = (output - output.amin((2, 3), keepdim=True)).squeeze(1)
    x = (weight.sum(1) * (torch.arange(65) - 32.0)).sum(1) / weight.sum((1, 2))
    y = (weight.sum(2) * (torch.arange(65) - 32.0)).sum(1) / weight.sum((1, 2))
    angle, radius = torch.rad2deg(torch.atan2(y, x)), torch.hypot(x, y) / 19
    assert angle.abs().max() < 20.6
    assert angle.abs().max() > 18
    assert (angle > 15).any()
    assert (angle < -15).any()
    assert 0.79 < radius.min() < 0.85
    assert 1.2 < radius.max() < 1.27


def test_erasing_fills_the_asked_area_with_the_mean():
    images = torch.full((400, 1, 64, 64), 255, dtype=torch.uint8)
    config = AugmentConfig(size=64, erasing=0.5, erasing_area=(0.1, 0.2))
    share = (Augment(config)(images, generator()) == 0).float().mean((1, 2, 3))
    erased = share[share > 0]
    assert abs(len(erased) / 400 - 0.5) < 0.1
    assert erased.min() > 0.08
    assert erased.max() < 0.23


def test_light_changes_stay_in_range_and_differ():
    images = smooth_images(1).expand(50, -1, -1, -1)
    config = AugmentConfig(brightness=0.5, contrast=0.5, mean=0.0, deviation=1.0)
    output = Augment(config)(images, generator())
    assert output.min() >= 0
    assert output.max() <= 1
    assert output.mean((1, 2, 3)).std() > 0.05


def test_grayscale_takes_the_colour_away():
    output = Augment(AugmentConfig(channels=3, grayscale=1.0))(random_images(channels=3), generator())
    assert torch.allclose(output[:, 0], output[:, 2], atol=1e-5)


def test_blur_smooths_and_keeps_the_mean():
    images = random_images(20)
    blurred = Augment(AugmentConfig(blur=1.0))(images, generator())
    plain = Normalise(AugmentConfig())(images)
    assert (blurred.std((2, 3)) <= plain.std((2, 3)) + 1e-5).all()
    assert blurred.std() < 0.8 * plain.std()
    assert torch.allclose(blurred.mean(), plain.mean(), atol=0.01)


def test_large_images_are_shrunk_without_aliasing():
    stripes = torch.zeros(2, 1, 224, 224, dtype=torch.uint8)
    stripes[..., ::2] = 255
    for config in (AugmentConfig(size=32), AugmentConfig(size=32, mirror=1.0)):
        output = Augment(config)(stripes, generator())
        assert output.std() < 0.05


@pytest.mark.parametrize("scale", [1, 3, 40])
def test_equalize_is_that_of_opencv(scale):
    images = smooth_images(6) // scale
    expected = np.stack([cv2.equalizeHist(image[0].numpy()) for image in images])[:, None]
    assert np.array_equal(equalize(images).numpy(), expected)


def test_equalize_keeps_flat_images_and_colour_differences():
    flat = torch.full((1, 1, 4, 4), 7, dtype=torch.uint8)
    assert torch.equal(equalize(flat), flat)
    gray = smooth_images(2)
    assert torch.equal(equalize(gray.expand(-1, 3, -1, -1)), equalize(gray).expand(-1, 3, -1, -1))
    colour = torch.stack((gray[:, 0] // 4 + 60, gray[:, 0] // 4 + 80, gray[:, 0] // 4 + 100), 1)
    spread = equalize(colour).int()
    unclipped = ((spread > 0) & (spread < 255)).all(1)
    assert ((spread[:, 2] - spread[:, 0])[unclipped] == 40).all()


def test_five_crops_are_corners_and_centre():
    images = torch.arange(100, dtype=torch.uint8).view(1, 1, 10, 10)
    crops = five_crop(images, 0.8)
    assert crops.shape == (1, 5, 1, 8, 8)
    assert crops[0, :, 0, 0, 0].tolist() == [0, 2, 20, 22, 11]
    with pytest.raises(InputError, match="fraction is 0"):
        five_crop(images, 0)


def test_fourteen_fold_set():
    labels = torch.tensor([0, 1, 1, 0])
    dataset = FaceDataset(smooth_images(), labels, CLASSES[:2], "train", subjects=labels + 5, names=tuple("abcd"))
    folds = fourteen_fold(dataset)
    assert len(folds) == 56
    assert torch.equal(folds.images[:4], dataset.images)
    assert torch.equal(folds.images[28:32], dataset.images.flip(3))
    assert torch.equal(folds.labels, labels.repeat(14))
    assert folds.names == tuple("abcd") * 14
    assert torch.equal(folds.subjects, (labels + 5).repeat(14))
    assert len({block.numpy().tobytes() for block in folds.images.split(4)}) == 14
    # Rotating the mirror image by +a is the mirror image of rotating by -a.
    minus_five, mirrored_plus_five = folds.images[12:16].int(), folds.images[44:48].int()
    assert (minus_five - mirrored_plus_five.flip(3)).abs().max() <= 1
    # Against OpenCV, away from the borders; it counts angles counter-clockwise, as we do.
    matrix = cv2.getRotationMatrix2D((23.5, 23.5), 15, 1)
    turned = [cv2.warpAffine(image[0].numpy(), matrix, (48, 48)) for image in dataset.images]
    difference = folds.images[24:28, 0].int() - torch.from_numpy(np.stack(turned)).int()
    assert difference[:, 12:36, 12:36].abs().max() <= 3
    assert fourteen_fold(dataset, chunk=3).digest() == folds.digest()


def test_fourteen_fold_refuses_oblong_images():
    images = torch.zeros(1, 1, 4, 6, dtype=torch.uint8)
    with pytest.raises(InputError, match="square images, got 4×6"):
        fourteen_fold(FaceDataset(images, torch.tensor([0]), CLASSES[:2], "train"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 2}, "size is 2; allowed: 8 to 4096"),
        ({"mirror": 1.5}, "mirror is 1.5; allowed: 0 to 1"),
        ({"mirror": "yes"}, "mirror is yes"),
        ({"rotation": float("nan")}, "rotation is nan"),
        ({"scale": (1.2, 0.8)}, "scale is"),
        ({"channels": 4}, "channels is 4"),
        ({"mean": (0.1, 0.2)}, "mean has 2 numbers"),
        ({"deviation": 0.0}, "deviation is 0.0"),
    ],
)
def test_config_refuses(options, message):
    with pytest.raises(InputError, match=message):
        AugmentConfig(**options)


@pytest.mark.parametrize("images", [torch.zeros(2, 1, 8, 8), torch.zeros(2, 8, 8, dtype=torch.uint8)])
def test_only_uint8_batches(images):
    with pytest.raises(InputError, match="images must be uint8"):
        Normalise(AugmentConfig())(images)
