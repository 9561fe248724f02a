"""Directions of a batch and the chain rule back, launched."""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from ..host.launch import Launch, cdiv, gradient_dtype, start
from .chain_rule import chain_rule_rows
from .normalise import normalise_rows
from .settings import DIRECTION_ROWS

_empty = torch.empty


class TakingPart(NamedTuple):
    """Labels (n,) of which negative ones are each row's own, and how many rows the others are, by program."""

    labels: Tensor
    counts: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> "TakingPart":
        """To be filled by :func:`normalise` of x (n, d) and y (n,)."""
        programs = cdiv(len(x), blocks_of(x.shape[1])["BLOCK"])
        return cls(
            _empty(y.shape, dtype=y.dtype, device=y.device), _empty((programs,), dtype=torch.float32, device=y.device)
        )


def blocks_of(d: int) -> dict[str, int]:
    width = triton.next_power_of_2(d)
    return {"BLOCK": max(1, DIRECTION_ROWS.block_m // width), "BLOCK_D": width}


def _flat(x: Tensor) -> tuple[Tensor, int, int]:
    """Rows of x (..., d) as one run of rows a fixed distance apart; copied only where there is none."""
    rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    return rows, *rows.shape


def normalise(
    x: Tensor, y: Tensor | None, class_difficulty: Tensor | None, standardise: bool, dtype: torch.dtype | None = None,
    part: TakingPart | None = None, compiled: dict | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """u (..., n, d) in `dtype`, by default that of x, and a weight per sample (n,): w(y_i), or ‖u_i‖² without
    `class_difficulty`. With `part`, which is filled, a negative label takes its row out."""
    rows, n, d = _flat(x)
    u = _empty(x.shape, dtype=dtype or x.dtype, device=x.device)
    weights = _empty((x.shape[-2],), dtype=torch.float32, device=x.device)
    weighted = class_difficulty is not None
    blocks = blocks_of(d)
    arguments = (
        rows, y if weighted or part else weights, class_difficulty if weighted else weights, u, weights, part,
        n, len(weights), d, rows.stride(0), len(class_difficulty) if weighted else 0,
    )  # fmt: skip
    constants = {"STANDARDISE": standardise, "WEIGHTED": weighted, **blocks, **DIRECTION_ROWS.options}
    start(Launch(normalise_rows, (cdiv(n, blocks["BLOCK"]), 1, 1), arguments, constants, compiled))
    return u, weights


def chain_rule(
    x: Tensor, gradients: Tensor | None, partial: Tensor | None, standardise: bool, loss_scale: float,
    gradient_scale: float, part: TakingPart | None = None, by_pairs: bool = False, compiled: dict | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The loss (), loss_scale · Σ partial, and dx (..., n, d) from the parts of dU (parts, ..., n, d), if given; both
    over the m² - m pairs of the rows that take part, if these are asked for; x may be the first of them."""
    rows, n, d = _flat(x)
    loss = _empty((), dtype=torch.float32, device=x.device)
    dx = _empty(x.shape if gradients is not None else (0,), dtype=gradient_dtype(x), device=x.device)
    blocks = blocks_of(d)
    arguments = (
        rows, loss if gradients is None else gradients, loss if partial is None else partial, loss, dx, n, d,
        rows.stride(0), 0 if gradients is None else len(gradients), 0 if partial is None else partial.numel(),
        loss_scale, gradient_scale, part, 0 if part is None else len(part.counts),
    )  # fmt: skip
    constants = {"BY_PAIRS": by_pairs, "STANDARDISE": standardise, "LOSS": partial is not None}
    constants |= {"GRADIENT": gradients is not None, **blocks, **DIRECTION_ROWS.options}
    grid = max(cdiv(n, blocks["BLOCK"]), 1) if gradients is not None else 1, 1, 1
    start(Launch(chain_rule_rows, grid, arguments, constants, compiled))
    return loss, dx
