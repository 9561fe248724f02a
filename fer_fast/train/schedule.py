"""Learning-rate schedules: the factor on the base rate as a pure function of the step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fer_fast.errors import InputError


@dataclass
class ScheduleConfig:
    """How the learning rate moves over the run.

    Args:
        name: constant, step (falls by `factor` every `step_epochs` epochs), cosine (falls to `floor` at the end) or
            inverse (1 / (1 + `decay` · steps done), the "decay" of Keras optimisers).
        warmup_epochs: epochs, whole or not, over which the rate first rises linearly from zero.
        step_epochs: epochs between two falls of the step schedule.
        factor: what the step schedule multiplies the rate with.
        floor: the share of the base rate where the cosine schedule ends.
        decay: decay a step of the inverse schedule.
    """

    name: Literal["constant", "step", "cosine", "inverse"] = "cosine"
    warmup_epochs: float = 0.0
    step_epochs: int = 10
    factor: float = 0.5
    floor: float = 0.0
    decay: float = 1e-5

    def __post_init__(self) -> None:
        if self.name not in CURVES:
            raise InputError(f"schedule.name is {self.name!r}; allowed: {', '.join(CURVES)}")
        if self.warmup_epochs < 0 or self.step_epochs < 1:
            raise InputError("schedule.warmup_epochs must be at least 0 and schedule.step_epochs at least 1")
        if not (0 < self.factor <= 1 and 0 <= self.floor <= 1 and self.decay >= 0):
            raise InputError("schedule.factor must lie in (0, 1], schedule.floor in [0, 1], schedule.decay not below 0")


def rate_factor(config: ScheduleConfig, step: int, steps_per_epoch: int, steps: int) -> float:
    """The factor on the base learning rate for optimiser step `step` of `steps`, counted from 0.

    The first warm-up step already has a rate above zero; the curve proper starts where the warm-up ends.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    return CURVES[config.name](config, step - warmup, steps_per_epoch, steps - warmup)


def _constant(config: ScheduleConfig, step: int, steps_per_epoch: int, total: int) -> float:
    return 1.0


def _step(config: ScheduleConfig, step: int, steps_per_epoch: int, total: int) -> float:
    return config.factor ** (step // (config.step_epochs * steps_per_epoch))


def _cosine(config: ScheduleConfig, step: int, steps_per_epoch: int, total: int) -> float:
    return config.floor + (1 - config.floor) * (1 + math.cos(math.pi * step / total)) / 2


def _inverse(config: ScheduleConfig, step: int, steps_per_epoch: int, total: int) -> float:
    return 1 / (1 + config.decay * step)


CURVES: dict[str, Callable[[ScheduleConfig, int, int, int], float]] = {
    "constant": _constant,
    "step": _step,
    "cosine": _cosine,
    "inverse": _inverse,
}
