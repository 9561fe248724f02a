"""The losses of Ad-Corre: modules called with k embeddings of n samples, (k, n, d), and their labels (n,)."""

import torch
from torch import Tensor

from .. import checks, reference
from .base import Loss


class NFDLoss(Loss):
    """1/(k n²) Σ_l Σ_{i≠j} |Φ_ij - corr(e_li, e_lj)|, Φ = ±1 for the same / another class.

    See :func:`fer_fast.reference.nfd`.
    """

    name = "nfd"

    def __init__(self, num_classes: int, **common):
        super().__init__(**common)
        self.num_classes = checks.at_least(num_classes, 1, "num_classes")

    def forward(self, embeddings: Tensor, labels: Tensor, predictions: Tensor | None = None) -> Tensor:
        """The loss, a scalar, of embeddings (k, n, d) and labels (n,); it has no use for predictions."""
        return self.function(embeddings, labels, self.num_classes)


class ConfusionWeightedLoss(Loss):
    """A loss whose pairs weigh more the more their classes were confused in the last `history` batches.

    Called as `loss(embeddings, labels, predictions=None)`: the batch's predicted classes (n,) enter the window after
    the loss of the step was computed from the earlier ones, in training mode. Without any prediction every class counts
    as difficult. The paper's window is the last 5·n pairs; here it is the last `history` batches given, the same for
    equal batches.
    """

    def __init__(self, num_classes: int, history: int = 5, **common):
        super().__init__(**common)
        self.num_classes = checks.at_least(num_classes, 1, "num_classes")
        self.history = checks.at_least(history, 1, "history")
        self.register_buffer("confusion", torch.zeros(history, num_classes, num_classes))

    @property
    def class_difficulty(self) -> Tensor:
        """w(c) = 1 - CONF[c, c] + 1e-6 of the window: (C,); see :func:`fer_fast.reference.class_difficulty`."""
        return reference.class_difficulty(self.confusion.sum(0))

    @torch.no_grad()
    def observe(self, labels: Tensor, predictions: Tensor) -> None:
        """Take the (truth, prediction) pairs of a batch into the window; the oldest batch leaves it."""
        labels = checks.labels(labels, labels.shape[0], None)
        predictions = checks.labels(predictions, labels.shape[0], labels.device, "predictions")
        checks.label_range(predictions, self.num_classes, "predictions")
        newest = reference.confusion_counts(labels, predictions, self.num_classes)
        newest = self.peers.total(newest.dtype, newest)[0]
        self.confusion.copy_(torch.cat([self.confusion[1:], newest[None]]))

    def forward(self, embeddings: Tensor, labels: Tensor, predictions: Tensor | None = None) -> Tensor:
        """The loss, a scalar, of embeddings (k, n, d), labels (n,) and the batch's predicted classes (n,)."""
        observed = predictions is not None and self.training
        if observed:
            checks.moves("confusion")
        loss = self.function(embeddings, labels, self.class_difficulty)
        if observed:
            self.observe(labels, predictions)
        return loss


class FDLoss(ConfusionWeightedLoss):
    """NFD with pairs weighed by w(y_i) + w(y_j); see :func:`fer_fast.reference.fd`."""

    name = "fd"


class MDLoss(Loss):
    """1/(k C²) Σ_l Σ_{a≠b} |1 + corr(μ_la, μ_lb)| over the class means of the batch.

    See :func:`fer_fast.reference.md`.
    """

    name = "md"

    def __init__(self, num_classes: int, **common):
        super().__init__(**common)
        self.num_classes = checks.at_least(num_classes, 1, "num_classes")

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar, of embeddings (k, n, d) and labels (n,)."""
        return self.function(embeddings, labels, self.num_classes)


class EDLoss(Loss):
    """1/(k² Σ_i w_i) Σ_i w_i Σ_{a≠b} |1 + corr(e_ai, e_bi)| over the embeddings of a sample.

    See :func:`fer_fast.reference.ed`. Each call takes `sample_weights` w (n,), 1 where left out; a row of weight 0 is
    absent, whatever it holds. `reduction="none"` gives the terms of "sum", (n,).
    """

    name = "ed"

    def forward(
        self, embeddings: Tensor, labels: Tensor | None = None, *, sample_weights: Tensor | None = None
    ) -> Tensor:
        """The loss, a scalar, of embeddings (k, n, d); it has no use for labels."""
        return self.function(embeddings, labels, sample_weights=sample_weights)


class AdCorreLoss(ConfusionWeightedLoss):
    """FD + MD + ED in one pass (Fard & Mahoor 2022), added to cross-entropy with weight 0.5 in the paper."""

    name = "ad-corre"
