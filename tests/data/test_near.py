"""Nearly identical images: the pairs of brute force, changed copies of photographs, nothing of flat images."""

import hashlib

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_fast.data.cache import Store
from fer_fast.data.near import close_hashes, difference_hash, duplicates_across, gather, near_pairs
from stub_datasets import photograph

repeatable = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def store_of(images, unreadable=()):
    """What the cache holds of these images."""
    count = len(images)
    marks, hashes = np.zeros((count, 16), np.uint8), np.zeros(count, np.int64)
    for row, image in enumerate(images):
        if row not in unreadable:
            marks[row] = np.frombuffer(hashlib.blake2b(image.tobytes(), digest_size=16).digest(), np.uint8)
            hashes[row] = difference_hash(image)
    pixels = np.stack([np.zeros_like(image) if row in unreadable else image for row, image in enumerate(images)])
    columns = (torch.from_numpy(column) for column in (pixels, marks, hashes, np.zeros(count, np.uint8)))
    return Store(*columns, dict.fromkeys(unreadable, "broken"))


def pairs_of(*stores, distance=3):
    """{((store, row), (store, row)), ...} of the pairs that are found."""
    images = gather(stores)
    places = list(zip(images.store.tolist(), images.row.tolist(), strict=True))
    return {tuple(sorted((places[one], places[other]))) for one, other in near_pairs(images, stores, distance).tolist()}


def bits_apart(one, other):
    return bin((int(one) ^ int(other)) & (2**64 - 1)).count("1")


@repeatable
@given(st.integers(0, 2**32), st.integers(0, 60), st.integers(0, 5), st.integers(1, 8))
def test_close_hashes_are_those_of_brute_force(seed, count, distance, flips):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(-(2**63), 2**63, 6)[rng.integers(0, 6, count)]
    for _ in range(flips):  # so that many lie just inside and just outside the distance
        hashes = np.where(rng.random(count) < 0.5, hashes ^ (np.int64(1) << rng.integers(0, 64, count)), hashes)
    found = close_hashes(hashes, distance)
    expected = {
        (a, b) for a in range(count) for b in range(a + 1, count) if bits_apart(hashes[a], hashes[b]) <= distance
    }
    assert len(found) == len(expected)
    assert {tuple(sorted(pair)) for pair in found.tolist()} == expected


@pytest.mark.parametrize("distance", [0, 3])
def test_thousands_of_equal_hashes_do_not_make_millions_of_pairs(distance):
    hashes = np.zeros(20_000, np.int64)
    found = close_hashes(hashes, distance)
    assert len(found) < 2 * len(hashes)
    assert set(found.ravel().tolist()) == set(range(len(hashes)))


def test_the_hash_says_where_a_picture_gets_darker():
    ramp = np.tile(np.arange(0, 180, 20, dtype=np.uint8), (8, 1))[..., None]
    assert difference_hash(ramp) == 0
    assert difference_hash(ramp[:, ::-1].copy()) == -1
    half = np.concatenate([ramp[:4], ramp[:4, ::-1]])
    assert bits_apart(difference_hash(half), 0) == 32
    assert difference_hash(np.repeat(half, 3, axis=2)) == difference_hash(half)


def changed(image, how):
    if how == "recompressed":
        return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], -1).reshape(image.shape)
    if how == "brighter":
        return (image * 0.8 + 40).astype(np.uint8)
    if how == "marked":
        return cv2.rectangle(image.copy(), (2, 2), (6, 4), (255,) * 3, -1)
    assert how == "resized"
    small = cv2.resize(image, (40, 40), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, image.shape[1::-1]).reshape(image.shape)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("how", ["recompressed", "brighter", "marked", "resized"])
def test_a_changed_copy_is_found_among_others(how, channels):
    others = [photograph(seed, channels=channels) for seed in range(200)]
    copies = [changed(others[seed], how) for seed in (3, 77, 140)]
    assert pairs_of(store_of(others + copies)) == {((0, 3), (0, 200)), ((0, 77), (0, 201)), ((0, 140), (0, 202))}


def test_the_same_hash_alone_is_not_enough():
    """Two pictures that darken in the same places, one of them by a step and the other by next to nothing."""
    rng = np.random.default_rng(0)
    down = rng.random((8, 9)) < 0.5
    one = np.cumsum(np.where(down, -1, 1), 1) * 8 + 128
    other = np.cumsum(np.where(down, -rng.choice([1, 12], (8, 9)), rng.choice([1, 12], (8, 9))), 1) + 128
    images = [np.kron(x, np.ones((6, 6))).clip(0, 255).astype(np.uint8)[..., None] for x in (one, other)]
    assert difference_hash(images[0]) == difference_hash(images[1])
    assert pairs_of(store_of(images)) == set()


def test_flat_identical_and_unreadable_images_are_near_nothing():
    flat = [np.full((48, 48, 1), value, np.uint8) for value in (0, 0, 7, 255)]
    twice = [photograph(1), photograph(1)]
    assert pairs_of(store_of([*flat, *twice, photograph(2), photograph(3)], unreadable=(6, 7))) == set()


def test_images_of_two_stores_are_told_apart():
    first, second = photograph(1), changed(photograph(1), "brighter")
    found = pairs_of(store_of([photograph(8), first, first]), store_of([second, photograph(9)]))
    assert found == {((0, 1), (1, 0))}  # the second of two identical ones is not looked at
    images = gather((store_of([first, second]), store_of([second])))
    assert images.content[1] == images.content[2] != images.content[0]


def test_training_images_that_are_in_the_test_part():
    test = [photograph(1), photograph(2), photograph(3), np.zeros((48, 48, 1), np.uint8)]
    train = [
        *(photograph(seed) for seed in (10, 11)),
        photograph(2),
        *[changed(photograph(3), "brighter")] * 2,
        np.full((48, 48, 1), 5, np.uint8),
        np.zeros((48, 48, 1), np.uint8),
        photograph(1),
    ]
    mask = duplicates_across(store_of(train, unreadable=(7,)), store_of(test))
    assert mask.tolist() == [False, False, True, True, True, False, True, False]
    alone = duplicates_across(store_of(train[:2]), store_of(test))
    assert not alone.any()


def test_near_images_of_the_training_part_alone_are_kept():
    pair = [photograph(1), changed(photograph(1), "recompressed")]
    assert not duplicates_across(store_of(pair), store_of([photograph(2)])).any()
