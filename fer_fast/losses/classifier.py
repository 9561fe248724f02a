"""Classifier losses: modules that own the class weights and also give the logits for inference."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import checks, reference
from ..checks import Empty, Reduction
from ..dispatch import Backend
from ..functional import Term, joint_loss
from ..functional.whole import Gradients
from ..reference import AngularParams
from ..reference.params import Count, NonNegative
from ..terms import Draw, Group
from .by_class import ByClass


class ClassifierLoss(ByClass):
    """A loss with a weight per class, called as `loss(features, labels, sample_weights=None)`.

    Features are (n, d), labels classes (n,) or, as mixup makes them, shares of every class (n, C). A row of weight 0 is
    absent, whatever it holds, and so is one whose label is `ignore_index`; the mean divides by the sum of the weights,
    and a batch of absent rows loses nothing. `label_smoothing` ε as in PyTorch's cross_entropy: the target is 1 - ε of
    itself and ε/C of every class. A margin stands on the target, smoothed or not; soft labels have one where they are
    one class's alone.

    With `sharded=True` each process of the group has the weights of some classes only (:class:`.by_class.ByClass`); the
    loss and gradients are those of all classes and of the rows of all processes. Labels, hard ones, are any of the C
    classes, and `class_weights` are of all. Each process draws the whole table and keeps its rows: after the same seed
    they are together what one process draws. It pays where the table is large beside the batch: C above about 0.75 N.

    `negative_share` below 1, of such a loss: a training step takes the classes of the batch and so many others that
    they are ⌈share · C/R⌉ of a process's, or as many as the batch has rows where that is more; the gradient of the rest
    is zero (Partial FC, An et al. 2021). Those of step t are the classes j with the largest SplitMix64(SplitMix64(t) +
    j), whatever process has them; t, `.draws`, starts at a number that torch's generator gives with the table, and is
    in the state.
    """

    feature_dim: int
    weight: nn.Parameter  # (C, d)
    directional = False  # whether a class is the direction of its weight, whose length does nothing

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        params: tuple,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
        sharded: bool = False,
        negative_share: float = 1.0,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ):
        shared = {"process_group": process_group, "gradients": gradients}
        super().__init__(params=params, reduction=reduction, backend=backend, empty=empty, **shared)
        self.label_smoothing = checks.fraction(label_smoothing, "label_smoothing")
        self.ignore_index = None if ignore_index is None else checks.integer(ignore_index, "ignore_index")
        self.num_classes = checks.at_least(num_classes, 1, "num_classes")
        self.feature_dim = checks.at_least(feature_dim, 1, "feature_dim")
        self.sharded, self.negative_share = bool(sharded), checks.fraction(negative_share, "negative_share")
        if self.negative_share < 1 and not (sharded and not label_smoothing):
            what = "label_smoothing is of all classes" if sharded else "of the classes of sharded=True"
            raise ValueError(f"negative_share: {negative_share!r} given; {what}")
        weight = torch.empty(num_classes, feature_dim)
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))  # as nn.Linear
        self.weight = nn.Parameter(self._own_rows(weight))
        if self.negative_share < 1:
            self.register_buffer("draws", torch.randint(2**62, ()))

    shared = __init__

    def term(self) -> Term:
        """This loss and its tensors, for a pass it may share with an auxiliary loss."""
        of_rows = {"label_smoothing": self.label_smoothing, "ignore_index": self.ignore_index}
        term = Term(self.name, self.weight, params=self.params, **of_rows)
        if not self.sharded:
            return term
        draw = Draw()
        if self._draws:
            checks.moves("draws")
            draw = Draw(self.negative_share, self.draws.clone())
        return term._replace(num_classes=self.num_classes, draw=draw)

    def logits(self, features: Tensor) -> Tensor:
        """The scores (n, C) for inference, without a margin, of features (n, d); there may be no rows.

        Where the classes are sharded every process calls for them, with rows of its own, and the table is gathered.

        Raises:
            ValueError: for features that do not fit, by name.
        """
        checks.features(features, "features", rows=False)
        checks.width(features, "features", self.weight, "weight")
        weight = self.whole("weight")
        checks.table(weight, "weight", features.shape[1], features.device)
        return self.scores(features, weight)

    def scores(self, features: Tensor, weight: Tensor) -> Tensor:
        """:meth:`logits` of features that fit, by all classes' weights."""
        raise NotImplementedError

    @property
    def _draws(self) -> bool:
        """Whether a step takes part with some of the classes."""
        return self.training and self.negative_share < 1

    def step(self) -> None:
        """Called after each forward pass, for losses that change as training goes on."""
        if self._draws:
            self.draws += 1

    def forward(self, features: Tensor, labels: Tensor, *, sample_weights: Tensor | None = None) -> Tensor:
        loss = joint_loss(features, labels, self.term(), sample_weights=sample_weights, **self.common)
        self.step()
        return loss


