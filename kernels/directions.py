"""Rows to unit length on the way into a product, and the chain rule back, for every engine over pairs of rows.

    u = v / ‖v‖ with v = x, or v = x - x̄ where rows are standardised:   dL/dx = (dU - (dU·u) u) / ‖v‖, centred again.

The rule needs a whole row of dU, which the sweep over pairs may have split over programs and over chunks of columns, so
it is a launch of its own: it joins the parts in fixed order and reads 2·n·d numbers, against the sweep's n²·d products.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .aot import TYPES, aot_case, mark
from .configs import DIRECTION_ROWS
from .launch import cdiv, gradient_dtype
from .pair_tiles import load_rows, store_rows


@triton.jit
def unit_rows(x, columns, width, STANDARDISE: tl.constexpr):
    """Directions u (R, D) of rows x (R, D, zero past the width) and 1/‖v‖ (R,), as in `reference/primitives.py`.

    A zero or constant row has no direction: u and 1/‖v‖ are 0. A row that is not finite is NaN throughout.
    """
    inside = (columns < width)[None, :]
    unbounded = tl.sum(x * 0.0, 1)  # 0, or NaN, which a maximum may let slip
    if STANDARDISE:
        first = tl.sum(tl.where(columns[None, :] == 0, x, 0.0), 1)
        x = tl.where(inside, x - first[:, None], 0.0)
        x = tl.where(inside, x - (tl.sum(x, 1) / width)[:, None], 0.0)
    largest = tl.max(tl.abs(x), 1) + unbounded
    constant = largest == 0
    scale = tl.where(constant, 1.0, largest)
    x = tl.div_rn(x, tl.broadcast_to(scale[:, None], x.shape))
    norm = tl.sqrt_rn(tl.where(constant, 1.0, tl.sum(x * x, 1)))
    u = tl.div_rn(x, tl.broadcast_to(norm[:, None], x.shape))
    return u, tl.where(constant, 0.0, tl.div_rn(tl.div_rn(tl.full(norm.shape, 1.0, tl.float32), norm), scale))


@triton.jit(do_not_specialize=["n", "rows_of_y", "num_classes"])
def _normalise(
    x, y, difficulty, u, weights, n, rows_of_y, d, x_stride, num_classes,
    STANDARDISE: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """u (n, d), and weights (rows_of_y,): w(y_i) of the class, or else ‖u_i‖², which is 0 or 1 but for rounding."""
    first = tl.program_id(0) * BLOCK
    rows = first + tl.arange(0, BLOCK)
    columns = tl.arange(0, BLOCK_D)
    tile = load_rows(x, first, rows < n, x_stride, columns, d).to(tl.float32)
    directions = unit_rows(tile, columns, d, STANDARDISE)[0]
    store_rows(u, first, d, columns, d, n, directions)
    if WEIGHTED:
        label = tl.load(y + rows, mask=rows < rows_of_y, other=0)
        known = (label >= 0) & (label < num_classes)
        weight = tl.load(difficulty + label, mask=known, other=float("nan")).to(tl.float32)
    else:
        weight = tl.sum(directions * directions, 1)
    tl.store(weights + rows, weight, mask=rows < rows_of_y)


@triton.jit(do_not_specialize=["n", "parts", "programs"])
def _chain_rule(
    x, gradients, partial, loss, dx, n, d, x_stride, parts, programs, loss_scale, gradient_scale,
    STANDARDISE: tl.constexpr, LOSS: tl.constexpr, GRADIENT: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dx (n, d) from the parts of dU (parts, n, d); the first program also adds up the loss."""
    first = tl.program_id(0) * BLOCK
    if GRADIENT:
        rows = first + tl.arange(0, BLOCK)
        columns = tl.arange(0, BLOCK_D)
        tile = load_rows(x, first, rows < n, x_stride, columns, d).to(tl.float32)
        u, inverse = unit_rows(tile, columns, d, STANDARDISE)
        total = tl.zeros((BLOCK, BLOCK_D), tl.float32)
        for part in range(parts):
            total += load_rows(gradients + tl.cast(part, tl.int64) * n * d, first, rows < n, d, columns, d)
        gradient = (total - tl.sum(total * u, 1)[:, None] * u) * (inverse * gradient_scale)[:, None]
        if STANDARDISE:
            gradient -= (tl.sum(tl.where((columns < d)[None, :], gradient, 0.0), 1) / d)[:, None]
        store_rows(dx, first, d, columns, d, n, gradient)
    if LOSS and first == 0:
        losses = tl.zeros((1024,), tl.float32)
        for start in range(0, programs, 1024):
            places = start + tl.arange(0, 1024)
            losses += tl.load(partial + places, mask=places < programs, other=0.0)
        tl.store(loss, tl.sum(losses) * loss_scale)


