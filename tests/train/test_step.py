"""One optimiser step: replayed from what was captured of it, it leaves the same bits as run anew.

There is no GPU here: `Tape` stands in for the CUDA graph and keeps to its rules.
"""

import itertools

import pytest
import torch

from fer_fast import checks
from fer_fast.data.dataset import FaceDataset
from fer_fast.data.labels import CLASSES
from fer_fast.errors import InputError
from fer_fast.losses import ASoftmaxLoss
from fer_fast.ops import library
from fer_fast.registry import available
from fer_fast.train import loop, step
from fer_fast.train.backbones import BACKBONES
from fer_fast.train.config import config_parser, recipe_layer, resolve
from fer_fast.train.evaluation import predict
from fer_fast.train.hardware import Hardware
from fer_fast.train.loop import Trainer
from fer_fast.train.models import encode
from fer_fast.train.preflight import check_model
from fer_fast.train.progress import LineProgress
from fer_fast.train.step import Running, replays
from tape import Tape
from tiny_backbone import TINY

SIDE, BATCH, EPOCHS = 32, 8, 2
WHOLE, RAGGED = 5, 4  # whole batches an epoch, and the images of the last one


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """Labels are not looked at, gradients not scaled by a number the host reads; graphs are tapes."""
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    monkeypatch.setattr(checks, "readable", lambda y: False)
    monkeypatch.setattr(library, "_may_run_again", lambda factor: True)
    monkeypatch.setattr(loop, "replays", lambda config, hardware: True)
    monkeypatch.setattr(step, "Graph", Tape)
    monkeypatch.setattr(Tape, "made", [])


def configure(*flags, recipe="quick"):
    small = ("--backbone", "tiny", "--augment.size", str(SIDE), "--batch_size", str(BATCH), "--epochs", str(EPOCHS))
    small += ("--hardware.precision", "float32", "--ema", "0", "--model.bank_groups", "3")
    return resolve(config_parser(), [*small, *flags], [recipe_layer(recipe)])[0]


def trained(config, channels=1):
    generator = torch.Generator().manual_seed(0)
    count = WHOLE * BATCH + RAGGED
    labels = torch.arange(count) % 3
    noise = torch.randint(0, 40, (count, channels, SIDE, SIDE), generator=generator)
    faces = FaceDataset((noise + labels.view(-1, 1, 1, 1) * 70).to(torch.uint8), labels, CLASSES[:3], "train")
    trainer = Trainer(config, faces, faces.subset(range(6), "val"))
    trainer.fit(LineProgress(), lambda: None)
    return trainer


def compared(config, monkeypatch, **faces):
    """Names of the tensors in which a replayed run ends unlike one whose every step was run, and the replayed one."""
    replayed = trained(config, **faces)
    monkeypatch.setattr(step, "WARM_UP", 10**6)
    expected, tensors = trained(config, **faces).tensors(), replayed.tensors()
    assert expected.keys() == tensors.keys()
    assert any(name.startswith("optimiser") for name in tensors)
    return [name for name, value in expected.items() if not torch.equal(value, tensors[name])], replayed


# The first three whole steps are run, the others of each epoch replayed, and the ragged last one is run.
REPLAYED = WHOLE * EPOCHS - step.WARM_UP
SETTLING = ("a-softmax", "l-softmax")


@pytest.mark.parametrize("loss", [spec.name for spec in available() if spec.name not in SETTLING])
def test_replayed_steps_of_every_loss_leave_the_same_bits(loss, monkeypatch):
    unlike, trainer = compared(configure("--loss", loss, "--dataset", "faces"), monkeypatch)
    assert unlike == []
    assert len(Tape.made) == 1
    assert Tape.made[0].forbidden() == []
    if trainer.learner.bank is None:
        assert trainer.take_step.count == REPLAYED
    else:
        assert trainer.take_step.count > 0
