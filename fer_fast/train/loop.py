"""The training loop: images fed ahead, augmentation in batches, no wait for the device inside a step."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fer_fast.data.dataset import FaceDataset
from fer_fast.data.sampling import epoch_batches
from fer_fast.errors import InputError
from fer_fast.train.checkpoint import below, optimiser_tensors, prefixed, restore, restore_optimiser
from fer_fast.train.config import RunConfig
from fer_fast.train.evaluation import loss_and_accuracy, predict
from fer_fast.train.feed import Feed
from fer_fast.train.hardware import Hardware
from fer_fast.train.learner import build_learner
from fer_fast.train.models import move_towards
from fer_fast.train.processes import ALONE, Processes
from fer_fast.train.progress import LineProgress
from fer_fast.train.schedule import rate_factor
from fer_fast.train.shown import counted
from fer_fast.train.step import Replay, Share, Update, replays
from fer_fast.train.transfer import load_encoder
from fer_fast.train.weights import Weights

REFRESH_SECONDS = 0.5  # the least time between two reads of the running numbers, each of which waits for the device
_ORDER, _AUGMENT, _NETWORK, _BANK, _LABELS = range(5)  # purposes of random numbers


class Trainer:
    """One run: everything that changes over it, one epoch at a time.

    Random numbers of an epoch (order, augmentation, dropout) follow from the seed and the epoch's number alone, so a
    run that resumes after an epoch continues exactly as if it had never stopped. Of several processes each takes its
    share of every batch and of its random numbers: order and augmentation are those of one process, on any number of
    them; dropout is drawn in each.

    Args:
        config: of the run.
        train, val: images to learn from, images to select the epoch by.
        weights: what the encoder starts from; None starts from random numbers.
        processes: that train together.

    Raises:
        InputError: a configuration that cannot be trained, or data too small for it.
    """

    def __init__(
        self,
        config: RunConfig,
        train: FaceDataset,
        val: FaceDataset,
        weights: Weights | None = None,
        processes: Processes = ALONE,
    ):
        if min(len(train), len(val)) < 2:
            raise InputError(f"training needs at least 2 images a split; there are {len(train)} train, {len(val)} val")
        self.config, self.train_set, self.val_set = config, train, val
        self.processes = processes
        self.hardware = Hardware(config.hardware, processes)
        torch.manual_seed(config.seed)
        self.learner = build_learner(config, train.class_counts(), train.classes)
        self.started_from = self._prepare_encoders(weights)
        self.hardware.place(self.learner)
        if processes.count > 1:
            self._check_shares()
        replayed = replays(config, self.hardware, processes)
        self.update = Update(config, self.learner, self.hardware, replayed)
        self.take_step = Replay(self.update, required=config.hardware.compile == "graph") if replayed else self.update
        self.ema = copy.deepcopy(self.learner.recogniser).requires_grad_(False) if config.ema else None
        labels = train.labels.to(torch.int32)  # what kernels compare, in one instruction
        self.feed = Feed(train.images, labels, self.hardware.device)
        self.steps_per_epoch = math.ceil(len(self._batches(0)) / config.accumulate)
        limit = config.iterations or config.epochs * self.steps_per_epoch
        self.steps = min(limit, config.epochs * self.steps_per_epoch)
        self.epochs = math.ceil(self.steps / self.steps_per_epoch)
        self.epoch = self.step = 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.best_tensors: dict[str, Tensor] = {}

    def fit(self, progress: LineProgress, on_epoch: Callable[[], None]) -> None:
        """Train the remaining epochs, calling `on_epoch` after each.

        Raises:
            InputError: the loss is no longer finite.
        """
        with self.hardware.side_stream():
            if self.processes.count > 1:
                self.update.join()
            if self.epoch == 0 and self.learner.bank is not None:
                self._fill_bank()
            while self.epoch < self.epochs:
                self._train_epoch(progress)
                on_epoch()
                progress.finish(self.history[-1], self.epochs)

    def weights(self) -> tuple[str, dict[str, Tensor]]:
        """The recogniser to evaluate now: its prefix in the checkpoint, and its state."""
        if self.config.select == "best" and self.best_tensors:
            return "best", self.best_tensors
        if self.ema is not None:
            return "ema", self.ema.state_dict()
        return "learner.recogniser", self.learner.recogniser.state_dict()

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that a resumed run needs."""
        return {
            **prefixed("learner", self.learner.state_dict()),
            **prefixed("ema", self.ema.state_dict() if self.ema is not None else {}),
            **prefixed("best", self.best_tensors),
            **prefixed("optimiser", optimiser_tensors(self.update.optimiser)),
        }

    def state(self) -> dict[str, Any]:
        """Everything else that a resumed run needs, as JSON values."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
            "best": self.best,
            "scaler": self.update.scaler.state_dict(),
        }

    def resume(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Continue from what `tensors` and `state` gave after some epoch.

        Raises:
            InputError: they do not fit this run.
        """
        restore(self.learner, below("learner", tensors), "the checkpoint")
        if self.ema is not None:
            restore(self.ema, below("ema", tensors), "the checkpoint's averaged weights")
        restore_optimiser(self.update.optimiser, below("optimiser", tensors))
        if self.update.scaler.is_enabled():
            self.update.scaler.load_state_dict(state["scaler"])
        self.best_tensors = below("best", tensors)
        self.epoch, self.step = state["epoch"], state["step"]
        self.history, self.best = state["history"], state["best"]

    def _train_epoch(self, progress: LineProgress) -> None:
        started = time.perf_counter()
        torch.manual_seed(self._seed(_NETWORK, self.epoch, self.processes.rank))
        self.update.generator.manual_seed(self._seed(_AUGMENT, self.epoch))
        batches = self._batches(self.epoch)[: (self.steps - self.step) * self.config.accumulate]
        total = sum(len(batch) for batch in batches)
        if self.train_set.votes is not None:
            self.feed.labels = self._drawn_labels(self.train_set.votes)
        fed = self._shares(batches)
        self.update.running.reset()
        progress.start(self.epoch + 1, self.epochs, total)
        self.learner.train()
        refreshed, done, images, own = started, 0, 0, 0
        while group := list(islice(fed, self.config.accumulate)):
            self.update.set_rate(rate := self.rate())
            self.take_step(group)
            self.step += 1
            self._average()
            done += len(group)
            images += sum(batch.total for batch in group)
            own += sum(len(batch.labels) for batch in group)
            if self.processes.first and (now := time.perf_counter()) - refreshed > REFRESH_SECONDS:
                refreshed = now
                loss, accuracy = self._read(images, done, own)
                progress.update(images, loss, accuracy, images / (now - started))
        self.processes.add(self.update.running.right)
        loss, accuracy = self._read(images, done, images)
        speed = total / (time.perf_counter() - started)
        self.epoch += 1
        self._close_epoch(loss, accuracy, rate, speed, started)

    def _close_epoch(self, loss: float, accuracy: float, rate: float, speed: float, started: float) -> None:
        """Validate, write the epoch's row and keep the weights if they are the best so far."""
        recogniser = self.ema if self.ema is not None else self.learner.recogniser
        if self.processes.count > 1 and not self.config.hardware.sync_batchnorm:
            self._average_norms()
        _, scores = predict(
            recogniser, self.val_set.images, self.config.augment, self.hardware, processes=self.processes
        )
        val_loss, val_accuracy = loss_and_accuracy(scores, self.val_set.labels)
        self.history.append(
            {
                "epoch": self.epoch,
                "step": self.step,
                "train_loss": loss,
                "train_accuracy": accuracy,
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
                "learning_rate": rate,
                "images_per_second": speed,
                "seconds": time.perf_counter() - started,
            }
        )
        if self.best is None or val_accuracy > self.best["val_accuracy"]:
            self.best = {"epoch": self.epoch, "val_accuracy": val_accuracy}
            if self.config.select == "best":
                self.best_tensors = {name: value.clone() for name, value in recogniser.state_dict().items()}

    def _average(self) -> None:
        """Move the averaged weights after a step. Not a part of it: their decay is another one at every early step."""
        if self.ema is not None:
            # An average over few steps so far must not remember the random weights it began with.
            decay = min(self.config.ema, self.step / (self.step + 10))
            move_towards(self.ema, self.learner.recogniser, decay, copy_buffers=True)

    def rate(self) -> float:
        """The learning rate of the next step."""
        return self.config.optimiser.rate * rate_factor(
            self.config.schedule, self.step, self.steps_per_epoch, self.steps
        )

    def _read(self, images: int, batches: int, predicted: int) -> tuple[float, float]:
        """Loss and accuracy of the epoch's images so far, which came in so many batches and were predicted here."""
        loss, accuracy, bad = self.update.running.read(images, batches, predicted)
        if bad is not None:
            step = self.epoch * self.steps_per_epoch + bad // self.config.accumulate
            kept = f"; the checkpoint of epoch {self.epoch} is kept" if self.epoch else ""
            raise InputError(
                f"the loss became infinite or not a number in epoch {self.epoch + 1}, step {step + 1}{kept}; "
                "try a lower optimiser.rate, or optimiser.clip"
            )
        return loss, accuracy

    def _batches(self, epoch: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(self._seed(_ORDER, epoch))
        config = self.config
        return epoch_batches(
            self.train_set.labels, config.loss_batch, generator=generator, balanced=config.data.balanced
        )

    def _drawn_labels(self, votes: Tensor) -> Tensor:
        """One class an image from soft labels (n, C), drawn anew every epoch: each loss takes one class an image.

        Probabilistic label drawing (Barsoum et al., ICMI 2016).
        """
        generator = torch.Generator().manual_seed(self._seed(_LABELS, self.epoch))
        drawn = torch.multinomial(votes, 1, generator=generator).squeeze(1)
        return drawn.to(self.hardware.device, torch.int32)

    def _fill_bank(self) -> None:
        torch.manual_seed(self._seed(_BANK, 0))
        generator = self.update.generator.manual_seed(self._seed(_BANK, 0))
        batches = self._batches(0)
        self.learner.train()
        groups = [batches[group % len(batches)] for group in range(self.config.model.bank_groups)]
        for pixels, labels, *place in self._shares(groups):
            view = self.hardware.layout(self.update.augment(pixels, generator, *place))
            with self.hardware.autocast():
                self.learner.fill_bank(view, labels)

    def _shares(self, batches: list[Tensor]) -> Iterator[Share]:
        """What this process has of batches of indices."""
        shares = [self.processes.share(torch.arange(len(batch))) for batch in batches]
        fed = self.feed.batches([batch[share] for batch, share in zip(batches, shares, strict=True)])
        for (pixels, labels), share, batch in zip(fed, shares, batches, strict=True):
            yield Share(pixels, labels, int(share[0]) if len(share) else 0, len(batch))

    def _seed(self, purpose: int, epoch: int, rank: int = 0) -> int:
        words = (self.config.seed, purpose, epoch, *([rank] if rank else []))
        return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)

    def _check_shares(self) -> None:
        """Make BatchNorm that of all processes, or see to it that each one's share of every batch will do.

        Raises:
            InputError: a share is too small.
        """
        from fer_fast.train.batch_norm import batch_norms, share_batch_norms  # timm's beside PyTorch's

        backbone, config = self.learner.recogniser.encoder.backbone, self.config
        smallest = min(len(batch) for batch in self._batches(0))
        least, reason = smallest // self.processes.count, ""
        if config.hardware.sync_batchnorm:
            share_batch_norms(self.learner, self.hardware.device)
        elif least < 2 and batch_norms(self.learner):
            reason = "BatchNorm needs two without hardware.sync_batchnorm"
        if not (least or reason):
            none = torch.empty(0, config.augment.channels, *[config.augment.size] * 2, device=self.hardware.device)
            try:
                with torch.no_grad():
                    backbone.eval()(self.hardware.layout(none))
            except RuntimeError:
                reason = f"{config.backbone} computes nothing of none"
        if reason:
            raise InputError(
                f"one of {self.processes.count} processes gets {counted(least, 'image')} of a batch of {smallest}, "
                f"and {reason}; choose another batch_size"
            )

    def _average_norms(self) -> None:
        """What each process's BatchNorm gathered, as the mean of all."""
        from fer_fast.train.batch_norm import batch_norms

        networks = filter(None, (self.learner, self.ema))
        norms = [norm for network in networks for norm in batch_norms(network)]
        self.processes.average([each for norm in norms for each in (norm.running_mean, norm.running_var)])

    def _prepare_encoders(self, weights: Weights | None) -> str | None:
        """Start from weights and freeze stages where the configuration says so; a line on what the weights filled."""
        encoder, key = self.learner.recogniser.encoder, self.learner.key
        line = load_encoder(encoder, weights) if weights else None
        if key is not None:
            key.load_state_dict(encoder.state_dict())
        for each in filter(None, (encoder, key)):
            each.backbone.freeze(self.config.model.frozen_stages)
        return line