_empty = torch.empty


def _blocks(d: int) -> dict[str, int]:
    width = triton.next_power_of_2(d)
    return {"BLOCK": max(1, DIRECTION_ROWS.block_m // width), "BLOCK_D": width}


def _flat(x: Tensor) -> tuple[Tensor, int, int]:
    """Rows of x (..., d) as one run of rows a fixed distance apart; copied only where there is none."""
    rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    return rows, *rows.shape


def normalise(x: Tensor, y: Tensor | None, class_difficulty: Tensor | None, standardise: bool) -> tuple[Tensor, Tensor]:
    """u (..., n, d) in the dtype of x, and a weight per sample (n,): w(y_i), or ‖u_i‖² without `class_difficulty`."""
    rows, n, d = _flat(x)
    u = _empty(x.shape, dtype=x.dtype, device=x.device)
    weights = _empty((x.shape[-2],), dtype=torch.float32, device=x.device)
    weighted = class_difficulty is not None
    blocks = _blocks(d)
    _normalise[cdiv(n, blocks["BLOCK"]),](
        rows, y if weighted else weights, class_difficulty if weighted else weights, u, weights,
        n, len(weights), d, rows.stride(0), len(class_difficulty) if weighted else 0,
        STANDARDISE=standardise, WEIGHTED=weighted, **blocks, **DIRECTION_ROWS.options,
    )  # fmt: skip
    return u, weights


def chain_rule(
    x: Tensor, gradients: Tensor | None, partial: Tensor | None, standardise: bool, loss_scale: float,
    gradient_scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The loss (), loss_scale · Σ partial, and dx (..., n, d) from the parts of dU (parts, ..., n, d), if given."""
    rows, n, d = _flat(x)
    loss = _empty((), dtype=torch.float32, device=x.device)
    dx = _empty(x.shape if gradients is not None else (0,), dtype=gradient_dtype(x), device=x.device)
    blocks = _blocks(d)
    _chain_rule[cdiv(n, blocks["BLOCK"]) if gradients is not None else 1,](
        rows, loss if gradients is None else gradients, loss if partial is None else partial, loss, dx, n, d,
        rows.stride(0), 0 if gradients is None else len(gradients), 0 if partial is None else partial.numel(),
        loss_scale, gradient_scale, STANDARDISE=standardise, LOSS=partial is not None,
        GRADIENT=gradients is not None, **blocks, **DIRECTION_ROWS.options,
    )  # fmt: skip
    return loss, dx


def aot_cases() -> list[tuple]:
    """Both kernels at every dtype and d = 256, for the audit."""
    types = dict.fromkeys(("n", "rows_of_y", "d", "x_stride", "num_classes", "parts", "programs"), "i32")
    types |= dict.fromkeys(("loss_scale", "gradient_scale"), "fp32") | {"y": "*i64"}
    types |= dict.fromkeys(("difficulty", "weights", "gradients", "partial", "loss"), "*fp32")
    flags = {"STANDARDISE": True, "WEIGHTED": True, "LOSS": True, "GRADIENT": True, **_blocks(256)}
    return [
        aot_case(
            mark(f"{name}-{of}", of == "bf16"),
            kernel,
            types | dict.fromkeys(("x", "u", "dx"), f"*{of}"),
            flags,
            DIRECTION_ROWS.options,
        )
        for of in TYPES.values()
        for name, kernel in (("normalise", _normalise), ("chain-rule", _chain_rule))
    ]
