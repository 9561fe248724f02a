"""What each process of a group does in `tests/train/test_processes.py`, and one alone."""

from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO

import pytest
import torch
import torch.distributed as dist

from fer_fast.cli import main
from fer_fast.data.dataset import FaceDataset
from fer_fast.data.labels import CLASSES
from fer_fast.train.backbones import BACKBONES, BackboneInfo
from fer_fast.train.batch_norm import share_batch_norms
from fer_fast.train.evaluation import predict
from fer_fast.train.hardware import Hardware
from fer_fast.train.loop import Trainer
from fer_fast.train.processes import ALONE, Processes
from fer_fast.train.progress import LineProgress
from tiny_backbone import SIDE, Normed, configure

# Of 29 images three batches of 8 and one of 5; by threes the last has 2, which leaves a third process without any.
COUNT = 29
COMMON = ("--backbone", "normed", "--optimiser.name", "sgd", "--optimiser.rate", "0.05", "--augment.channels", "1")
RUNS = {
    "softmax": ("--loss", "softmax", "--ema", "0.9"),
    "variant": ("--loss", "variant", "--accumulate", "2", "--optimiser.clip", "0.5"),
    "center": ("--loss", "center", "--batch_size", "3", "--data.balanced", "true"),
    "ad-corre": ("--loss", "ad-corre", "--model.embedding_dim", "8", "--model.dropout", "0"),
    "ensc": ("--loss", "ensc", "--model.bank_groups", "3", "--objective.extra", "{ensc: {mva: 0.7}}"),
    "apart": ("--loss", "softmax", "--hardware.sync_batchnorm", "false", "--batch_size", "15"),
}


def in_float64(patch):
    """Networks and losses compute in it: what is left of a difference is no rounding."""
    narrow, layout, place = torch.Tensor.float, Hardware.layout, Hardware.place
    patch.setattr(torch.Tensor, "float", lambda tensor: tensor if tensor.dtype == torch.float64 else narrow(tensor))
    patch.setattr(Hardware, "layout", lambda self, images: layout(self, images.double()))
    patch.setattr(Hardware, "place", lambda self, module: place(self, module.double()))
    patch.setitem(BACKBONES, "normed", BackboneInfo("a test", 8, Normed))


def together():
    """The processes of the default group."""
    return Processes(dist.get_rank(), dist.get_world_size())


def faces(count):
    """Pictures of three classes, told apart by their light."""
    labels = torch.arange(count) % 3
    noise = torch.randint(0, 40, (count, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(count))
    return FaceDataset((noise + labels.view(-1, 1, 1, 1) * 70).to(torch.uint8), labels, CLASSES[:3], "train")


def trained(name, processes=ALONE):
    """A run at its end: tensors, losses and accuracies of its epochs, and scores in batches of two."""
    config = configure(*COMMON, *RUNS[name])
    config = replace(config, augment=replace(config.augment, rotation=20.0, crop_padding=0.1))
    trainer = Trainer(config, faces(COUNT), faces(7), processes=processes)
    trainer.fit(LineProgress(), lambda: None)
    rows = [[row[key] for key in ("train_loss", "train_accuracy", "val_accuracy")] for row in trainer.history]
    recogniser = trainer.ema or trainer.learner.recogniser
    _, scores = predict(recogniser, faces(7).images, config.augment, trainer.hardware, 2, processes=processes)
    return {key: value.detach().numpy() for key, value in trainer.tensors().items()}, rows, scores.numpy()


def trained_in_float64(name):
    """`trained` as a process of the group, whose other runs compute in float64, too."""
    with pytest.MonkeyPatch.context() as patch:
        in_float64(patch)
        return trained(name, together())


def commanded(arguments):
    """Exit status, output and errors of a command that torchrun could have started in this process of the group."""
    told = {"RANK": dist.get_rank(), "WORLD_SIZE": dist.get_world_size(), "MASTER_ADDR": "", "MASTER_PORT": ""}
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        patch.setitem(BACKBONES, "normed", BackboneInfo("a test", 8, Normed))
        for name, value in told.items():
            patch.setenv(name, str(value))
        return main(arguments), out.getvalue(), err.getvalue()


def normed(sizes):
    """Output, gradients and moved statistics of layers on a share of a batch, shares of these sizes."""
    layers, images = norms(sum(sizes))
    share_batch_norms(layers, torch.device("cpu"))
    mine = images.split(sizes)[dist.get_rank()].clone().requires_grad_()
    layers(mine).square().sum().backward()
    weights = [parameter.grad for parameter in layers.parameters()]
    for gradient in weights:
        dist.all_reduce(gradient)
    return [each.detach().numpy() for each in (mine.grad, *weights, *layers.buffers())]


def norms(count):
    """Layers of every kind that there is, and what they are given."""
    from timm.layers.norm_act import BatchNormAct2d

    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(3, 5, 3)
    pooled = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.BatchNorm1d(5, momentum=None)
    layers = torch.nn.Sequential(
        torch.nn.BatchNorm2d(3), convolution, BatchNormAct2d(5), *pooled, torch.nn.Linear(5, 4)
    )
    return layers.double(), torch.randn(count, 3, 6, 6, dtype=torch.float64)
