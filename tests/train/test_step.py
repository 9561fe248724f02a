"""One optimiser step: replayed from what was captured of it, it leaves the same bits as run anew.

There is no GPU here: `Tape` stands in for the CUDA graph and keeps to its rules.
"""

import pytest
import torch

from fer_fast import checks
from fer_fast.data.dataset import FaceDataset
from fer_fast.data.labels import CLASSES
from fer_fast.errors import InputError
from fer_fast.losses import ASoftmaxLoss
from fer_fast.ops import autograd
from fer_fast.registry import available
from fer_fast.train import loop, step
from fer_fast.train.backbones import BACKBONES, BackboneInfo
from fer_fast.train.config import config_parser, recipe_layer, resolve
from fer_fast.train.hardware import Hardware
from fer_fast.train.loop import Trainer
from fer_fast.train.preflight import check_model
from fer_fast.train.progress import LineProgress
from fer_fast.train.step import Running, replays
from tape import Tape
from tiny_backbone import TINY, Normed

SIDE, BATCH, EPOCHS = 32, 8, 2
WHOLE, RAGGED = 5, 4  # whole batches an epoch, and the images of the last one


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """Labels are not looked at, gradients not scaled by a number the host reads; graphs are tapes."""
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    monkeypatch.setitem(BACKBONES, "normed", BackboneInfo("a test", 8, Normed))
    monkeypatch.setattr(checks, "readable", lambda y: False)
    monkeypatch.setattr(autograd, "_may_run_again", lambda factor: True)
    monkeypatch.setattr(loop, "replays", lambda *_: True)
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
    return [name for name, value in expected.items() if not torch.equal(value, tensors[name])], replayed


# The first three whole steps are run, the others of each epoch replayed, and the ragged last one is run.
REPLAYED = WHOLE * EPOCHS - 3


@pytest.mark.parametrize("loss", [spec.name for spec in available()])
def test_replayed_steps_of_every_loss_leave_the_same_bits(loss, monkeypatch):
    unlike, trainer = compared(configure("--loss", loss, "--dataset", "faces"), monkeypatch)
    assert unlike == []
    assert len(Tape.made) == 1
    assert Tape.made[0].forbidden() == []
    assert trainer.take_step.count == REPLAYED


def test_a_state_that_is_frozen_in_a_capture_would_be_seen(monkeypatch):
    blend = ASoftmaxLoss.lambda_.fget
    monkeypatch.setattr(ASoftmaxLoss, "lambda_", property(lambda self: blend(self).item()))
    unlike, _ = compared(configure("--loss", "a-softmax"), monkeypatch)
    assert "learner.recogniser.classifier.weight" in unlike


def test_the_steps_of_ecan_are_replayed_with_a_ragged_batch_among_the_groups_of_mva(monkeypatch):
    flags = ("--augment.channels", "1", "--ema", "0.9", "--model.bank_groups", "4")
    options = ("--objective.options", "{mva: {groups: 3}}")
    unlike, trainer = compared(configure(*flags, *options, recipe="ecan"), monkeypatch)
    assert unlike == []
    assert trainer.take_step.count == REPLAYED
    assert len(trainer.learner.bank) == 4 * BATCH


EVERY_CHANGE = (
    *("--augment.equalize", "true", "--augment.crop_padding", "0.1", "--augment.mirror", "0.5"),
    *("--augment.rotation", "10", "--augment.shear", "5", "--augment.scale", "[0.9, 1.1]"),
    *("--augment.brightness", "0.3", "--augment.contrast", "0.3", "--augment.saturation", "0.3"),
    *("--augment.grayscale", "0.2", "--augment.blur", "0.5", "--augment.erasing", "0.5"),
)


