"""What a step minimises: the classifier, the auxiliary losses with their papers' weights, and what each is fed."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fer_fast import losses
from fer_fast.errors import InputError
from fer_fast.losses import MemoryBank
from fer_fast.registry import find
from fer_fast.suggest import one_of
from fer_fast.train.config import RunConfig
from fer_fast.train.models import Outputs


class Batch(NamedTuple):
    """Everything a loss of one step can ask for.

    Attributes:
        outputs: of the trained encoder for the n images (first views).
        labels: (n,).
        predictions: (n,) the classifier's present choice.
        keys: (n, p) projections of the second views by the key encoder, without gradient, or None.
        bank: earlier keys, or None.
    """

    outputs: Outputs
    labels: Tensor
    predictions: Tensor
    keys: Tensor | None = None
    bank: MemoryBank | None = None


def _features(batch: Batch) -> tuple[Tensor, Tensor]:
    return batch.outputs.features, batch.labels


def _embeddings(batch: Batch) -> tuple[Tensor, Tensor]:
    return batch.outputs.embeddings, batch.labels


def _both_views(batch: Batch) -> tuple[Tensor, Tensor]:
    return torch.cat((batch.outputs.projection, batch.keys)), batch.labels.repeat(2)


def _query_view(batch: Batch) -> tuple[Tensor, Tensor]:
    return batch.outputs.projection, batch.labels


@dataclass(frozen=True)
class LossSetup:
    """How a loss takes part in training unless the configuration says otherwise.

    Attributes:
        feed: picks the positional arguments of the loss from the batch.
        shape: the model shape that provides them.
        width: whose width the loss is built for, "features" or "projection".
        weight: weight in the total loss.
        classifier: the classifier the loss brings along; None for a loss that is one.
        shares: whether that classifier's weight is what this loss leaves of 1, in place of 1.
    """

    feed: Callable[[Batch], tuple[Tensor, Tensor]] = _features
    shape: str = "single"
    width: str = "features"
    weight: float = 1.0
    classifier: str | None = "softmax"
    shares: bool = False


_SMALL = LossSetup(weight=0.001)  # variant-loss paper, section 4.1: for center, range, marginal and variant alike
_FAMILIES = {
    "classifier": LossSetup(classifier=None),
    "center": _SMALL,
    "pairwise": _SMALL,
    "correlation": LossSetup(_embeddings, "embeddings", weight=0.5),  # Ad-Corre, section IV-D
    "contrastive": LossSetup(_both_views, "two-views", weight=0.2, shares=True),  # ECAN, eq. 11
}
_SPECIAL = {
    "weighted-cluster": LossSetup(weight=1.0, classifier="weighted-softmax"),
    "mva": LossSetup(_query_view, "two-views", width="projection", weight=0.7),
}


def loss_setup(name: str) -> LossSetup:
    """How the loss of that command-line name takes part in training; an unknown name is an `InputError`."""
    return _SPECIAL.get(name) or _FAMILIES[find(name).family]


@dataclass(frozen=True)
class Plan:
    """The losses of a run by name, and the model shape they need.

    Attributes:
        classifier, classifier_weight: the classifier and its weight.
        auxiliary: weights of the auxiliary losses by name, the chosen one first.
        shape: a key of `fer_fast.train.models.SHAPES`.
    """

    classifier: str
    classifier_weight: float
    auxiliary: dict[str, float]
    shape: str

    @property
    def joint(self) -> bool:
        """Whether classifier and first auxiliary loss can share one pass over the features."""
        first = next(iter(self.auxiliary), None)
        return first is not None and self.classifier_weight == 1 and loss_setup(first).feed is _features


def plan_losses(config: RunConfig) -> Plan:
    """Work out which losses a configuration asks for.

    Raises:
        InputError: an unknown loss, an auxiliary loss as classifier, or losses that need different model shapes.
    """
    setup, objective = loss_setup(config.loss), config.objective
    auxiliary = {}
    if setup.classifier is not None:
        auxiliary[config.loss] = setup.weight if objective.weight is None else objective.weight
    auxiliary |= objective.extra.get(config.loss, {})
    classifier = config.loss if setup.classifier is None else objective.classifier or setup.classifier
    if loss_setup(classifier).classifier is not None:
        raise InputError(f"objective.classifier is {classifier!r}, which is not a classifier loss")
    if wrong := [name for name in auxiliary if loss_setup(name).classifier is None]:
        raise InputError(f"objective.extra names {wrong[0]!r}, which is a classifier and not an auxiliary loss")
    shapes = sorted({loss_setup(name).shape for name in auxiliary} - {"single"})
    if len(shapes) > 1:
        raise InputError(f"losses {', '.join(auxiliary)} need different model shapes: {' and '.join(shapes)}")
    return Plan(classifier, _classifier_weight(config, auxiliary), auxiliary, shapes[0] if shapes else "single")


def is_cross_entropy(config: RunConfig) -> bool:
    """Whether a run minimises what its validation loss is: the plain cross-entropy of the logits, nothing besides."""
    plan = plan_losses(config)
    plain = plan.classifier == "softmax" and not config.objective.options.get("softmax")
    return plain and plan.classifier_weight == 1 and not plan.auxiliary


def _classifier_weight(config: RunConfig, auxiliary: dict[str, float]) -> float:
    """The weight as configured, else as the paper of the loss has it."""
    if config.objective.classifier_weight is not None:
        return config.objective.classifier_weight
    if not loss_setup(config.loss).shares:
        return 1.0
    if (left := 1 - auxiliary[config.loss]) < 0:
        raise InputError(
            f"objective.weight is {auxiliary[config.loss]}, which leaves nothing to the classifier; allowed: 0 to 1, "
            "or any with objective.classifier_weight"
        )
    return left


def build_loss(
    name: str, *, num_classes: int, dims: dict[str, int], class_weights: Tensor, options: dict[str, Any]
) -> nn.Module:
    """One loss of the registry, given those of the arguments that its constructor takes.

    `dims` holds the width of what the losses are fed, "features" and "projection".

    Raises:
        InputError: unknown name, or options the constructor does not accept.
    """
    cls = getattr(losses, find(name).cls)
    accepted = inspect.signature(cls).parameters
    for key in options:
        one_of(key, accepted, f"objective.options.{name}")
    known = {
        "num_classes": num_classes,
        "feature_dim": dims[loss_setup(name).width],
    }
    if name.startswith("weighted"):
        known["class_weights"] = class_weights
    try:
        return cls(**{key: value for key, value in known.items() if key in accepted} | options)
    except (ValueError, TypeError) as error:
        raise InputError(f"objective.options.{name}: {error}") from None


def class_weights(counts: Tensor) -> Tensor:
    """N_min / N_k for each class of the training set, (C,) float32 (weighted-cluster paper, eq. 6).

    A class without any image has no weight; it is given 1, which no image ever uses.
    """
    present = counts > 0
    return torch.where(present, counts[present].min() / counts.clamp(min=1), 1.0).float()


class Term(nn.Module):
    """One auxiliary loss with its weight, fed from a batch."""

    def __init__(self, name: str, loss: nn.Module, weight: float):
        super().__init__()
        self.loss = loss
        self.weight = weight
        self.feed = loss_setup(name).feed
        self.keywords = {"bank", "predictions"} & set(inspect.signature(loss.forward).parameters)

    def forward(self, batch: Batch) -> Tensor:
        # ESC, ENSC and MVA read the bank, FD and Ad-Corre the predictions; the others take neither.
        keywords = {name: getattr(batch, name) for name in self.keywords}
        return self.weight * self.loss(*self.feed(batch), **keywords)
