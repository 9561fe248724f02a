"""NFD, FD, MD, ED and Ad-Corre as functions of k embeddings of n samples, (k, n, d), and their labels (n,).

All but the reference use that the losses are linear in the correlations: class sums of standardised rows, O(n·d).
ED alone is a sum over samples, which can be weighed and left unreduced: FD and NFD compare samples, MD class means.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .. import checks, ops
from ..checks import Reduction
from ..dispatch import Backend, resolve
from ..registry import call, find
from ..replay import replayed
from ..terms import Group, Peers
from .whole import Gradients, WholeBatch, aside, peers_of


class Term(NamedTuple):
    """A loss of correlations, and what it knows of classes."""

    name: str
    parts: tuple[float, float, float]  # what FD, MD and ED are multiplied by
    num_classes: int | None = None  # None for as many as have a difficulty
    class_difficulty: Tensor | None = None  # (C,), where pairs are weighed by it


@replayed
def nfd_loss(
    embeddings: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor:
    """1/(k n²) Σ_l Σ_{i≠j} |Φ_ij - corr(e_li, e_lj)|; see :func:`fer_fast.reference.nfd`.

    embeddings e (k, n, d), labels y (n,).
    """
    checks.features(embeddings, "embeddings", "(k, n, d)", rows=process_group is None)
    classes = checks.at_least(num_classes, 1, "num_classes")
    half = torch.full((classes,), 0.5, device=embeddings.device)  # w(y_i) + w(y_j) = 1
    term, peers = Term("nfd", (1.0, 0.0, 0.0), num_classes, half), peers_of(process_group, gradients, "nfd")
    return _correlation_loss(term, embeddings, labels, None, reduction, backend, peers)


@replayed
def fd_loss(
    embeddings: Tensor,
    labels: Tensor,
    class_difficulty: Tensor,
    *,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor:
    """1/(k n²) Σ_l Σ_{i≠j} (w(y_i)+w(y_j)) |Φ_ij - corr(e_li, e_lj)|; see :func:`fer_fast.reference.fd`.

    embeddings e (k, n, d), labels y (n,), class_difficulty w (C,), from :func:`fer_fast.reference.class_difficulty`.
    """
    term = Term("fd", (1.0, 0.0, 0.0), class_difficulty=class_difficulty)
    peers = peers_of(process_group, gradients, "fd")
    return _correlation_loss(term, embeddings, labels, None, reduction, backend, peers)


@replayed
def md_loss(
    embeddings: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor:
    """1/(k C²) Σ_l Σ_{a≠b} |1 + corr(μ_la, μ_lb)|; see :func:`fer_fast.reference.md`.

    embeddings e (k, n, d), labels (n,), whose classes have the means μ_l.
    """
    term, peers = Term("md", (0.0, 1.0, 0.0), num_classes), peers_of(process_group, gradients, "md")
    return _correlation_loss(term, embeddings, labels, None, reduction, backend, peers)


@replayed
def ed_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    sample_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor:
    """1/(k² Σ_i w_i) Σ_i w_i Σ_{a≠b} |1 + corr(e_ai, e_bi)|; see :func:`fer_fast.reference.ed`.

    embeddings e (k, n, d). sample_weights w (n,), finite and >= 0, are 1 where left out; a row of weight 0 is absent,
    whatever it holds. "sum" has no divisor, and `reduction="none"` gives its terms (n,), whose backward goes over them
    once more. The labels (n,) are not used.
    """
    checks.features(embeddings, "embeddings", "(k, n, d)", rows=process_group is None)
    if labels is not None:
        checks.labels(labels, embeddings.shape[1], embeddings.device)
    labels = torch.zeros(embeddings.shape[1], dtype=torch.int32, device=embeddings.device)
    term, peers = Term("ed", (0.0, 0.0, 1.0), 1), peers_of(process_group, gradients, "ed")
    return _correlation_loss(term, embeddings, labels, sample_weights, reduction, backend, peers)


@replayed
def ad_corre_loss(
    embeddings: Tensor,
    labels: Tensor,
    class_difficulty: Tensor,
    *,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor:
    """FD + MD + ED in one pass; see :func:`fer_fast.reference.ad_corre`.

    embeddings e (k, n, d), labels y (n,), class_difficulty w (C,) as in :func:`fd_loss`.
    """
    term = Term("ad-corre", (1.0, 1.0, 1.0), class_difficulty=class_difficulty)
    peers = peers_of(process_group, gradients, "ad-corre")
    return _correlation_loss(term, embeddings, labels, None, reduction, backend, peers)


def _correlation_loss(
    term: Term, e: Tensor, y: Tensor, sample_weights: Tensor | None, reduction: str, backend: str, peers: Peers
) -> Tensor:
    _check(term, e, y, sample_weights, reduction, peers)
    if sample_weights is not None:
        checks.constant(sample_weights, "sample_weights")
        checks.weight_range(sample_weights)
    y = checks.wide_labels(y)
    classes = len(term.class_difficulty) if term.num_classes is None else term.num_classes
    classes = checks.at_least(classes, 1, "num_classes")
    backend = resolve(backend, e.device)
    if backend != "reference":
        tables = term.class_difficulty, classes, *term.parts
        return ops.ad_corre(e, y, *tables, sample_weights, reduction, peers, backend=backend)
    checks.label_range(y, classes)
    given = {"class_difficulty": term.class_difficulty, "num_classes": classes, "reduction": reduction}
    formula = find(term.name).reference
    if not peers.group:
        return call(formula, e=e, y=y, sample_weights=sample_weights, **given)
    return _of_whole_batch(formula, peers, e, y, sample_weights, given)


@aside
def _of_whole_batch(
    formula: Callable[..., Tensor], peers: Peers, e: Tensor, y: Tensor, sample_weights: Tensor | None, given: dict
) -> Tensor:
    batch = WholeBatch(peers, len(y), e=e, y=y, sample_weights=sample_weights, **given)
    of_rows = {"e": batch.rows(e, 1), "y": batch.rows(y), "sample_weights": batch.rows(sample_weights)}
    return batch.loss(call(formula, **of_rows, **given), given["reduction"])


def _check(term: Term, e: Tensor, y: Tensor, sample_weights: Tensor | None, reduction: str, peers: Peers) -> None:
    """That embeddings, labels, weights of rows, and the difficulty of classes, where pairs are weighed by it, fit each
    other."""
    checks.features(e, "embeddings", "(k, n, d)", rows=not peers.group)
    checks.labels(y, e.shape[1], e.device)
    checks.reduction(reduction, find(term.name).reductions)
    if sample_weights is not None:
        checks.per_class(sample_weights, "sample_weights", e.shape[1], e.device)
    if term.class_difficulty is not None or term.num_classes is None:
        checks.per_class(term.class_difficulty, "class_difficulty", term.num_classes, e.device)
