"""The container of face images, in memory or mapped, its splits, the table of datasets, and batches of indices."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_fast.data import CLASSES, DATASETS, FaceDataset, Images, epoch_batches, load_dataset
from fer_fast.data.dataset import resize_dataset, to_channels
from fer_fast.data.labels import SYNONYMS, canonical_class
from fer_fast.data.splits import cut
from fer_fast.errors import InputError
from stub_datasets import listed, photograph, put, row, table_of


def make_dataset(counts=(8, 16, 24), size=6, channels=1, **columns):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    generator = torch.Generator().manual_seed(0)
    shape = (len(labels), channels, size, size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    names = tuple(f"row {i}" for i in range(len(labels)))
    return FaceDataset(images, labels, CLASSES[: len(counts)], "train", names=names, **columns)


def test_counts_and_subset_keep_rows_together():
    dataset = make_dataset(subjects=torch.arange(48))
    assert dataset.class_counts().tolist() == [8, 16, 24]
    part = dataset.subset([40, 3], "test")
    assert (part.split, part.names, part.subjects.tolist()) == ("test", ("row 40", "row 3"), [40, 3])
    assert part.labels.tolist() == [2, 0]
    assert torch.equal(part.images, dataset.images[[40, 3]])


def test_digest_sees_every_part():
    dataset = make_dataset()
    images = dataset.images.clone()
    images[0, 0, 0, 0] ^= 1
    labels = dataset.labels.clone()
    labels[0] = 1
    others = [
        FaceDataset(images, dataset.labels, dataset.classes, "train"),
        FaceDataset(dataset.images, labels, dataset.classes, "train"),
        FaceDataset(dataset.images, dataset.labels, CLASSES[5:8], "train"),
        FaceDataset(dataset.images.view(48, 1, 4, 9), dataset.labels, dataset.classes, "train"),
    ]
    assert len({dataset.digest(), *(other.digest() for other in others)}) == 5
    assert make_dataset().digest() == dataset.digest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(3, 1, 4, 4)}, "images must be uint8"),
        ({"images": torch.zeros(3, 2, 4, 4, dtype=torch.uint8)}, "1 or 3"),
        ({"images": torch.zeros(3, 4, 4, dtype=torch.uint8)}, "images must be uint8"),
        ({"images": torch.zeros(3, 1, 0, 4, dtype=torch.uint8)}, "images must be uint8"),
        ({"images": torch.zeros(0, 1, 4, 4, dtype=torch.uint8)}, "has no image"),
        ({"labels": torch.tensor([0, 1])}, r"labels must be int64 of shape \(3,\)"),
        ({"labels": torch.tensor([0.0, 1.0, 1.0])}, "labels must be int64"),
        ({"labels": torch.tensor([0, 1, 2])}, r"labels must lie in 0\.\.1, got 0\.\.2"),
        ({"labels": torch.tensor([-1, 1, 0])}, r"labels must lie in 0\.\.1"),
        ({"split": "dev"}, "split is 'dev'; allowed: train, val, test"),
        ({"subjects": torch.tensor([1])}, "subjects must be int64"),
        ({"names": ("a",)}, "one entry per image: 3, got 1"),
    ],
)
def test_container_refuses_what_does_not_fit(change, message):
    good = {
        "images": torch.zeros(3, 1, 4, 4, dtype=torch.uint8),
        "labels": torch.tensor([0, 1, 1]),
        "classes": CLASSES[:2],
        "split": "train",
    }
    assert len(FaceDataset(**good)) == 3
    with pytest.raises(InputError, match=message):
        FaceDataset(**good | change)


@pytest.mark.parametrize("indices", [[], [48], [-1], [0.5], [[1, 2]]])
def test_subset_refuses_bad_indices(indices):
    with pytest.raises(InputError, match="indices must"):
        make_dataset().subset(indices)


def test_cut_is_stratified_disjoint_and_decided_by_its_seed():
    counts = (80, 8, 1)
    part = listed([Path(f"{i}.png") for i in range(89)], "abc", np.repeat(range(3), counts)).parts["train"]

    def held_out(seed, part=part):
        return cut(part, np.arange(len(part)), 0.125, seed)

    assert np.bincount(part.labels[held_out(3)], minlength=3).tolist() == [10, 1, 0]
    assert (held_out(3) == held_out(3)).all()
    assert (held_out(4) != held_out(3)).any()
    with pytest.raises(InputError, match="no class has the two training images"):
        held_out(0, part.take(np.array([0, 80])))


# Images: what a dataset needs of a tensor, of a mapped file

SHAPES = [(1, 12), (3, 12), (3, 96)]  # channels, side; the last is read image by image


@pytest.fixture(params=SHAPES, ids=str)
def mapped(request, tmp_path):
    """Images of a folder of eight pictures, mapped from the cache, and the same as a tensor."""
    channels, side = request.param
    pictures = np.stack([photograph(seed, channels, side) for seed in range(8)])
    paths = [put(tmp_path / "faces" / f"{i}.png", picture[..., ::-1]) for i, picture in enumerate(pictures)]
    with table_of(row(lambda root: listed(paths, part="test", labels=[0, 1] * 4))):
        dataset = load_dataset("stub", tmp_path, split="test", image_size=side, channels=channels)
    return dataset, torch.from_numpy(pictures).movedim(-1, -3)


@pytest.mark.parametrize(
    "which",
    [
        0,
        -1,
        slice(2, 5),
        slice(None, None, 2),
        torch.tensor([5, 0, 5]),
        torch.arange(8) % 2 == 0,
        torch.tensor([], dtype=int),
    ],
    ids=str,
)
def test_images_are_indexed_as_a_tensor_is(mapped, which):
    dataset, tensor = mapped
    assert torch.equal(dataset.images[which], tensor[which])
    assert (dataset.images.shape, len(dataset.images)) == (tensor.shape, 8)
    assert (dataset.images.dtype, dataset.images.ndim) == (tensor.dtype, tensor.ndim)


@pytest.mark.parametrize("which", [8, -9, torch.tensor([0, 8])], ids=str)
def test_images_have_no_others(mapped, which):
    with pytest.raises(IndexError):
        mapped[0].images[which]


def test_images_are_split_taken_and_gathered(mapped):
    images, tensor = mapped[0].images, mapped[1]
    assert [len(part) for part in images.split(3)] == [3, 3, 2]
    assert torch.equal(torch.cat(list(images.split(3))), tensor)
    rows = torch.tensor([6, 1, 1])
    taken = images.take(rows)
    assert isinstance(taken, Images)
    assert torch.equal(taken[:], tensor[rows])
    assert torch.equal(taken.take(torch.tensor([2, 0]))[:], tensor[[1, 6]])
    out = torch.full((3, *tensor.shape[2:], tensor.shape[1]), 7, dtype=torch.uint8)
    gathered = images.gather(rows, out)
    assert torch.equal(gathered, tensor[rows])
    assert gathered.data_ptr() == out.data_ptr()


def test_what_is_read_of_images_may_be_written(mapped):
    images, tensor = mapped[0].images, mapped[1]
    images[:2].zero_()
    images.gather(torch.tensor([3])).zero_()
    assert torch.equal(images[:], tensor)


def test_a_subset_of_images_is_that_of_a_tensor(mapped):
    dataset, tensor = mapped
    columns = {"subjects": torch.arange(8), "groups": torch.arange(8) // 2, "votes": torch.eye(2)[[0, 1] * 4]}
    dataset = replace(dataset, notes=("a note",), **columns)
    part, same = dataset.subset([6, 1], "train"), replace(dataset, images=tensor).subset([6, 1], "train")
    assert torch.equal(part.images[:], same.images)
    assert (
        (part.names, part.notes, part.split)
        == (same.names, same.notes, same.split)
        == (("6.png", "1.png"), ("a note",), "train")
    )
    for column in ("labels", *columns):
        assert torch.equal(getattr(part, column), getattr(same, column))
    assert part.groups.tolist() == [3, 0]


def test_images_of_the_same_pictures_have_the_same_digest(mapped, tmp_path):
    dataset, tensor = mapped
    _, channels, side, _ = tensor.shape
    copies = [put(tmp_path / "copy" / f"{i}.png", x.movedim(0, -1).flip(-1).numpy()) for i, x in enumerate(tensor)]
    wanted = {"split": "test", "image_size": side, "channels": channels}
    with table_of(row(lambda root: listed(copies, part="test", labels=[0, 1] * 4))):
        assert load_dataset("stub", tmp_path, **wanted).digest() == dataset.digest()
    assert dataset.subset(range(8)).digest() == dataset.digest()
    assert dataset.subset([1, 0, *range(2, 8)]).digest() != dataset.digest()
    put(copies[3], photograph(99, channels, side))
    with table_of(row(lambda root: listed(copies, part="test", labels=[0, 1] * 4))):
        assert load_dataset("stub", tmp_path, **wanted).digest() != dataset.digest()


def test_channels_go_both_ways():
    gray = make_dataset().images
    assert torch.equal(to_channels(to_channels(gray, 3), 1), gray)
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    assert to_channels(red, 1).item() == 76  # 0.299 · 255
    assert resize_dataset(make_dataset(), 12, 3).images.shape == (48, 3, 12, 12)
    assert resize_dataset(make_dataset(), None, None).digest() == make_dataset().digest()


def test_synonyms_are_unambiguous():
    words = [word for name, words in SYNONYMS.items() for word in (name, *words)]
    assert len(words) == len(set(words))
    assert tuple(SYNONYMS) == CLASSES
    assert [canonical_class(word) for word in (" Happy", "ANGRY", "surprised", "puzzled")] == [
        "happiness",
        "anger",
        "surprise",
        None,
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "fer2014"}, "unknown data set 'fer2014'; allowed: faces, fer2013"),
        ({"name": "faces", "split": "dev"}, "no split 'dev'"),
        ({"name": "faces", "root": "here"}, "read no folder"),
        ({"name": "faces", "colour": 1}, "no option 'colour'; allowed: size, num_classes, samples"),
        ({"name": "faces", "channels": 2}, "channels is 2"),
        ({"name": "faces", "image_size": 0}, "image_size is 0"),
        ({"name": "fer2013"}, "give its path as root"),
        ({"name": "fer2013", "root": "/nowhere/at all"}, "does not exist"),
    ],
)
def test_load_dataset_refuses(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("info", DATASETS.values(), ids=lambda info: info.name)
def test_table_rows_are_complete(info):
    assert set(info.classes) <= set(CLASSES) or info.name == "rafdb-compound"
    assert info.description
    assert info.needs_root == (info.draw is None)
    assert not info.needs_root or info.licence or info.name in ("folder",)
    for part, sizes in info.published.items():
        assert part in ("train", "val", "test", "all")
        assert set(sizes) <= set(info.classes)


# epoch_batches


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 12), st.booleans())
def test_batches_cover_the_epoch_and_avoid_single_images(count, batch_size, drop_last):
    labels = torch.zeros(count, dtype=torch.int64)
    if drop_last and count < batch_size:
        with pytest.raises(InputError, match="leaves no batch"):
            epoch_batches(labels, batch_size, generator=torch.Generator(), drop_last=True)
        return
    batches = epoch_batches(labels, batch_size, generator=torch.Generator().manual_seed(1), drop_last=drop_last)
    sizes = [len(batch) for batch in batches]
    seen = torch.cat(batches)
    assert len(seen) == len(seen.unique()) == (count // batch_size * batch_size if drop_last else count)
    assert max(sizes) <= max(batch_size, 3 if batch_size == 2 else 0)
    if batch_size > 1 and count > 1:
        assert min(sizes) > 1


def test_batches_follow_the_generator_state():
    labels = torch.arange(4).repeat(25)
    generator = torch.Generator().manual_seed(5)
    first = epoch_batches(labels, 16, generator=generator)
    state = generator.get_state()
    second = epoch_batches(labels, 16, generator=generator)
    generator.set_state(state)
    again = epoch_batches(labels, 16, generator=generator)
    assert all(torch.equal(a, b) for a, b in zip(second, again, strict=True))
    assert not torch.equal(torch.cat(first), torch.cat(second))


def test_balanced_batches_show_classes_equally_and_images_evenly():
    labels = torch.arange(4).repeat_interleave(torch.tensor([100, 10, 3, 0]))  # class 3 is absent
    index = torch.cat(epoch_batches(labels, 8, generator=torch.Generator().manual_seed(0), balanced=True))
    assert len(index) == 113
    counts = torch.bincount(labels[index], minlength=4)
    assert sorted(counts.tolist()) == [0, 37, 38, 38]
    uses = torch.bincount(index, minlength=113)
    for label in range(3):
        own = uses[labels == label]
        assert own.max() - own.min() <= 1


@pytest.mark.parametrize(
    ("labels", "batch_size"),
    [
        (torch.empty(0, dtype=torch.int64), 4),
        (torch.zeros(3), 4),
        (torch.zeros(3, 1).long(), 4),
        (torch.zeros(3).long(), 0),
    ],
)
def test_batches_refuse(labels, batch_size):
    with pytest.raises(InputError):
        epoch_batches(labels, batch_size, generator=torch.Generator())
