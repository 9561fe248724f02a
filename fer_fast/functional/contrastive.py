"""SelfCon, SupCon, ESC and ENSC as functions of L2-normalised embeddings z (n, d), labels y (n,) and a bank."""

from typing import Literal, get_args

import torch
from torch import Tensor

from .. import checks, ops, reference
from ..checks import Reduction
from ..dispatch import Backend, resolve
from ..params import by_field
from ..reference import ContrastiveParams
from ..registry import call, find

Mode = Literal["supcon", "esc", "ensc"]
MODES = get_args(Mode)
TEMPERATURE = ContrastiveParams().temperature


@by_field(ContrastiveParams)
def selfcon_loss(
    z: Tensor, y: Tensor | None = None, *, params, reduction: Reduction = "mean", backend: Backend = "auto"
) -> Tensor:
    """Two views of each image against the batch, rows i and i+N a pair; see :func:`fer_fast.reference.selfcon`."""
    checks.features(z, "embeddings")
    if z.shape[0] % 2:
        raise ValueError(f"embeddings: rows i and i+N are two views, so an even number is needed; got {z.shape[0]}")
    y = torch.arange(z.shape[0], device=z.device) if y is None else y
    return _contrastive("selfcon", z, y, None, None, params, reduction, backend)


@by_field(ContrastiveParams)
def supcon_loss(z: Tensor, y: Tensor, *, params, reduction: Reduction = "mean", backend: Backend = "auto") -> Tensor:
    """Rows of one class against the batch; see :func:`fer_fast.reference.supcon`."""
    return _contrastive("supcon", z, y, None, None, params, reduction, backend)


@by_field(ContrastiveParams)
def esc_loss(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None = None,
    bank_y: Tensor | None = None,
    *,
    params,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
) -> Tensor:
    """SupCon whose denominator also has every bank row, bank_z (M, d); see :func:`fer_fast.reference.esc`.

    Bank rows get no gradient; those with a negative label are not filled and take part in nothing.
    """
    return _contrastive("esc", z, y, bank_z, bank_y, params, reduction, backend)


@by_field(ContrastiveParams)
def ensc_loss(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None = None,
    bank_y: Tensor | None = None,
    *,
    params,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
) -> Tensor:
    """SupCon whose denominator also has the bank rows of other classes; see :func:`fer_fast.reference.ensc`.

    Bank rows get no gradient; those with a negative label are not filled and take part in nothing.
    """
    return _contrastive("ensc", z, y, bank_z, bank_y, params, reduction, backend)


def contrastive_log_denominator(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None = None,
    bank_y: Tensor | None = None,
    temperature: float = TEMPERATURE,
    mode: Mode = "supcon",
    *,
    backend: Backend = "auto",
) -> Tensor:
    """log Σ_{a≠i} e^{z_i·z_a/τ} over the batch and, by `mode`, the bank: (n,).

    `mode` is "supcon" (no bank), "esc" (every bank row) or "ensc" (bank rows of other classes); see
    :func:`fer_fast.reference.contrastive_log_denominator`.
    """
    if mode not in MODES:
        raise ValueError(f"mode: {mode!r} given; allowed are {', '.join(MODES)}")
    y, bank_z, bank_y = _check(z, y, bank_z, bank_y)
    checks.positive(temperature, "temperature")
    backend = resolve(backend, z.device)
    if backend == "reference":
        return reference.contrastive_log_denominator(z, y, bank_z, bank_y, temperature, mode)
    return ops.contrastive_log_denominator(z, y, bank_z, bank_y, float(temperature), mode, backend)


def _contrastive(
    name: str,
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    params: ContrastiveParams,
    reduction: str,
    backend: str,
) -> Tensor:
    y, bank_z, bank_y = _check(z, y, bank_z, bank_y)
    checks.reduction(reduction)
    backend = resolve(backend, z.device)
    if backend != "reference":
        return ops.contrastive(z, y, bank_z, bank_y, *params, name, reduction == "mean", backend)
    bank = {"bank_z": bank_z, "bank_y": bank_y}
    return call(find(name).reference, z=z, y=y, reduction=reduction, **bank, **params._asdict())


def _check(z: Tensor, y: Tensor, bank_z: Tensor | None, bank_y: Tensor | None):
    checks.features(z, "embeddings")
    y = checks.labels(y, z.shape[0], z.device)
    if (bank_z is None) != (bank_y is None):
        raise ValueError("bank: features and labels are given together or not at all")
    if bank_z is not None:
        checks.dense(bank_z, "bank features", "(M, d)")
    if bank_z is None or bank_z.shape[:1] == (0,):
        return y, None, None
    checks.table(bank_z, "bank features", z.shape[1], z.device)
    return y, bank_z.detach(), checks.labels(bank_y, bank_z.shape[0], z.device, "bank labels")
