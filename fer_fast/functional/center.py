"""The center family as functions of the features, the labels and the centers.

All take x (n, d), y (n,), centers (C, d). With `update=True` the centers are moved in place by their paper's rule,
from the old centers and the same features, in the same pass as the loss. Centers get no gradient.
"""

from collections.abc import Sequence

from torch import Tensor

from .class_table import Term, joint_loss


def center_loss(
    x: Tensor,
    y: Tensor,
    centers: Tensor,
    *,
    alpha: float = 0.5,
    update: bool = False,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """½ Σ_i ‖x_i - c_{y_i}‖²; see :func:`fer_fast.reference.center`."""
    term = Term("center", {"centers": centers}, {"alpha": alpha}, update=update)
    return joint_loss(x, y, auxiliary=term, reduction=reduction, backend=backend)


def island_loss(
    x: Tensor,
    y: Tensor,
    centers: Tensor,
    *,
    lambda1: float = 10.0,
    alpha: float = 0.5,
    update: bool = False,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """Center + λ₁ Σ_j Σ_{k≠j} (cos(c_j, c_k) + 1); see :func:`fer_fast.reference.island`."""
    term = Term("island", {"centers": centers}, {"lambda1": lambda1, "alpha": alpha}, update=update)
    return joint_loss(x, y, auxiliary=term, reduction=reduction, backend=backend)


def variant_loss(
    x: Tensor,
    y: Tensor,
    centers: Tensor,
    *,
    lambda1: float = 0.4,
    lambda2: float = 0.6,
    eps1: float = 0.01,
    eps2: float = 0.01,
    alpha: float = 0.5,
    feature_gradient: str = "exact",
    update: bool = False,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """½ Σ_i (‖x_i - c_{y_i}‖² + λ₁/(ε₁ + S_i)) + λ₂/(ε₂ + T); see :func:`fer_fast.reference.variant`."""
    params = {"lambda1": lambda1, "lambda2": lambda2, "eps1": eps1, "eps2": eps2, "alpha": alpha}
    params["feature_gradient"] = feature_gradient
    term = Term("variant", {"centers": centers}, params, update=update)
    return joint_loss(x, y, auxiliary=term, reduction=reduction, backend=backend)


def weighted_cluster_loss(
    x: Tensor,
    y: Tensor,
    centers: Tensor,
    *,
    class_weights: Tensor | None = None,
    alpha: float = 1.0,
    gamma: float = 1.0,
    update: bool = False,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """½ Σ_i W_{y_i} ‖x_i - c_{y_i}‖² / (Σ_{j≠y_i} ‖c_j - c_{y_i}‖² + α).

    See :func:`fer_fast.reference.weighted_cluster`.
    """
    tensors = {"centers": centers, "class_weights": class_weights}
    term = Term("weighted-cluster", tensors, {"alpha": alpha, "gamma": gamma}, update=update)
    return joint_loss(x, y, auxiliary=term, reduction=reduction, backend=backend)


def affinity_loss(
    x: Tensor,
    y: Tensor,
    centers: Tensor,
    *,
    alpha: float = 0.5,
    update: bool = False,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """Σ_i ‖x_i - c_{y_i}‖² / σ_c²; see :func:`fer_fast.reference.affinity`."""
    term = Term("affinity", {"centers": centers}, {"alpha": alpha}, update=update)
    return joint_loss(x, y, auxiliary=term, reduction=reduction, backend=backend)


def mva_loss(
    x: Tensor,
    y: Tensor,
    centers: Tensor,
    *,
    groups: Sequence[tuple[Tensor, Tensor]] = (),
    alpha: float = 0.5,
    update: bool = False,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """Affinity loss times 1 + the variance of affinity over feature groups; see :func:`fer_fast.reference.mva`.

    `groups`: pairs of features (n_v, d) and labels (n_v,) from the memory bank, newest first.
    """
    term = Term("mva", {"centers": centers}, {"alpha": alpha}, tuple(groups), update)
    return joint_loss(x, y, auxiliary=term, reduction=reduction, backend=backend)
