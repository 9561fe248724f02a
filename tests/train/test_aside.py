"""What is written beside the training is what the epoch left, and its errors come to light."""

import signal
import threading
import time
from dataclasses import replace

import pytest
import torch

from fer_fast.errors import InputError
from fer_fast.train import loop, run
from fer_fast.train.aside import Aside, copied
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.checkpoint import load_resume
from fer_fast.train.config import config_parser, recipe_layer, resolve
from fer_fast.train.loop import Trainer
from tests.helpers.tiny_backbone import TINY

FLAGS = (
    *("--backbone", "tiny", "--epochs", "3", "--batch_size", "16", "--ema", "0.9", "--select", "last"),
    *("--augment.size", "32", "--data.image_size", "32", "--data.options", "{faces: {samples: 48}}"),
)


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    return resolve(config_parser(), FLAGS, [recipe_layer("quick")])[0]


def test_an_epoch_is_written_as_it_was_while_the_next_one_trains(config, tmp_path, monkeypatch):
    left, written, trained = [], [], {epoch: threading.Event() for epoch in (1, 2, 3)}
    train_epoch, save = Trainer._train_epoch, run.save_resume

    def trains(trainer, progress):
        train_epoch(trainer, progress)
        left.append(copied(trainer.tensors()))
        trained[trainer.epoch].set()

    def saves(folder, tensors, state):
        assert trained[min(state["epoch"] + 1, 3)].wait(60)
        save(folder, tensors, state)
        written.append((len(state["history"]), load_resume(folder)[0]))

    monkeypatch.setattr(Trainer, "_train_epoch", trains)
    monkeypatch.setattr(run, "save_resume", saves)
    run.train(config, tmp_path / "run")
    assert {1, 3} <= {epochs for epochs, _ in written}  # the second may have been passed over
    for epochs, kept in written:
        were = left[epochs - 1]
        assert kept.keys() == were.keys()
        assert [name for name in were if not torch.equal(kept[name], were[name])] == []
    assert any(not torch.equal(left[0][name], left[1][name]) for name in left[0])


@pytest.mark.parametrize("at", [1, 3])
def test_a_disk_that_fills_up_ends_the_run_in_one_line(config, tmp_path, monkeypatch, at):
    save = run.save_resume

    def saves(folder, tensors, state):
        if state["epoch"] == at:
            raise InputError("cannot write resume.safetensors: No space left on device")
        save(folder, tensors, state)

    monkeypatch.setattr(run, "save_resume", saves)
    with pytest.raises(InputError, match="No space left"):
        run.train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_one_piece_runs_and_the_newest_waits():
    done, began, go = [], threading.Event(), threading.Event()
    with Aside() as aside:
        aside(lambda: (began.set(), go.wait(60), done.append(1)))
        assert began.wait(60)
        for piece in (2, 3, 4):
            aside(done.append, piece)
        go.set()
    assert done == [1, 4]


def test_selected_weights_are_written_though_their_epoch_was_passed_over(config, tmp_path, monkeypatch):
    config = replace(config, select="best", ema=0.0)
    accuracies, last = iter([0.1, 0.9, 0.2]), threading.Event()
    monkeypatch.setattr(loop, "loss_and_accuracy", lambda *_: (1.0, next(accuracies)))
    save, written, keep = run.save_resume, [], run.Kept.keep

    def saves(folder, tensors, state):
        assert last.wait(60)
        written.append(state["epoch"])
        save(folder, tensors, state)

    def keeps(kept, trainer, aside):
        keep(kept, trainer, aside)
        if trainer.epoch == 3:
            last.set()

    monkeypatch.setattr(run, "save_resume", saves)
    monkeypatch.setattr(run.Kept, "keep", keeps)
    assert run.train(config, tmp_path / "run")["epoch"] == 2
    assert written == [1, 3]


def test_an_error_of_a_piece_came_first_and_is_the_one_that_is_seen():
    def fails():
        raise InputError("of the piece")

    def left(*errors):
        with Aside() as aside:
            aside(fails)
            for error in errors:
                raise error

    for errors in ((), (InputError("the loss became infinite; the checkpoint of epoch 2 is kept"),)):
        with pytest.raises(InputError, match="of the piece"):
            left(*errors)
    with pytest.warns(match="of the piece"), pytest.raises(KeyboardInterrupt):
        left(KeyboardInterrupt())


def test_an_interrupt_while_the_last_piece_is_written_waits_for_it():
    """Python's own wait for a thread takes an interrupted one for ended, and leaves half a file at exit."""
    done = []

    def interrupted():
        time.sleep(0.1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.3)
        done.append(1)

    with pytest.raises(KeyboardInterrupt), Aside() as aside:
        aside(interrupted)
    assert done == [1]


def test_nothing_is_left_to_compute_on_the_other_thread():
    """Its OpenMP threads would slow every later step of the training down."""
    weights = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    kept = copied({"weights": weights, "transposed": weights[..., 0, 0].T})
    assert all(tensor.is_contiguous() and tensor.device.type == "cpu" for tensor in kept.values())
    was = weights.clone()
    weights.zero_()
    assert torch.equal(kept["weights"], was)
    assert torch.equal(kept["transposed"], was[..., 0, 0].T)
