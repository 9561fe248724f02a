"""The pieces the losses are made of, each differentiable."""

from torch import Tensor

from .. import checks, ops, reference
from ..dispatch import Backend, resolve


def correlation_matrix(x: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Pearson's correlation of every two rows of x (n, d): (n, n).

    See :func:`fer_fast.reference.correlation_matrix`.
    """
    checks.features(x, "features")
    backend = resolve(backend, x.device)
    return reference.correlation_matrix(x) if backend == "reference" else ops.correlation_matrix(x, backend)


def center_distances(x: Tensor, centers: Tensor, *, backend: Backend = "auto") -> Tensor:
    """‖x_i - c_j‖² for x (n, d) and centers (C, d): (n, C), squared. The centers get no gradient."""
    checks.table(centers, "centers", checks.features(x, "features").shape[1], x.device)
    backend = resolve(backend, x.device)
    if backend == "reference":
        return reference.center_distances(x, centers.detach())
    return ops.center_distances(x, centers, backend)


def anti_center_distances(x: Tensor, y: Tensor, centers: Tensor, *, backend: Backend = "auto") -> Tensor:
    """S_i = Σ_{j≠y_i} ‖x_i - c_j‖² for x (n, d), y (n,), centers (C, d): (n,). The centers get no gradient."""
    checks.table(centers, "centers", checks.features(x, "features").shape[1], x.device)
    y = checks.labels(y, x.shape[0], x.device)
    backend = resolve(backend, x.device)
    if backend == "reference":
        checks.label_range(y, len(centers))
        return reference.anti_center_distances(x, y, centers.detach())
    return ops.anti_center_distances(x, y, centers, backend)
