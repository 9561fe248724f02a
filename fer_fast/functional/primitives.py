"""The pieces the losses are made of, each differentiable."""

from torch import Tensor

from .. import checks, ops, reference
from ..dispatch import Backend, resolve


def correlation_matrix(features: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Pearson's correlation of every two rows of the features (n, d): (n, n).

    See :func:`fer_fast.reference.correlation_matrix`.
    """
    checks.features(features, "features")
    backend = resolve(backend, features.device)
    return (
        reference.correlation_matrix(features) if backend == "reference" else ops.correlation_matrix(features, backend)
    )


def center_distances(features: Tensor, centers: Tensor, *, backend: Backend = "auto") -> Tensor:
    """‖x_i - c_j‖² for features x (n, d) and centers c (C, d): (n, C), squared. The centers get no gradient."""
    checks.table(centers, "centers", checks.features(features, "features").shape[1], features.device)
    backend = resolve(backend, features.device)
    if backend == "reference":
        return reference.center_distances(features, centers.detach())
    return ops.center_distances(features, centers, backend)


def anti_center_distances(features: Tensor, labels: Tensor, centers: Tensor, *, backend: Backend = "auto") -> Tensor:
    """S_i = Σ_{j≠y_i} ‖x_i - c_j‖² for features x (n, d), labels y (n,) and centers c (C, d): (n,).

    The centers get no gradient.
    """
    checks.table(centers, "centers", checks.features(features, "features").shape[1], features.device)
    labels = checks.labels(labels, features.shape[0], features.device)
    backend = resolve(backend, features.device)
    if backend == "reference":
        checks.label_range(labels, len(centers))
        return reference.anti_center_distances(features, labels, centers.detach())
    return ops.anti_center_distances(features, labels, centers, backend)
