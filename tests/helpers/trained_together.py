"""What a process of several does in `tests/train/test_processes.py`: the runs that it trains with the others."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from fer_fast.data.dataset import FaceDataset
from fer_fast.data.labels import CLASSES
from fer_fast.train.backbones import BACKBONES, BackboneInfo
from fer_fast.train.evaluation import predict
from fer_fast.train.hardware import Hardware
from fer_fast.train.loop import Trainer
from fer_fast.train.processes import ALONE, joined
from fer_fast.train.progress import LineProgress
from tiny_backbone import SIDE, Normed, configure

# Of 29 images three batches of 8 and one of 5; by threes the last has 2, which leaves a third process without any.
COUNT = 29
COMMON = ("--backbone", "normed", "--batch_size", "8", "--augment.channels", "1", "--model.bank_groups", "3")
RUNS = {
    "softmax": ("--loss", "softmax", "--ema", "0.9"),
    "variant": ("--loss", "variant", "--accumulate", "2", "--optimiser.clip", "0.5"),
    "ad-corre": ("--loss", "ad-corre", "--model.embedding_dim", "8", "--model.dropout", "0"),
    "ecan": ("--loss", "ensc", "--objective.extra", "{ensc: {mva: 0.7}}", "--dataset", "faces"),
    "none": ("--loss", "center", "--batch_size", "3", "--data.balanced", "true"),
}


def configured(name):
    """A run of two epochs by SGD."""
    config = configure(*COMMON, "--optimiser.name", "sgd", "--optimiser.rate", "0.05", *RUNS[name])
    return replace(config, augment=replace(config.augment, rotation=20.0, crop_padding=0.1))


def faces(count=COUNT):
    """Pictures of three classes, told apart by their light."""
    labels = torch.arange(count) % 3
    noise = torch.randint(0, 40, (count, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(count))
    return FaceDataset((noise + labels.view(-1, 1, 1, 1) * 70).to(torch.uint8), labels, CLASSES[:3], "train")


def in_float64():
    """Networks and losses compute in it: what is left of a difference is no rounding."""
    narrow, layout, place = torch.Tensor.float, Hardware.layout, Hardware.place
    torch.Tensor.float = lambda tensor: tensor if tensor.dtype == torch.float64 else narrow(tensor)
    Hardware.layout = lambda self, images: layout(self, images.double())
    Hardware.place = lambda self, module: place(self, module.double())


def trained(name, processes=ALONE):
    """A run at its end: tensors in float64, and its history without times."""
    BACKBONES["normed"] = BackboneInfo("a test", 8, Normed)
    trainer = Trainer(configured(name), faces(), faces(7), processes=processes)
    trainer.fit(LineProgress(), lambda: None)
    rows = [{key: row[key] for key in ("train_loss", "train_accuracy", "val_accuracy")} for row in trainer.history]
    _, scores = predict(
        trainer.learner.recogniser, faces(7).images, trainer.config.augment, trainer.hardware, 2, processes=processes
    )
    return {key: value.detach().clone() for key, value in trainer.tensors().items()}, rows, scores


if __name__ == "__main__":
    in_float64()
    with joined() as processes:
        torch.set_num_threads(1)
        found = {}
        for name in sys.argv[2:] or RUNS:
            found[name] = trained(name, processes)
        torch.save(found, Path(sys.argv[1]) / f"{os.environ['RANK']}.pt")