class SoftmaxLoss(ClassifierLoss):
    """Softmax cross-entropy, -Σ_i W_{y_i} log softmax(x_i Wᵀ + b)_{y_i}; see :func:`fer_fast.reference.softmax`.

    `class_weights` (C,), finite and not negative, makes it the weighted softmax of Ngo & Yoon 2020, whose mean divides
    by Σ_i W_{y_i}; W_k = N_min / N_k there, N_k the training samples of class k.
    """

    name = "softmax"
    bias: nn.Parameter  # (C,)
    class_weights: Tensor | None  # (C,)

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        class_weights: Tensor | Sequence[float] | None = None,
        **common,
    ):
        super().__init__(num_classes, feature_dim, **common)
        bound = 1 / math.sqrt(feature_dim)
        self.bias = nn.Parameter(self._own_rows(torch.empty(num_classes).uniform_(-bound, bound)))
        self.register_buffer("class_weights", checks.class_weights(class_weights, num_classes))

    def term(self) -> Term:
        return super().term()._replace(bias=self.bias, class_weights=self.class_weights)

    def scores(self, features: Tensor, weight: Tensor) -> Tensor:
        return reference.softmax_logits(features, weight, self.whole("bias"))


class LMCLLoss(ClassifierLoss):
    """Large-margin cosine loss (CosFace, AM-softmax) of Lu & Wu 2022; see :func:`fer_fast.reference.lmcl`.

    Cross-entropy of s·(cos θ_j - m·[j = y]). Scale `s` > 0, learnt where it is given as an `nn.Parameter` of shape ();
    margin `m` >= 0 in units of the cosine.
    """

    name = "lmcl"
    directional = True

    def scores(self, features: Tensor, weight: Tensor) -> Tensor:
        return reference.lmcl_logits(features, weight, self.s)


class ArcFaceLoss(ClassifierLoss):
    """Cross-entropy of s·cos θ_j, the target's angle larger by `m` radians; see :func:`fer_fast.reference.arcface`.

    Scale `s` > 0, learnt where it is given as an `nn.Parameter` of shape ().
    """

    name = "arcface"
    directional = True

    def scores(self, features: Tensor, weight: Tensor) -> Tensor:
        return reference.lmcl_logits(features, weight, self.s)


class AngularSchedule(NamedTuple):
    """Margin, and how the blend λ falls as training goes on: the schedule of SphereFace."""

    m: Count = AngularParams().m
    lambda_max: NonNegative = 1000.0  # λ at the first forward pass
    lambda_min: NonNegative = AngularParams().lambda_  # and in the end
    gamma: NonNegative = 0.12  # how soon, in 1 / forward passes
    power: NonNegative = 1.0


class AngularSoftmaxLoss(ClassifierLoss):
    """A multiplicative angular margin, blended with the plain cosine by λ, which falls as training goes on.

    λ = max(λ_min, λ_max · (1 + gamma · t)^-power) after `.steps` t forward passes in training mode.
    """

    takes = AngularSchedule

    def __init__(self, num_classes: int, feature_dim: int, **common):
        super().__init__(num_classes, feature_dim, **common)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def lambda_(self) -> Tensor:
        """The blend in force for the next forward pass, (): on the device, so that graphs hold no number of it."""
        return ((1 + self.gamma * self.steps) ** -self.power * self.lambda_max).clamp(min=self.lambda_min)

    def term(self) -> Term:
        if self.training:
            checks.moves("lambda_")
        return super().term()

    def step(self) -> None:
        super().step()
        if self.training:
            self.steps += 1


class ASoftmaxLoss(AngularSoftmaxLoss):
    """A-softmax (SphereFace): class weights of length one; see :func:`fer_fast.reference.a_softmax`."""

    name = "a-softmax"
    directional = True

    def scores(self, features: Tensor, weight: Tensor) -> Tensor:
        return reference.a_softmax_logits(features, weight)


class LSoftmaxLoss(AngularSoftmaxLoss):
    """L-softmax: class weights keep their lengths; see :func:`fer_fast.reference.l_softmax`."""

    name = "l-softmax"

    def scores(self, features: Tensor, weight: Tensor) -> Tensor:
        return reference.softmax_logits(features, weight)
