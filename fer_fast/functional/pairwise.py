"""Marginal and range loss as functions of the features and the labels."""

from torch import Tensor

from .. import checks, ops, reference
from ..dispatch import resolve


def marginal_loss(
    x: Tensor, y: Tensor, *, theta: float = 1.2, xi: float = 0.3, reduction: str = "mean", backend: str = "auto"
) -> Tensor:
    """1/(n²-n) Σ_{i≠j} [ξ - y_ij (θ - ‖x̂_i - x̂_j‖²)]₊.

    See :func:`fer_fast.reference.marginal`.   x (n, d), y (n,).
    """
    checks.features(x, "features")
    y = checks.labels(y, len(x), x.device)
    checks.reduction(reduction)
    backend = resolve(backend, x.device)
    if backend == "reference":
        return reference.marginal(x, y, theta, xi, reduction)
    return ops.pairwise(x, y, None, "marginal", [float(theta), float(xi)], reduction == "mean", backend)


def range_loss(
    x: Tensor,
    y: Tensor,
    *,
    k: int = 2,
    alpha: float = 5e-5,
    beta: float = 1e-4,
    margin: float = 2e4,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """α Σ_c harmonic mean of the k widest pairs + β [M - nearest class means]₊.

    See :func:`fer_fast.reference.range_loss`.

    x (n, d), y (n,). No term runs over samples: `reduction` changes nothing.
    """
    checks.features(x, "features")
    y = checks.labels(y, len(x), x.device)
    checks.reduction(reduction)
    checks.at_least(k, 1, "k")
    backend = resolve(backend, x.device)
    if backend == "reference":
        return reference.range_loss(x, y, k, alpha, beta, margin)
    return ops.range_loss(x, y, k, float(alpha), float(beta), float(margin), backend)
