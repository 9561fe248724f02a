"""The center family: modules that own one center per class, moved in the forward pass while training."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import checks
from ..functional import Term, joint_loss
from ..functional.class_table import SWITCHES
from ..suggest import one_of
from .bank import MemoryBank
from .base import Loss


class CenterFamilyLoss(Loss):
    """A loss against class centers, called as `loss(x, y)` with features x (n, d) and labels y (n,).

    `.centers` (C, d) is a buffer without autograd gradient: in training mode each forward moves it by the rule of the
    loss's paper, from the old centers and the same features. It starts from a standard normal draw, so that the
    losses that divide by the spread of the centers are finite from the first step.
    """

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        params: dict[str, float | str],
        *,
        reduction: str = "mean",
        backend: str = "auto",
    ):
        super().__init__(reduction=reduction, backend=backend)
        self.num_classes = checks.at_least(num_classes, 1, "num_classes")
        self.feature_dim = checks.at_least(feature_dim, 1, "feature_dim")
        for name, value in params.items():
            if not isinstance(value, str):
                checks.positive(value, name, zero=True)
        self.params = params
        self.register_buffer("centers", torch.randn(num_classes, feature_dim))

    def term(self) -> Term:
        """This loss and its tensors, for a pass it may share with a classifier."""
        return Term(self.name, {"centers": self.centers}, self.params, update=self.training)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return joint_loss(x, y, auxiliary=self.term(), **self.common)


class CenterLoss(CenterFamilyLoss):
    """½ Σ_i ‖x_i - c_{y_i}‖²; see :func:`fer_fast.reference.center`. Centers move by -α Σ (c - x) / (1 + n)."""

    name = "center"

    def __init__(self, num_classes: int, feature_dim: int, alpha: float = 0.5, **common):
        super().__init__(num_classes, feature_dim, {"alpha": alpha}, **common)


class IslandLoss(CenterFamilyLoss):
    """Center + λ₁ Σ_j Σ_{k≠j} (cos(c_j, c_k) + 1), which drives the centers apart.

    See :func:`fer_fast.reference.island`.
    """

    name = "island"

    def __init__(self, num_classes: int, feature_dim: int, lambda1: float = 10.0, alpha: float = 0.5, **common):
        super().__init__(num_classes, feature_dim, {"lambda1": lambda1, "alpha": alpha}, **common)


class VariantLoss(CenterFamilyLoss):
    """½ Σ_i (‖x_i - c_{y_i}‖² + λ₁/(ε₁ + S_i)) + λ₂/(ε₂ + T); see :func:`fer_fast.reference.variant`.

    S_i sums the squared distances from the other centers, T those between centers. Its paper adds it to softmax with
    weight 0.001. `feature_gradient="paper"` adds the printed third term of the feature gradient; `"exact"` is the
    derivative of the formula.
    """

    name = "variant"

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        lambda1: float = 0.4,
        lambda2: float = 0.6,
        eps1: float = 0.01,
        eps2: float = 0.01,
        alpha: float = 0.5,
        feature_gradient: str = "exact",
        **common,
    ):
        params = {"lambda1": lambda1, "lambda2": lambda2, "eps1": eps1, "eps2": eps2, "alpha": alpha}
        params["feature_gradient"] = one_of(feature_gradient, SWITCHES, "feature_gradient")
        super().__init__(num_classes, feature_dim, params, **common)


class WeightedClusterLoss(CenterFamilyLoss):
    """½ Σ_i W_{y_i} ‖x_i - c_{y_i}‖² / (Σ_{j≠y_i} ‖c_j - c_{y_i}‖² + α).

    See :func:`fer_fast.reference.weighted_cluster`.

    `class_weights` W (C,), finite and not negative: N_min / N_k in the paper. `alpha` > 0 keeps the ratio finite;
    `gamma` is the centers' learning rate.
    """

    name = "weighted-cluster"

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        class_weights: Tensor | Sequence[float] | None = None,
        alpha: float = 1.0,
        gamma: float = 1.0,
        **common,
    ):
        params = {"alpha": checks.positive(alpha, "alpha"), "gamma": gamma}
        super().__init__(num_classes, feature_dim, params, **common)
        self.register_buffer("class_weights", checks.class_weights(class_weights, num_classes), persistent=False)

    def term(self) -> Term:
        tensors = {"centers": self.centers, "class_weights": self.class_weights}
        return Term(self.name, tensors, self.params, update=self.training)


class AffinityLoss(CenterFamilyLoss):
    """Σ_i ‖x_i - c_{y_i}‖² / σ_c², σ_c² the spread of the centers; see :func:`fer_fast.reference.affinity`."""

    name = "affinity"

    def __init__(self, num_classes: int, feature_dim: int, alpha: float = 0.5, **common):
        checks.at_least(num_classes, 2, "num_classes")
        super().__init__(num_classes, feature_dim, {"alpha": alpha}, **common)


class MVALoss(CenterFamilyLoss):
    """Affinity loss times 1 + its variance over `groups` feature groups; see :func:`fer_fast.reference.mva`.

    Called as `loss(x, y, bank=None)`: the batch is one group, the newest `groups` - 1 of the memory bank the others
    (as many as it holds).
    """

    name = "mva"

    def __init__(self, num_classes: int, feature_dim: int, groups: int = 5, alpha: float = 0.5, **common):
        checks.at_least(num_classes, 2, "num_classes")
        super().__init__(num_classes, feature_dim, {"alpha": alpha}, **common)
        self.groups = checks.at_least(groups, 1, "groups")

    def term(self, bank: MemoryBank | None = None) -> Term:
        groups = () if bank is None else bank.groups(self.groups - 1)
        return Term(self.name, {"centers": self.centers}, self.params, tuple(groups), self.training)

    def forward(self, x: Tensor, y: Tensor, bank: MemoryBank | None = None) -> Tensor:
        return joint_loss(x, y, auxiliary=self.term(bank), **self.common)
