"""Marginal and range loss as functions of the features and the labels."""

from torch import Tensor

from .. import checks, ops, reference
from ..checks import Reduction
from ..dispatch import Backend, resolve
from ..params import by_field


@by_field(reference.MarginalParams)
def marginal_loss(x: Tensor, y: Tensor, *, params, reduction: Reduction = "mean", backend: Backend = "auto") -> Tensor:
    """1/(n²-n) Σ_{i≠j} [ξ - y_ij (θ - ‖x̂_i - x̂_j‖²)]₊.

    See :func:`fer_fast.reference.marginal`.   x (n, d), y (n,); a negative label takes its row out of everything.
    """
    checks.features(x, "features")
    y = checks.labels(y, x.shape[0], x.device)
    checks.reduction(reduction)
    backend = resolve(backend, x.device)
    if backend == "reference":
        return reference.marginal(x, y, *params, reduction)
    return ops.pairwise(x, y, None, "marginal", list(params), reduction == "mean", backend)


@by_field(reference.RangeParams)
def range_loss(x: Tensor, y: Tensor, *, params, reduction: Reduction = "mean", backend: Backend = "auto") -> Tensor:
    """α Σ_c harmonic mean of the k widest pairs + β [M - nearest class means]₊.

    See :func:`fer_fast.reference.range_loss`.

    x (n, d), y (n,); a negative label takes its row out of everything. No term runs over samples: `reduction` changes
    nothing.
    """
    checks.features(x, "features")
    y = checks.labels(y, x.shape[0], x.device)
    checks.reduction(reduction)
    backend = resolve(backend, x.device)
    if backend == "reference":
        return reference.range_loss(x, y, *params)
    return ops.range_loss(x, y, *params, backend)
