"""What is tried before the first batch: a run does not end in an error that it could have begun with."""

import importlib
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from fer_fast.errors import InputError
from fer_fast.train.checkpoint import CHECKPOINT, RESUME
from fer_fast.train.config import RunConfig
from fer_fast.train.hardware import Hardware
from fer_fast.train.learner import build_learner
from fer_fast.train.loop import Trainer
from fer_fast.train.transfer import match_weights
from fer_fast.train.weights import Weights

REPORT_BYTES = 32 << 20  # report, log and metrics, generously


def check_model(config: RunConfig, weights: Weights | None) -> None:
    """Build everything that learns, without memory and for two classes, before the data is read, which can take long.

    Raises:
        InputError: a device, network, loss or option that does not exist, or weights of another network.
    """
    Hardware(config.hardware)
    with torch.device("meta"):
        learner = build_learner(config, torch.ones(2, device="cpu"), ("one", "other"))
    backbone = learner.recogniser.encoder.backbone
    backbone.freeze(config.model.frozen_stages)
    if weights is not None:
        match_weights(backbone, weights)


def check_end(trainer: Trainer, out: Path) -> None:
    """Make sure that what a run leaves can be written: room for its files, and the libraries of its report.

    Raises:
        InputError: the disk has too little room.
    """
    for name in ("fer_fast.train.metrics", "fer_fast.train.report"):
        importlib.import_module(name)
    weights = _bytes(trainer.learner.recogniser.state_dict().values())
    state = _bytes(trainer.tensors().values()) + (weights if trainer.config.select == "best" else 0)
    if not trainer.optimiser.state:
        state += _optimiser_bytes(trainer)
    # A file and the one that replaces it lie side by side for a moment.
    there = sum((out / name).stat().st_size for name in (RESUME, CHECKPOINT) if (out / name).exists())
    needed, free = 2 * state + weights + REPORT_BYTES - there, shutil.disk_usage(out).free
    if free < needed:
        raise InputError(f"{out} has {free / 1e6:,.0f} MB free; the run's files need {needed / 1e6:,.0f} MB")


def _optimiser_bytes(trainer: Trainer) -> int:
    """What the optimiser will hold after its first step: a momentum, or two moments, for each parameter."""
    config = trainer.config.optimiser
    copies = (1 if config.momentum else 0) if config.name == "sgd" else 2
    return copies * _bytes(p for group in trainer.optimiser.param_groups for p in group["params"])


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
