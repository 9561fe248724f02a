"""The center family as functions of the features, the labels and the centers.

All take features (n, d), labels (n,), centers (C, d). With `update=True` the centers are moved in place by their
paper's rule, from the old centers and the same features, in the same pass as the loss. Centers get no gradient.
`sample_weights` (n,) multiply the rows, in the loss and in the move; see :func:`joint_loss`.
"""

from collections.abc import Sequence

from torch import Tensor

from .. import reference
from ..checks import Reduction
from ..dispatch import Backend
from ..params import by_field
from ..replay import replayed
from ..terms import Group
from .class_table import Term, joint_loss, loss_function
from .whole import Gradients

center_loss = loss_function("center")
island_loss = loss_function("island")
variant_loss = loss_function("variant")
affinity_loss = loss_function("affinity")


@replayed
@by_field(reference.WeightedClusterParams)
def weighted_cluster_loss(
    features: Tensor,
    labels: Tensor,
    centers: Tensor,
    *,
    class_weights: Tensor | None = None,
    params,
    update: bool = False,
    sample_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor:
    """½ Σ_i W_{y_i} ‖x_i - c_{y_i}‖² / (Σ_{j≠y_i} ‖c_j - c_{y_i}‖² + α).

    See :func:`fer_fast.reference.weighted_cluster`. features x (n, d), labels y (n,), centers c (C, d),
    class_weights W (C,).
    """
    term = Term("weighted-cluster", centers, None, class_weights, params, update=update)
    return joint_loss(
        features,
        labels,
        auxiliary=term,
        sample_weights=sample_weights,
        reduction=reduction,
        backend=backend,
        process_group=process_group,
        gradients=gradients,
    )


@replayed
@by_field(reference.MVAParams)
def mva_loss(
    features: Tensor,
    labels: Tensor,
    centers: Tensor,
    *,
    groups: Sequence[tuple[Tensor, Tensor]] = (),
    params,
    update: bool = False,
    sample_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor:
    """Affinity loss times 1 + the variance of affinity over feature groups; see :func:`fer_fast.reference.mva`.

    features (n, d), labels (n,), centers (C, d). `groups`: pairs of features (n_v, d) and labels (n_v,) from the
    memory bank, newest first.
    """
    term = Term("mva", centers, params=params, groups=tuple(groups), update=update)
    return joint_loss(
        features,
        labels,
        auxiliary=term,
        sample_weights=sample_weights,
        reduction=reduction,
        backend=backend,
        process_group=process_group,
        gradients=gradients,
    )
