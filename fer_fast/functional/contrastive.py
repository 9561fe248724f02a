"""SelfCon, SupCon, ESC and ENSC as functions of L2-normalised embeddings (n, d), labels (n,) and a bank.

What they share: a row with a negative label, of batch or bank, is neither anchor, key nor count, whatever it holds.
`temperature` is a number, or a tensor () that gets a gradient. `sample_weights` (n,) multiply the anchors' terms, and
"mean" divides by the sum of those that count; `reduction="none"` gives the terms, (n,). `normalize` scales the rows of
batch and bank to length one first; else they are taken as they are, and `torch.autograd.detect_anomaly` refuses rows of
another length.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from .. import checks, ops, reference
from ..checks import Reduction
from ..dispatch import Backend, resolve
from ..params import by_field
from ..reference import ContrastiveParams
from ..reference.primitives import accumulate, unit
from ..registry import call, find
from ..replay import replayed
from ..terms import Group, Peers, Setting
from .whole import Gradients, WholeBatch, aside, peers_of

Mode = Literal["supcon", "esc", "ensc"]
MODES = get_args(Mode)
TEMPERATURE = ContrastiveParams().temperature
MOST_PAIRS = 2**20  # of a process: pairs of a thousand processes have numbers of 32 bits


@replayed
@by_field(ContrastiveParams)
def selfcon_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    params,
    sample_weights: Tensor | None = None,
    normalize: bool = False,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor:
    """Two views of each image against the batch, rows i and i+N a pair; see :func:`fer_fast.reference.selfcon`.

    embeddings z (2N, d). The labels (2N,) only say, where they are negative, which rows take no part.

    Options as of all contrastive losses: see :mod:`fer_fast.functional.contrastive`.
    """
    peers = peers_of(process_group, gradients, "selfcon")
    checks.features(embeddings, "embeddings", rows=not peers.group)
    rows = embeddings.shape[0]
    if rows % 2:
        raise ValueError(f"embeddings: rows i and i+N are two views, so an even number is needed; got {rows}")
    if labels is None:
        labels = torch.arange(rows, device=embeddings.device)
    bank, options = (None, None, None), (sample_weights, normalize, reduction, backend, peers)
    return _contrastive("selfcon", embeddings, labels, *bank, params, *options)


@replayed
@by_field(ContrastiveParams)
def supcon_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    params,
    sample_weights: Tensor | None = None,
    normalize: bool = False,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor:
    """Rows of one class against the batch; see :func:`fer_fast.reference.supcon`.

    embeddings z (n, d), labels y (n,).
    """
    peers = peers_of(process_group, gradients, "supcon")
    bank, options = (None, None, None), (sample_weights, normalize, reduction, backend, peers)
    return _contrastive("supcon", embeddings, labels, *bank, params, *options)


@replayed
@by_field(ContrastiveParams)
def esc_loss(
    embeddings: Tensor,
    labels: Tensor,
    bank_embeddings: Tensor | None = None,
    bank_labels: Tensor | None = None,
    *,
    own: Tensor | None = None,
    params,
    sample_weights: Tensor | None = None,
    normalize: bool = False,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
    sharded: bool = False,
) -> Tensor:
    """SupCon whose denominator also has every bank row; see :func:`fer_fast.reference.esc`.

    embeddings z (n, d), labels y (n,), bank_embeddings (M, d), bank_labels (M,). Bank rows get no
    gradient. `own` names those that take no part in this call, as a mask (M,) or as row numbers, -1 for none: rows of
    the batch that were enqueued before the loss. With a `process_group` every process gives the same bank, or with
    `sharded` a part of it: as many rows as the others, those labelled -1 being none.

    Options as of all contrastive losses: see :mod:`fer_fast.functional.contrastive`.
    """
    peers = peers_of(process_group, gradients, "esc", sharded)
    bank, options = (bank_embeddings, bank_labels, own), (sample_weights, normalize, reduction, backend, peers)
    return _contrastive("esc", embeddings, labels, *bank, params, *options)


@replayed
@by_field(ContrastiveParams)
def ensc_loss(
    embeddings: Tensor,
    labels: Tensor,
    bank_embeddings: Tensor | None = None,
    bank_labels: Tensor | None = None,
    *,
    own: Tensor | None = None,
    params,
    sample_weights: Tensor | None = None,
    normalize: bool = False,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
    sharded: bool = False,
) -> Tensor:
    """SupCon whose denominator also has the bank rows of other classes; see :func:`fer_fast.reference.ensc`.

    embeddings z (n, d), labels y (n,), bank_embeddings (M, d), bank_labels (M,). Bank rows get no
    gradient. `own` names those that take no part in this call, `sharded` says that the bank is a part of it; see
    :func:`esc_loss`.
    """
    peers = peers_of(process_group, gradients, "ensc", sharded)
    bank, options = (bank_embeddings, bank_labels, own), (sample_weights, normalize, reduction, backend, peers)
    return _contrastive("ensc", embeddings, labels, *bank, params, *options)


def contrastive_log_denominator(
    embeddings: Tensor,
    labels: Tensor,
    bank_embeddings: Tensor | None = None,
    bank_labels: Tensor | None = None,
    temperature: float | Tensor = TEMPERATURE,
    mode: Mode = "supcon",
    *,
    backend: Backend = "auto",
) -> Tensor:
    """log Σ_{a≠i} e^{z_i·z_a/τ} over the batch and, by `mode`, the bank: (n,).

    embeddings z (n, d), labels y (n,), bank_embeddings (M, d), bank_labels (M,). `mode` is "supcon" (no
    bank), "esc" (every bank row) or "ensc" (bank rows of other classes); see
    :func:`fer_fast.reference.contrastive_log_denominator`. -inf, with zero gradient, for a row with a negative label.
    """
    if mode not in MODES:
        raise ValueError(f"mode: {mode!r} given; allowed are {', '.join(MODES)}")
    labels, bank_embeddings, bank_labels = _check(embeddings, labels, bank_embeddings, bank_labels)
    temperature = checks.learnable(temperature, "temperature")
    backend = resolve(backend, embeddings.device)
    if backend == "reference":
        return reference.contrastive_log_denominator(
            embeddings, labels, bank_embeddings, bank_labels, temperature, mode
        )
    temperature = Setting.of(temperature)
    return ops.log_denominator(embeddings, labels, bank_embeddings, bank_labels, *temperature, mode, backend)


def _contrastive(
    name: str,
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    own: Tensor | None,
    params: ContrastiveParams,
    sample_weights: Tensor | None,
    normalize: bool,
    reduction: str,
    backend: str,
    peers: Peers,
) -> Tensor:
    y, bank_z, bank_y = _check(z, y, bank_z, bank_y, own, rows=not peers.group)
    checks.reduction(reduction, find(name).reductions)
    _check_terms(params, sample_weights, z)
    if normalize:  # of a row that takes no part, whatever it holds, nothing may come back
        z, bank_z = _unit(z.masked_fill((y < 0)[:, None], 0)), None if bank_z is None else _unit(bank_z)
    elif not torch.compiler.is_compiling() and torch.is_anomaly_enabled():
        checks.unit_rows(z, y, "embeddings")
    backend = resolve(backend, z.device)
    if backend == "reference":
        given = {"bank_z": bank_z, "bank_y": bank_y, "reduction": reduction}
        return _reference(name, z, y, sample_weights, params, peers, given)
    bank, temperature = (bank_z, bank_y), Setting.of(params.temperature)
    if peers.group and name == "selfcon":  # the two views do not lie half a batch apart
        name, y = "supcon", _pairs(y, peers)
    return ops.contrastive(z, y, *bank, temperature, name, sample_weights, reduction, peers, backend=backend)


def _reference(
    name: str, z: Tensor, y: Tensor, sample_weights: Tensor | None, params: ContrastiveParams, peers: Peers, given: dict
) -> Tensor:
    if not peers.group:
        return call(find(name).reference, z=z, y=y, sample_weights=sample_weights, **params._asdict(), **given)
    return _of_whole_batch(name, z, y, sample_weights, params, peers, given)


@aside
def _of_whole_batch(
    name: str, z: Tensor, y: Tensor, sample_weights: Tensor | None, params: ContrastiveParams, peers: Peers, given: dict
) -> Tensor:
    bank_z, bank_y = given["bank_z"], given["bank_y"]
    batch = WholeBatch(peers, len(z), z=z, y=y, sample_weights=sample_weights, params=params, **given)
    if peers.sharded and bank_z is not None:
        parts = batch.share._replace(most=len(bank_z), counts=None)
        given |= dict(zip(("bank_z", "bank_y"), peers.gather(parts, bank_z, bank_y.long()), strict=True))
    if name == "selfcon":
        name, y = "supcon", _pairs(y, peers)
    rows = {"z": batch.rows(z), "y": batch.rows(y), "sample_weights": batch.rows(sample_weights)}
    loss = call(find(name).reference, **rows, temperature=batch.parameter(params.temperature), **given)
    return batch.loss(loss, given["reduction"])


def _pairs(y: Tensor, peers: Peers) -> Tensor:
    """Labels (2N,) by which the two views of an image are a class of their own among those of all processes; negative
    where they were."""
    from ..distributed.collectives import place

    pairs = torch.arange(len(y) // 2, device=y.device).repeat(2)
    return torch.where(y < 0, -1, pairs + place(peers).rank * MOST_PAIRS)


def _check_terms(params: ContrastiveParams, sample_weights: Tensor | None, z: Tensor) -> None:
    if isinstance(params.temperature, Tensor):
        checks.beside(params.temperature, "temperature", z.device)
    if sample_weights is not None:
        checks.per_class(sample_weights, "sample_weights", z.shape[0], z.device)
        checks.constant(sample_weights, "sample_weights")
        checks.weight_range(sample_weights)


def _unit(rows: Tensor) -> Tensor:
    """Rows of length one in their dtype; the length is found in float32 at least."""
    return unit(accumulate(rows)).to(rows.dtype)


def _check(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    own: Tensor | None = None,
    rows: bool = True,
):
    checks.features(z, "embeddings", rows=rows)
    y = checks.labels(y, z.shape[0], z.device)
    if (bank_z is None) != (bank_y is None):
        raise ValueError("bank_embeddings, bank_labels: given together or not at all")
    if bank_z is not None:
        checks.dense(bank_z, "bank_embeddings", "(M, d)")
    elif own is not None:
        raise ValueError("own: names rows of a bank, but none is given")
    if bank_z is None or bank_z.shape[:1] == (0,):
        return y, None, None
    checks.table(bank_z, "bank_embeddings", z.shape[1], z.device)
    bank_y = checks.labels(bank_y, bank_z.shape[0], z.device, "bank_labels")
    bank_z = bank_z.detach() if bank_z.requires_grad else bank_z
    return y, bank_z, without(bank_y, own)


def without(bank_y: Tensor, own: Tensor | None) -> Tensor:
    """Bank labels (M,) with -1, which takes a row out of everything, at the rows that `own` names."""
    if own is None:
        return bank_y
    rows = bank_y.shape[0]
    checks.dense(own, "own", "(M,)")
    checks.beside(own, "own", bank_y.device)
    if own.dtype == torch.bool and own.shape == (rows,):
        return bank_y.masked_fill(own, -1)
    if own.dtype not in (torch.int32, torch.int64) or own.ndim != 1:
        raise ValueError(f"own: expected a mask ({rows},) or row numbers (k,), got {own.dtype} {tuple(own.shape)}")
    if own.shape[0] and checks.readable(own) and not torch.compiler.is_compiling():
        low, high = map(int, torch.aminmax(own))
        if low < -1 or high >= rows:
            raise ValueError(f"own: row {low if low < -1 else high} is outside [0, {rows}); -1 names none")
    own = own.long()
    padded = torch.cat([bank_y, bank_y.new_empty(1)])  # its last place is that of -1
    return padded.index_fill_(0, own.where(own >= 0, rows), -1)[:rows]
