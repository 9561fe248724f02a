"""The center family: modules that own one center per class, moved in the forward pass while training."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import checks
from ..functional import Term, joint_loss
from .bank import MemoryBank
from .base import Loss


class CenterFamilyLoss(Loss):
    """A loss against class centers, called as `loss(features, labels, sample_weights=None)`.

    Features (n, d), labels (n,). `.centers` (C, d) is a buffer without autograd gradient: in training mode each forward
    moves it by the rule of the loss's paper, from the old centers and the same features. It starts from a standard
    normal draw, so that the losses that divide by the spread of the centers are finite from the first step.
    `sample_weights` (n,) multiply the rows, in the loss and in the move; a row of weight 0 is absent, whatever it
    holds.
    """

    num_classes: int
    feature_dim: int
    centers: Tensor  # (C, d)
    fewest_classes = 1

    def __init__(self, num_classes: int, feature_dim: int, **common):
        super().__init__(**common)
        self.num_classes = checks.at_least(num_classes, self.fewest_classes, "num_classes")
        self.feature_dim = checks.at_least(feature_dim, 1, "feature_dim")
        self.register_buffer("centers", torch.randn(num_classes, feature_dim))

    def term(self) -> Term:
        """This loss and its tensors, for a pass it may share with a classifier."""
        return Term(self.name, self.centers, params=self.params, update=self.training)

    def forward(self, features: Tensor, labels: Tensor, *, sample_weights: Tensor | None = None) -> Tensor:
        return joint_loss(features, labels, auxiliary=self.term(), sample_weights=sample_weights, **self.common)


class CenterLoss(CenterFamilyLoss):
    """½ Σ_i ‖x_i - c_{y_i}‖²; see :func:`fer_fast.reference.center`. Centers move by -α Σ (c - x) / (1 + n)."""

    name = "center"


class IslandLoss(CenterFamilyLoss):
    """Center + λ₁ Σ_j Σ_{k≠j} (cos(c_j, c_k) + 1), which drives the centers apart.

    See :func:`fer_fast.reference.island`.
    """

    name = "island"


class VariantLoss(CenterFamilyLoss):
    """½ Σ_i (‖x_i - c_{y_i}‖² + λ₁/(ε₁ + S_i)) + λ₂/(ε₂ + T); see :func:`fer_fast.reference.variant`.

    S_i sums the squared distances from the other centers, T those between centers. Its paper adds it to softmax with
    weight 0.001. `feature_gradient="paper"` adds the printed third term of the feature gradient; `"exact"` is the
    derivative of the formula.
    """

    name = "variant"


class WeightedClusterLoss(CenterFamilyLoss):
    """½ Σ_i W_{y_i} ‖x_i - c_{y_i}‖² / (Σ_{j≠y_i} ‖c_j - c_{y_i}‖² + α).

    See :func:`fer_fast.reference.weighted_cluster`.

    `class_weights` W (C,), finite and not negative: N_min / N_k in the paper. `alpha` > 0 keeps the ratio finite;
    `gamma` is the centers' learning rate.
    """

    name = "weighted-cluster"
    class_weights: Tensor | None  # (C,)

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        class_weights: Tensor | Sequence[float] | None = None,
        **common,
    ):
        super().__init__(num_classes, feature_dim, **common)
        self.register_buffer("class_weights", checks.class_weights(class_weights, num_classes))

    def term(self) -> Term:
        return Term(self.name, self.centers, None, self.class_weights, self.params, update=self.training)


class AffinityLoss(CenterFamilyLoss):
    """Σ_i ‖x_i - c_{y_i}‖² / σ_c², σ_c² the spread of the centers; see :func:`fer_fast.reference.affinity`."""

    name = "affinity"
    fewest_classes = 2  # one center has no spread


class MVALoss(CenterFamilyLoss):
    """Affinity loss times 1 + its variance over `groups` feature groups; see :func:`fer_fast.reference.mva`.

    Called as `loss(features, labels, bank=None)`: the batch is one group, the newest `groups` - 1 of the memory bank
    the others (as many as it holds). Enqueue the batch after its backward: before, it would be two of the groups.
    Over processes a batch is that of all of them; a sharded bank's groups come together for each call.
    """

    name = "mva"
    fewest_classes = 2

    def __init__(self, num_classes: int, feature_dim: int, groups: int = 5, **common):
        super().__init__(num_classes, feature_dim, **common)
        self.groups = checks.at_least(groups, 1, "groups")

    def term(self, bank: MemoryBank | None = None) -> Term:
        if bank is not None:
            MemoryBank.refuse_others(bank)
        term, groups = super().term(), None if bank is None else bank.padded_groups(self.groups - 1)
        if groups is None:
            return term
        features, labels, rows = groups
        return term._replace(groups=tuple(zip(features, labels, strict=True)), group_rows=rows)

    def forward(
        self, features: Tensor, labels: Tensor, bank: MemoryBank | None = None, *, sample_weights: Tensor | None = None
    ) -> Tensor:
        """The loss, a scalar, of features (n, d) and labels (n,), with a bank of groups of them."""
        return joint_loss(features, labels, auxiliary=self.term(bank), sample_weights=sample_weights, **self.common)
