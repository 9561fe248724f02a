"""The survey of a batch, and of a bank, launched."""

import torch
from torch import Tensor

from ..host.launch import Launch, cdiv, max_programs, start
from .settings import SURVEY_ROWS
from .survey import survey_rows

_empty = torch.empty


def survey(
    z: Tensor | None,
    y: Tensor | None,
    bank_z: Tensor | None = None,
    bank_y: Tensor | None = None,
    scale: float | Tensor = 1.0,
    compiled: dict | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """labels (n,) and bank_labels (M,) in int32, and the bound () on logits scale · z·k of z (n, d) and bank_z (M, d).

    What is None is left out; without z the bound says only, as 0 or inf, whether all labels fit.
    """
    given = z if y is None else y
    labels, bank_labels = (t if t is None or t.dtype == torch.int32 else _like(t) for t in (y, bank_y))
    d = 1 if z is None else z.shape[1]
    n, m = len(given), 0 if bank_y is None else len(bank_y)
    programs = min(cdiv(max(n, m), SURVEY_ROWS.block_m), max_programs(given.device))
    bounds = _empty((programs,), dtype=torch.float32, device=given.device)
    arguments = (
        z, y, None if labels is y else labels, bank_z, bank_y, None if bank_labels is bank_y else bank_labels, bounds,
        n, m, scale, d, 1 if z is None else z.stride(0), 1 if bank_z is None else bank_z.stride(0),
    )  # fmt: skip
    constants = {"BLOCK": SURVEY_ROWS.block_m, "BLOCK_D": SURVEY_ROWS.block_d, **SURVEY_ROWS.options}
    start(Launch(survey_rows, (programs, 1, 1), arguments, constants, compiled))
    return labels, bank_labels, bounds.amax()


def _like(y: Tensor) -> Tensor:
    return _empty((len(y),), dtype=torch.int32, device=y.device)
