"""Written by tests/helpers/stubs.py, which says what for."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor

from fer_fast.checks import Reduction
from fer_fast.dispatch import Backend
from fer_fast.functional.contrastive import Mode
from fer_fast.functional.whole import Gradients
from fer_fast.terms import Draw, Group

__all__ = [
    "Term",
    "a_softmax_loss",
    "ad_corre_loss",
    "affinity_loss",
    "anti_center_distances",
    "arcface_loss",
    "center_distances",
    "center_loss",
    "contrastive_log_denominator",
    "correlation_matrix",
    "ed_loss",
    "ensc_loss",
    "esc_loss",
    "fd_loss",
    "island_loss",
    "joint_loss",
    "l_softmax_loss",
    "lmcl_loss",
    "marginal_loss",
    "md_loss",
    "mva_loss",
    "nfd_loss",
    "range_loss",
    "selfcon_loss",
    "softmax_loss",
    "supcon_loss",
    "variant_loss",
    "weighted_cluster_loss",
]

class Term(NamedTuple):
    name: str = ...
    table: Tensor | None = ...
    bias: Tensor | None = ...
    class_weights: Tensor | None = ...
    params: tuple[Tensor | float | int | str, ...] = ...
    groups: Sequence[tuple[Tensor, Tensor]] = ...
    group_rows: Tensor | None = ...
    update: bool = ...
    label_smoothing: float = ...
    ignore_index: int | None = ...
    num_classes: int | None = ...
    draw: Draw = ...

def a_softmax_loss(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    *,
    m: int = 4,
    lambda_: float = 5.0,
    sample_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    num_classes: int | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def ad_corre_loss(
    embeddings: Tensor,
    labels: Tensor,
    class_difficulty: Tensor,
    *,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def affinity_loss(
    features: Tensor,
    labels: Tensor,
    centers: Tensor,
    *,
    alpha: float = 0.5,
    update: bool = False,
    sample_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def anti_center_distances(
    features: Tensor, labels: Tensor, centers: Tensor, *, backend: Backend = "auto"
) -> Tensor: ...
def arcface_loss(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    *,
    s: float | Tensor = 64.0,
    m: float = 0.5,
    sample_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    num_classes: int | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def center_distances(features: Tensor, centers: Tensor, *, backend: Backend = "auto") -> Tensor: ...
def center_loss(
    features: Tensor,
    labels: Tensor,
    centers: Tensor,
    *,
    alpha: float = 0.5,
    update: bool = False,
    sample_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def contrastive_log_denominator(
    embeddings: Tensor,
    labels: Tensor,
    bank_embeddings: Tensor | None = None,
    bank_labels: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    mode: Mode = "supcon",
    *,
    backend: Backend = "auto",
) -> Tensor: ...
def correlation_matrix(features: Tensor, *, backend: Backend = "auto") -> Tensor: ...
def ed_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    sample_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def ensc_loss(
    embeddings: Tensor,
    labels: Tensor,
    bank_embeddings: Tensor | None = None,
    bank_labels: Tensor | None = None,
    *,
    own: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    sample_weights: Tensor | None = None,
    normalize: bool = False,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
    sharded: bool = False,
) -> Tensor: ...
def esc_loss(
    embeddings: Tensor,
    labels: Tensor,
    bank_embeddings: Tensor | None = None,
    bank_labels: Tensor | None = None,
    *,
    own: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    sample_weights: Tensor | None = None,
    normalize: bool = False,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
    sharded: bool = False,
) -> Tensor: ...
def fd_loss(
    embeddings: Tensor,
    labels: Tensor,
    class_difficulty: Tensor,
    *,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def island_loss(
    features: Tensor,
    labels: Tensor,
    centers: Tensor,
    *,
    lambda1: float = 10.0,
    alpha: float = 0.5,
    update: bool = False,
    sample_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def joint_loss(
    features: Tensor,
    labels: Tensor,
    classifier: Term | None = None,
    auxiliary: Term | None = None,
    weight: float = 1.0,
    *,
    sample_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def l_softmax_loss(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    *,
    m: int = 4,
    lambda_: float = 5.0,
    sample_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    num_classes: int | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def lmcl_loss(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    *,
    s: float | Tensor = 30.0,
    m: float = 0.35,
    sample_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    num_classes: int | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def marginal_loss(
    features: Tensor,
    labels: Tensor,
    *,
    theta: float = 1.2,
    xi: float = 0.3,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def md_loss(
    embeddings: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def mva_loss(
    features: Tensor,
    labels: Tensor,
    centers: Tensor,
    *,
    groups: Sequence[tuple[Tensor, Tensor]] = (),
    alpha: float = 0.5,
    update: bool = False,
    sample_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def nfd_loss(
    embeddings: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def range_loss(
    features: Tensor,
    labels: Tensor,
    *,
    k: int = 2,
    alpha: float = 5e-05,
    beta: float = 0.0001,
    margin: float = 20000.0,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def selfcon_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float | Tensor = 0.1,
    sample_weights: Tensor | None = None,
    normalize: bool = False,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def softmax_loss(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    class_weights: Tensor | None = None,
    sample_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    num_classes: int | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def supcon_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    sample_weights: Tensor | None = None,
    normalize: bool = False,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def variant_loss(
    features: Tensor,
    labels: Tensor,
    centers: Tensor,
    *,
    lambda1: float = 0.4,
    lambda2: float = 0.6,
    eps1: float = 0.01,
    eps2: float = 0.01,
    alpha: float = 0.5,
    feature_gradient: Literal["exact", "paper"] = "exact",
    update: bool = False,
    sample_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
def weighted_cluster_loss(
    features: Tensor,
    labels: Tensor,
    centers: Tensor,
    *,
    class_weights: Tensor | None = None,
    alpha: float = 1.0,
    gamma: float = 1.0,
    update: bool = False,
    sample_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor: ...
