"""What is tried before the first batch: a run does not end in an error that it could have begun with."""

import importlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from fer_fast.errors import InputError
from fer_fast.train.checkpoint import CHECKPOINT, RESUME
from fer_fast.train.config import RunConfig
from fer_fast.train.hardware import Hardware
from fer_fast.train.learner import build_encoder, build_loss_for
from fer_fast.train.loop import Trainer
from fer_fast.train.objective import plan_losses
from fer_fast.train.processes import ALONE, Processes
from fer_fast.train.step import replays
from fer_fast.train.transfer import match_weights
from fer_fast.train.weights import Weights

REPORT_BYTES = 32 << 20  # report, log and metrics, generously


def check_model(config: RunConfig, weights: Weights | None, processes: Processes = ALONE) -> None:
    """Build what will learn, for two classes and the network without memory, before data is read, which can take long.

    Raises:
        InputError: a device, network, loss or option that does not exist, or weights of another network.
    """
    replays(config, Hardware(config.hardware, processes), processes)
    plan = plan_losses(config)
    with torch.device("meta"):
        encoder = build_encoder(config, plan.shape, num_classes=2)
    encoder.backbone.freeze(config.model.frozen_stages)
    for name in (plan.classifier, *plan.auxiliary):
        build_loss_for(encoder, name, config, torch.ones(2))
    if weights is not None:
        match_weights(encoder.backbone, weights)


def check_end(trainer: Trainer, out: Path) -> None:
    """Make sure that what a run leaves can be written: room for its files, and the libraries of its report.

    Raises:
        InputError: the disk has too little room.
    """
    for name in ("fer_fast.train.metrics", "fer_fast.train.report"):
        importlib.import_module(name)
    needed, free = needed_bytes(trainer, out), shutil.disk_usage(out).free
    if free < needed:
        raise InputError(f"{out} has {free / 1e6:,.0f} MB free; the run's files need {needed / 1e6:,.0f} MB")


@contextmanager
def memory_named(config: RunConfig) -> Iterator[None]:
    """Say what helps where the device has too little memory.

    Raises:
        InputError: in place of torch's error.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        hint = f"try a batch_size below {config.batch_size}, with virtual_batch"
        raise InputError(f"out of device memory: {hint}") from None


def needed_bytes(trainer: Trainer, out: Path) -> int:
    """The most room that a run's files will take beyond those that are there, while one replaces another."""
    weights = _bytes(trainer.learner.recogniser.state_dict().values())
    state = _bytes(trainer.tensors().values())
    if trainer.step == 0:
        state += _optimiser_bytes(trainer) + (weights if trainer.config.select == "best" else 0)
    there = sum((out / name).stat().st_size for name in (RESUME, CHECKPOINT) if (out / name).exists())
    return 2 * state + weights + REPORT_BYTES - there


def _optimiser_bytes(trainer: Trainer) -> int:
    """What the optimiser will hold after its first step: a momentum, or two moments, for each parameter."""
    config = trainer.config.optimiser
    copies = (1 if config.momentum else 0) if config.name == "sgd" else 2
    return copies * _bytes(p for group in trainer.update.optimiser.param_groups for p in group["params"])


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
