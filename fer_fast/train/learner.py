"""Everything of a run that learns: recogniser, auxiliary losses, key encoder and memory bank, as one module."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fer_fast.errors import InputError
from fer_fast.losses import JointLoss, MemoryBank
from fer_fast.train.backbones import build_backbone, find_backbone
from fer_fast.train.config import OptimiserConfig, RunConfig
from fer_fast.train.models import Encoder, Outputs, Recogniser, encode, move_towards
from fer_fast.train.objective import Batch, Plan, Term, build_loss, class_weights, plan_losses
from fer_fast.train.transfer import CaffeInput

SMALL_SIDE = 64  # pixels up to which the automatic stem keeps the resolution


class Learner(nn.Module):
    """The trained encoder with its losses and, for two views, the momentum key encoder and the memory bank.

    Args:
        recogniser: encoder and classifier.
        plan: the losses.
        terms: the auxiliary losses in the order of the plan.
        key_momentum: m of θ_k ← m·θ_k + (1 - m)·θ_q.
        bank_rows: capacity of the memory bank.
        real_batch: images that are encoded at a time.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        plan: Plan,
        terms: list[Term],
        key_momentum: float,
        bank_rows: int,
        real_batch: int,
    ):
        super().__init__()
        self.recogniser = recogniser
        self.terms = nn.ModuleList(terms)
        self.classifier_weight = plan.classifier_weight
        self.key_momentum = key_momentum
        self.real_batch = real_batch
        self.key: Encoder | None = None
        self.bank: MemoryBank | None = None
        if plan.shape == "two-views":
            self.key = copy.deepcopy(recogniser.encoder).requires_grad_(False)
            self.bank = MemoryBank(bank_rows, recogniser.encoder.head.projection_dim)
        # In a tuple: its two losses are registered above, and a state holds each tensor once.
        self._joint = (JointLoss(recogniser.classifier, terms[0].loss, terms[0].weight),) if plan.joint else ()

    @property
    def views(self) -> int:
        """How many augmented views of each image a step needs."""
        return 1 if self.key is None else 2

    def forward(
        self,
        views: list[Tensor],
        labels: Tensor,
        encoded: Callable[[Encoder, Tensor, int], Outputs] = encode,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Total loss of a batch, the classifier's predictions (n,), and the keys (n, p) for `remember`, if any.

        Args:
            views: one or two tensors (n, channels, height, width), the second for the key encoder.
            labels: (n,).
            encoded: `encode`, as it is or compiled.
        """
        outputs = encoded(self.recogniser.encoder, views[0], self.real_batch)
        with torch.no_grad():
            predictions = self.recogniser.classifier.logits(outputs.features).argmax(1)
            keys = encoded(self.key, views[1], self.real_batch).projection if self.key is not None else None
        with torch.autocast(labels.device.type, enabled=False):
            loss = self._total(Batch(outputs, labels, predictions, keys, self.bank))
        return loss, predictions, keys

    def _total(self, batch: Batch) -> Tensor:
        features = batch.outputs.features
        if self._joint:
            total = self._joint[0](features, batch.labels)
        else:
            total = self.classifier_weight * self.recogniser.classifier(features, batch.labels)
        for term in self.terms[len(self._joint) :]:
            total = total + term(batch)
        return total

    def remember(self, keys: Tensor | None, labels: Tensor) -> None:
        """Put a batch's keys into the bank. Only after its backward pass, which still reads the bank."""
        if self.bank is not None:
            self.bank.enqueue(keys, labels)

    def after_step(self) -> None:
        """Move the key encoder after an optimiser step."""
        if self.key is not None:
            move_towards(self.key, self.recogniser.encoder, self.key_momentum, copy_buffers=False)

    @torch.no_grad()
    def fill_bank(self, view: Tensor, labels: Tensor) -> None:
        """Put the keys of a batch into the bank without learning anything (ECAN, section 3.1)."""
        self.bank.enqueue(encode(self.key, view, self.real_batch).projection, labels)

    def parameter_groups(self, config: OptimiserConfig) -> list[dict]:
        """Trainable parameters for an optimiser: the encoder, then the losses with their own weight decay."""
        decay = config.weight_decay
        losses = [self.recogniser.classifier, *self.terms]
        heads = [parameter for loss in losses for parameter in loss.parameters()]
        groups = [
            {"params": list(self.recogniser.encoder.parameters()), "weight_decay": decay},
            {"params": heads, "weight_decay": decay if config.head_weight_decay is None else config.head_weight_decay},
        ]
        for group in groups:
            group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
        return [group for group in groups if group["params"]]


def build_encoder(config: RunConfig, shape: str, num_classes: int) -> Encoder:
    """The encoder with fresh weights from torch's global generator.

    Raises:
        InputError: a configuration that cannot be built.
    """
    stem = config.model.stem
    caffe = CaffeInput(config.augment) if config.model.geometry == "caffe" else None
    if stem == "auto":
        fits = find_backbone(config.backbone).small_stem is not None and caffe is None
        stem = "small" if fits and config.augment.size <= SMALL_SIDE else "standard"
    backbone = build_backbone(config.backbone, config.augment.channels, stem=stem, caffe=caffe)
    return Encoder(backbone, shape, config.model, num_classes)


def build_recogniser(config: RunConfig, plan: Plan, weights: Tensor, classes: tuple[str, ...]) -> Recogniser:
    """Encoder and classifier with fresh weights from torch's global generator.

    Args:
        weights: (C,) of the classes that the classifier tells.
        classes: those that the encoder was, or is, trained on.

    Raises:
        InputError: a configuration that cannot be built.
    """
    encoder = build_encoder(config, plan.shape, len(classes))
    return Recogniser(encoder, build_loss_for(encoder, plan.classifier, config, weights))


def build_learner(config: RunConfig, class_counts: Tensor, classes: tuple[str, ...]) -> Learner:
    """Build everything a run trains, with fresh weights from torch's global generator.

    Args:
        class_counts: (C,) training images of each class, for the weighted losses.
        classes: names of the classes.

    Raises:
        InputError: a configuration that cannot be built.
    """
    if len(classes) < 2:
        raise InputError(f"training needs at least two classes; the dataset has {', '.join(classes) or 'none'}")
    plan, weights = plan_losses(config), class_weights(class_counts)
    recogniser = build_recogniser(config, plan, weights, classes)
    terms = [
        Term(name, build_loss_for(recogniser.encoder, name, config, weights), weight)
        for name, weight in plan.auxiliary.items()
    ]
    bank_rows = config.model.bank_groups * config.loss_batch
    return Learner(recogniser, plan, terms, config.model.key_momentum, bank_rows, config.batch_size)


def build_loss_for(encoder: Encoder, name: str, config: RunConfig, weights: Tensor) -> nn.Module:
    """One loss of a configuration, of the widths of its encoder and for classes of the given weights (C,).

    Raises:
        InputError: unknown name, or options the loss does not accept.
    """
    dims = {"features": encoder.feature_dim, "projection": config.model.projection_dim}
    options = config.objective.options.get(name, {})
    return build_loss(name, num_classes=len(weights), dims=dims, class_weights=weights, options=options)
