"""Marginal and range loss as functions of the features and the labels."""

from torch import Tensor

from .. import checks, ops, reference
from ..checks import Reduction
from ..dispatch import Backend, resolve
from ..params import by_field
from ..replay import replayed
from ..terms import Group
from .whole import Gradients, of_whole_batch, peers_of


@replayed
@by_field(reference.MarginalParams)
def marginal_loss(
    features: Tensor,
    labels: Tensor,
    *,
    params,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor:
    """1/(n²-n) Σ_{i≠j} [ξ - y_ij (θ - ‖x̂_i - x̂_j‖²)]₊.

    See :func:`fer_fast.reference.marginal`.

    features x (n, d), labels y (n,); a negative label takes its row out of everything.
    """
    peers = peers_of(process_group, gradients, "marginal")
    checks.features(features, "features", rows=not peers.group)
    labels = checks.labels(labels, features.shape[0], features.device)
    checks.reduction(reduction)
    backend = resolve(backend, features.device)
    if backend == "reference":
        return of_whole_batch(reference.marginal, peers, features, labels, *params, reduction)
    return ops.pairwise(features, labels, None, "marginal", list(params), reduction == "mean", peers, backend=backend)


@replayed
@by_field(reference.RangeParams)
def range_loss(
    features: Tensor,
    labels: Tensor,
    *,
    params,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor:
    """α Σ_c harmonic mean of the k widest pairs + β [M - nearest class means]₊.

    See :func:`fer_fast.reference.range_loss`.

    features (n, d), labels (n,); a negative label takes its row out of everything. No term runs over samples:
    `reduction` changes nothing.
    """
    peers = peers_of(process_group, gradients, "range")
    checks.features(features, "features", rows=not peers.group)
    labels = checks.labels(labels, features.shape[0], features.device)
    checks.reduction(reduction)
    backend = resolve(backend, features.device)
    if backend == "reference":
        return of_whole_batch(reference.range_loss, peers, features, labels, *params)
    return ops.range_loss(features, labels, *params, peers, backend=backend)
