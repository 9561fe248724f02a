"""Batches on their way to the device: streamed ones are what indexing gives, in order, and no thread is left behind."""

import threading

import pytest
import torch

from fer_fast.data import CLASSES, FaceDataset, Images, load_dataset
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.config import RunConfig, config_parser, resolve
from fer_fast.train.evaluation import predict
from fer_fast.train.feed import AHEAD, Feed
from fer_fast.train.loop import Trainer
from fer_fast.train.progress import LineProgress
from stub_datasets import listed, photograph, put, row, table_of
from tiny_backbone import TINY

CPU = torch.device("cpu")
COUNT, SIDE = 23, 32


class Slow(Images):
    """Images that note what was read, and may fail at a batch."""

    def __init__(self, pixels, fails_at=None):
        marks = torch.zeros(len(pixels), 16, dtype=torch.uint8)
        super().__init__(pixels, marks, torch.arange(len(pixels)))
        self.fails_at, self.read = fails_at, []

    def gather(self, which, out=None):
        if len(self.read) == self.fails_at:
            raise OSError(5, "Input/output error")
        self.read.append(which.tolist())
        return super().gather(which, out)


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (COUNT, 6, 5, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def some_order(seed=0, batch=4):
    return torch.randperm(COUNT, generator=torch.Generator().manual_seed(seed)).split(batch)


def feeding():
    return [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert feeding() == []


def test_streamed_batches_are_what_indexing_gives(pixels):
    labels = torch.arange(COUNT)
    streamed = Feed(Slow(pixels), labels, CPU)
    indexed = Feed(pixels.movedim(-1, -3), labels, CPU)
    for seed in range(3):  # epoch after epoch
        order = some_order(seed)
        pairs = list(zip(streamed.batches(order), indexed.batches(order), order, strict=True))
        for (images, found), (same, expected), batch in pairs:
            assert torch.equal(images, same)
            assert torch.equal(images, pixels[batch].movedim(-1, -3))
            assert found.tolist() == expected.tolist() == batch.tolist()


def test_a_feed_told_to_reside_gives_the_same(pixels):
    order, labels = some_order(), torch.arange(COUNT)
    resident = Feed(Slow(pixels), labels, CPU, resident=True)
    assert isinstance(resident.images, torch.Tensor)
    for (images, _), batch in zip(resident.batches(order), order, strict=True):
        assert torch.equal(images, pixels[batch].movedim(-1, -3))


def test_two_epochs_may_be_under_way_at_once(pixels):
    feed, order, other = Feed(Slow(pixels), torch.arange(COUNT), CPU), some_order(1), some_order(2)
    for (images, labels), (others, their_labels) in zip(feed.batches(order), feed.batches(other), strict=True):
        assert torch.equal(images, pixels[labels].movedim(-1, -3))
        assert torch.equal(others, pixels[their_labels].movedim(-1, -3))


def test_batches_already_given_do_not_change(pixels):
    order = some_order()
    given = [images for images, _ in Feed(Slow(pixels), torch.arange(COUNT), CPU).batches(order)]
    assert torch.equal(torch.cat(given), pixels[torch.cat(order)].movedim(-1, -3))


def test_labels_may_be_replaced_between_epochs(pixels):
    feed = Feed(Slow(pixels), torch.zeros(COUNT), CPU)
    assert torch.cat([labels for _, labels in feed.batches(some_order())]).eq(0).all()
    feed.labels = torch.arange(COUNT) * 10
    order = some_order(5)
    assert torch.cat([labels for _, labels in feed.batches(order)]).tolist() == (torch.cat(order) * 10).tolist()


def test_an_error_of_the_thread_reaches_the_caller(pixels):
    order = some_order()
    batches = Feed(Slow(pixels, fails_at=2), torch.arange(COUNT), CPU).batches(order)
    assert torch.equal(next(batches)[0], pixels[order[0]].movedim(-1, -3))
    next(batches)
    with pytest.raises(OSError, match="Input/output error"):
        next(batches)
    assert feeding() == []


def test_a_number_outside_is_an_error(pixels):
    with pytest.raises(IndexError):
        list(Feed(Slow(pixels), torch.arange(COUNT + 1), CPU).batches([torch.tensor([0, COUNT])]))


def test_leaving_early_stops_the_thread(pixels):
    images = Slow(pixels)
    batches = Feed(images, torch.arange(COUNT), CPU).batches(some_order(batch=1))
    next(batches)
    assert len(feeding()) == 1
    del batches
    assert feeding() == []
    assert len(images.read) <= AHEAD + 2


def test_no_more_than_so_many_batches_are_read_ahead(pixels):
    images, order = Slow(pixels), some_order(batch=2)
    for number, _ in enumerate(Feed(images, torch.arange(COUNT), CPU).batches(order), 1):
        assert len(images.read) <= number + AHEAD
    assert images.read == [batch.tolist() for batch in order]


# A run on images of the cache is the run on the same images in memory


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """Train and val, from the cache."""
    monkeypatch.setenv("FER_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    paths = [put(tmp_path / "faces" / f"{i}.png", photograph(i, size=SIDE)) for i in range(24)]
    with table_of(row(lambda root: listed(paths, CLASSES[:3], [i % 3 for i in range(24)]))):
        return [load_dataset("stub", tmp_path, split=split, image_size=SIDE) for split in ("train", "val")]


def trained(train: FaceDataset, val: FaceDataset):
    arguments = ["--backbone=tiny", "--epochs=3", "--batch_size=4", "--augment.size=32", "--hardware.device=cpu"]
    config: RunConfig = resolve(config_parser(), arguments, [])[0]
    trainer = Trainer(config, train, val)
    trainer.fit(LineProgress(), lambda: None)
    return trainer, predict(trainer.learner.recogniser, val.images, config.augment, trainer.hardware)[1]


def test_a_run_on_mapped_images_is_bit_for_bit_that_in_memory(on_disk):
    in_memory = [
        FaceDataset(
            dataset.images[:].clone(memory_format=torch.contiguous_format),
            dataset.labels,
            dataset.classes,
            dataset.split,
        )
        for dataset in on_disk
    ]
    assert all(isinstance(dataset.images, Images) for dataset in on_disk)
    (mapped, scores), (plain, expected) = trained(*on_disk), trained(*in_memory)
    assert torch.equal(scores, expected)
    theirs = plain.learner.state_dict()
    for name, value in mapped.learner.state_dict().items():
        assert torch.equal(value, theirs[name]), name
    for one, other in zip(mapped.history, plain.history, strict=True):
        for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            assert one[key] == other[key]
