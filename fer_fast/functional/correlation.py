"""NFD, FD, MD, ED and Ad-Corre as functions of k embeddings of n samples, (k, n, d), and their labels (n,).

All but the reference use that the losses are linear in the correlations: class sums of standardised rows, O(n·d).
ED alone is a sum over samples, which can be weighed and left unreduced: FD and NFD compare samples, MD class means.
"""

import torch
from torch import Tensor

from .. import checks, ops
from ..checks import Reduction
from ..dispatch import Backend, resolve
from ..registry import call, find
from ..replay import replayed


@replayed
def nfd_loss(
    embeddings: Tensor, labels: Tensor, num_classes: int, *, reduction: Reduction = "mean", backend: Backend = "auto"
) -> Tensor:
    """1/(k n²) Σ_l Σ_{i≠j} |Φ_ij - corr(e_li, e_lj)|; see :func:`fer_fast.reference.nfd`.

    embeddings e (k, n, d), labels y (n,).
    """
    checks.features(embeddings, "embeddings", "(k, n, d)")
    classes = checks.at_least(num_classes, 1, "num_classes")
    half = torch.full((classes,), 0.5, device=embeddings.device)  # w(y_i) + w(y_j) = 1
    return _correlation_loss("nfd", embeddings, labels, (1.0, 0.0, 0.0), num_classes, half, reduction, backend)


@replayed
def fd_loss(
    embeddings: Tensor,
    labels: Tensor,
    class_difficulty: Tensor,
    *,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
) -> Tensor:
    """1/(k n²) Σ_l Σ_{i≠j} (w(y_i)+w(y_j)) |Φ_ij - corr(e_li, e_lj)|; see :func:`fer_fast.reference.fd`.

    embeddings e (k, n, d), labels y (n,), class_difficulty w (C,), from :func:`fer_fast.reference.class_difficulty`.
    """
    return _correlation_loss("fd", embeddings, labels, (1.0, 0.0, 0.0), None, class_difficulty, reduction, backend)


@replayed
def md_loss(
    embeddings: Tensor, labels: Tensor, num_classes: int, *, reduction: Reduction = "mean", backend: Backend = "auto"
) -> Tensor:
    """1/(k C²) Σ_l Σ_{a≠b} |1 + corr(μ_la, μ_lb)|; see :func:`fer_fast.reference.md`.

    embeddings e (k, n, d), labels (n,), whose classes have the means μ_l.
    """
    return _correlation_loss("md", embeddings, labels, (0.0, 1.0, 0.0), num_classes, None, reduction, backend)


@replayed
def ed_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    sample_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
) -> Tensor:
    """1/(k² Σ_i w_i) Σ_i w_i Σ_{a≠b} |1 + corr(e_ai, e_bi)|; see :func:`fer_fast.reference.ed`.

    embeddings e (k, n, d). sample_weights w (n,), finite and >= 0, are 1 where left out; a row of weight 0 is absent,
    whatever it holds. "sum" has no divisor, and `reduction="none"` gives its terms (n,), whose backward goes over them
    once more. The labels (n,) are not used.
    """
    checks.features(embeddings, "embeddings", "(k, n, d)")
    if labels is not None:
        checks.labels(labels, embeddings.shape[1], embeddings.device)
    labels = torch.zeros(embeddings.shape[1], dtype=torch.int32, device=embeddings.device)
    return _correlation_loss("ed", embeddings, labels, (0.0, 0.0, 1.0), 1, None, reduction, backend, sample_weights)


@replayed
def ad_corre_loss(
    embeddings: Tensor,
    labels: Tensor,
    class_difficulty: Tensor,
    *,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
) -> Tensor:
    """FD + MD + ED in one pass; see :func:`fer_fast.reference.ad_corre`.

    embeddings e (k, n, d), labels y (n,), class_difficulty w (C,) as in :func:`fd_loss`.
    """
    return _correlation_loss(
        "ad-corre", embeddings, labels, (1.0, 1.0, 1.0), None, class_difficulty, reduction, backend
    )


def _correlation_loss(
    name: str,
    e: Tensor,
    y: Tensor,
    terms: tuple[float, float, float],
    num_classes: int | None,
    class_difficulty: Tensor | None,
    reduction: str,
    backend: str,
    sample_weights: Tensor | None = None,
) -> Tensor:
    _check(name, e, y, reduction, class_difficulty, num_classes, sample_weights)
    if sample_weights is not None:
        checks.constant(sample_weights, "sample_weights")
        checks.weight_range(sample_weights)
    y = checks.wide_labels(y)
    num_classes = checks.at_least(len(class_difficulty) if num_classes is None else num_classes, 1, "num_classes")
    backend = resolve(backend, e.device)
    if backend != "reference":
        tables = class_difficulty, num_classes, *terms
        return ops.ad_corre(e, y, *tables, sample_weights, reduction, backend=backend)
    checks.label_range(y, num_classes)
    given = {"class_difficulty": class_difficulty, "num_classes": num_classes, "sample_weights": sample_weights}
    return call(find(name).reference, e=e, y=y, reduction=reduction, **given)


def _check(
    name: str,
    e: Tensor,
    y: Tensor,
    reduction: str,
    class_difficulty: Tensor | None,
    num_classes: int | None,
    sample_weights: Tensor | None,
) -> None:
    """That embeddings, labels, weights of rows, and the difficulty of classes, where pairs are weighed by it, fit each
    other."""
    checks.features(e, "embeddings", "(k, n, d)")
    checks.labels(y, e.shape[1], e.device)
    checks.reduction(reduction, find(name).reductions)
    if sample_weights is not None:
        checks.per_class(sample_weights, "sample_weights", e.shape[1], e.device)
    if class_difficulty is not None or num_classes is None:
        checks.per_class(class_difficulty, "class_difficulty", num_classes, e.device)