@pytest.mark.parametrize(
    ("flags", "channels"),
    [
        (("--ema", "0.9"), 1),
        (("--accumulate", "2"), 1),
        (("--optimiser.clip", "0.01"), 1),
        (("--optimiser.name", "sgd", "--optimiser.nesterov", "true", "--schedule.warmup_epochs", "1"), 1),
        (("--optimiser.name", "sgd", "--optimiser.momentum", "0"), 1),
        (("--optimiser.name", "adam"), 1),
        (("--backbone", "normed", "--loss", "ad-corre", "--ema", "0.9"), 1),  # BatchNorm, dropout, a window
        (EVERY_CHANGE, 1),
        ((*EVERY_CHANGE, "--augment.channels", "3"), 3),
        ((*EVERY_CHANGE, "--augment.size", "24"), 3),
    ],
)
def test_replayed_steps_of_every_kind_leave_the_same_bits(flags, channels, monkeypatch):
    unlike, trainer = compared(configure(*flags), monkeypatch, channels=channels)
    assert unlike == []
    assert Tape.made[0].forbidden() == []
    assert trainer.take_step.count == (WHOLE // 2 * EPOCHS - 3 if "--accumulate" in flags else REPLAYED)


class Refused(Tape):
    """A capture that ends in the middle, as one does that launches what no graph can hold."""

    def capture(self, work):
        super().capture(work)
        try:
            raise ValueError("operation not permitted when stream is capturing\nmore")
        except ValueError:
            raise RuntimeError("capture invalidated") from None


def test_a_capture_that_fails_loses_nothing(monkeypatch):
    config = configure("--augment.channels", "1", recipe="ecan")
    expected = trained(config).tensors()
    monkeypatch.setattr(step, "Graph", Refused)
    with pytest.warns(UserWarning, match=r"goes on without a CUDA graph.*: operation not .*capturing$") as told:
        trainer = trained(config)
    assert len(told) == len(Tape.made) - 1 == 1
    assert trainer.take_step.count == 0
    tensors = trainer.tensors()
    assert [name for name, value in expected.items() if not torch.equal(value, tensors[name])] == []


def test_a_capture_that_fails_ends_a_run_that_asked_for_it(monkeypatch):
    monkeypatch.setattr(step, "Graph", Refused)
    with pytest.raises(InputError) as error:
        trained(configure("--hardware.compile", "graph"))
    assert "could not be captured in a CUDA graph: operation not permitted" in str(error.value)
    assert "\n" not in str(error.value)


class Gpu(Hardware):
    """What a run on a GPU would resolve to."""

    def __init__(self, precision):
        self.device, self.precision, self.scales_gradients = torch.device("cuda"), precision, precision == "float16"


CPU, GPU = Hardware(configure().hardware), Gpu("bfloat16")


@pytest.mark.parametrize(
    ("wanted", "hardware", "flags", "replayed"),
    [
        ("auto", GPU, (), True),
        ("graph", GPU, (), True),
        ("network", GPU, (), True),
        ("none", GPU, (), False),
        ("auto", CPU, (), False),
        ("network", CPU, (), False),
        ("auto", Gpu("float16"), (), False),
        ("network", Gpu("float16"), (), False),
        ("auto", GPU, ("--virtual_batch", "2"), False),
        ("graph", CPU, (), "needs a CUDA device, not cpu"),
        ("graph", Gpu("float16"), (), "float16, whose gradient scaler"),
        ("graph", GPU, ("--virtual_batch", "2"), "a virtual batch"),
        ("network", GPU, ("--virtual_batch", "2"), "a virtual batch"),
    ],
)
def test_what_is_replayed_and_what_cannot_be(wanted, hardware, flags, replayed):
    config = configure("--hardware.compile", wanted, *flags)
    if isinstance(replayed, bool):
        assert replays(config, hardware) == replayed
    else:
        with pytest.raises(InputError, match=f"^hardware.compile {wanted} .*{replayed}"):
            replays(config, hardware)


def test_a_graph_without_a_gpu_is_refused_before_data_is_read():
    with pytest.raises(InputError, match="needs a CUDA device, not cpu; auto and none"):
        check_model(configure("--hardware.compile", "graph", "--hardware.device", "cpu"), None)


def test_the_first_batch_whose_loss_is_not_finite_is_told():
    running = Running(torch.device("cpu"))
    labels = torch.tensor([0, 1, 1])
    for loss in (1.0, 2.0, float("nan"), 3.0, float("inf")):
        running.update(torch.tensor(loss), torch.tensor([0, 1, 0]), labels, 3)
    *_, bad = running.read(15, 5, 15)
    assert bad == 2
    running.reset()
    for loss in (1.0, 2.0):
        running.update(torch.tensor(loss), torch.tensor([0, 1, 0]), labels, 3)
    assert running.read(6, 2, 6) == (1.5, pytest.approx(2 / 3), None)


def test_a_compiled_network_trains_the_same_weights_under_the_same_names(monkeypatch):
    """Slow: TorchInductor compiles a forward and a backward for the whole batches, and nothing else."""
    monkeypatch.setattr(loop, "replays", lambda *_: False)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    flags = ("--backbone", "normed", "--optimiser.name", "sgd", "--optimiser.rate", "0.1")
    compiled = trained(configure(*flags, "--hardware.compile", "network"))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    expected, tensors = trained(configure(*flags)).tensors(), compiled.tensors()
    assert expected.keys() == tensors.keys()
    for name, value in expected.items():
        torch.testing.assert_close(tensors[name], value, rtol=1e-4, atol=1e-6)
