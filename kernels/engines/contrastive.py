"""Contrastive engine: SelfCon, SupCon, ESC and ENSC, loss and gradient, in three launches (Zhu et al. 2022, eq. 3-6).

    L = Σ_i log D_i - 1/|P_i| Σ_{p∈P_i} s_ip,   s_ij = z_i·z_j/τ,   D_i = Σ_{a≠i} e^{s_ia} + Σ_m e^{s_im},

a over the batch (n, d), m over the bank (M, d), over all of it or its rows of other labels. With P_ij = e^{s_ij}/D_i,
w_i = 1 where there is a positive, else 0, and p_ij = [j ∈ P_i]/|P_i|:

    τ dL/dz_i = w_i Σ_m P_im z_m + Σ_{j≠i} (w_i P_ij + w_j P_ji - p_ij - p_ji) z_j.

1. `sweep` is flash attention with V = K: a tile of anchors passes over its share of batch and bank with an online
   log-sum-exp in base 2, and O += P K over the bank. Few anchors: the keys are split over programs.
2. `combine` joins the shares in fixed order: log D, the loss, the number of anchors that count.
3. `batch_gradient` visits the pairs of the batch once, as anchors and as keys: S is symmetric, so both gradients are
   one product. It starts from the bank's O and writes dz.

Floor: 4·n·M·d + 6·n²·d operations (against 4·n·(n+M)·d + 4·n²·d with the two gradients apart); the bank is read once
per tile of anchors, in its storage dtype, through L2: programs that run together read the same share of it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from ..launch import gradient_dtype
from ..pair_tiles import (
    LN2,
    LOG2E,
    TYPES,
    Tile,
    aot_case,
    chip,
    dense_rows,
    pick_splits,
    pick_tile,
    processors,
    product,
)
from .contrastive_kernels import batch_gradient, combine, sweep

# (chip family, product, widest row): (anchors, keys, columns of the result, chunk of a product, warps, stages).
TILES = {
    ("cpu", "half", 32): Tile(16, 16, 32, 32, 4, 1),
    ("cpu", "half", 64): Tile(16, 16, 64, 32, 4, 1),
    ("cpu", "float32", 32): Tile(16, 16, 32, 32, 4, 1),
    ("cpu", "float32", 64): Tile(16, 16, 64, 32, 4, 1),
    ("sm80", "half", 64): Tile(128, 64, 64, 64, 8, 3),
    ("sm80", "half", 128): Tile(128, 64, 128, 128, 8, 3),
    ("sm80", "half", 256): Tile(64, 64, 256, 256, 8, 2),
    ("sm80", "tf32", 128): Tile(64, 32, 128, 64, 8, 2),
    ("sm80", "float32", 128): Tile(64, 32, 128, 32, 8, 2),
    ("sm90", "half", 64): Tile(128, 128, 64, 64, 8, 3),
    ("sm90", "half", 128): Tile(128, 128, 128, 128, 8, 2),
    ("sm90", "half", 256): Tile(128, 64, 256, 256, 8, 3),
    ("sm90", "half", 512): Tile(64, 64, 512, 512, 8, 2),
    ("sm90", "tf32", 128): Tile(64, 64, 128, 64, 8, 2),
    ("sm90", "float32", 128): Tile(64, 32, 128, 32, 8, 2),
}


class Mode(NamedTuple):
    """Who is in the denominator and what makes a positive."""

    bank: bool
    own_label: bool = False  # whether bank rows of the anchor's label count
    paired: bool = False  # positives are the two views, rows i and i + n/2


MODES = {
    "selfcon": Mode(bank=False, paired=True),
    "supcon": Mode(bank=False),
    "esc": Mode(bank=True, own_label=True),
    "ensc": Mode(bank=True),
}


_empty = torch.empty


class _Launch(NamedTuple):
    """One call's tensors and settings, shared by its launches."""

    z: Tensor
    y: Tensor
    bank_z: Tensor
    bank_y: Tensor
    mode: Mode
    bank: bool
    temperature: float
    tile: Tile
    shared: dict  # constexprs and options of both tile kernels
    splits: int

    @property
    def scale(self) -> float:
        return LOG2E.value / self.temperature

    @property
    def row_tiles(self) -> int:
        return triton.cdiv(len(self.z), self.tile.block_m)

    @property
    def chunks(self) -> int:
        return triton.cdiv(self.z.shape[1], self.tile.block_d)


def _prepare(z: Tensor, y: Tensor, bank_z: Tensor | None, bank_y: Tensor | None, temperature: float, mode: str):
    rule = MODES[mode]
    bank = rule.bank and bank_z is not None and len(bank_z) > 0
    kind, precision = product(z.dtype)
    tile = pick_tile(TILES, chip(z.device), kind, z.shape[1])
    keys = len(z) + (len(bank_z) if bank else 0)
    splits = pick_splits(triton.cdiv(len(z), tile.block_m), triton.cdiv(keys, tile.block_n), processors(z.device))
    z, y = dense_rows(z), y.contiguous()
    shared = {
        "BANK": bank,
        "PAIRED": rule.paired,
        "SHIFT": 14 if z.dtype == torch.float16 else 0,
        "PRECISION": precision,
        **tile.constexprs,
        **tile.options,
    }
    bank_z, bank_y = (dense_rows(bank_z), bank_y.contiguous()) if bank else (z, y)
    return _Launch(z, y, bank_z, bank_y, rule, bank, temperature, tile, shared, splits)


def _sweep_keys(call: _Launch, gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
    z, bank_z = call.z, call.bank_z
    statistics = _empty((4, call.splits, len(z)), dtype=torch.float32, device=z.device)
    shape = (call.splits, *z.shape) if gradient and call.bank else (0,)
    values = _empty(shape, dtype=torch.float32, device=z.device)
    counter = _empty((1,), dtype=torch.int32, device=z.device)
    grid = (call.row_tiles, call.splits, call.chunks if gradient and call.bank else 1)
    sweep[grid](
        z, call.y, bank_z, call.bank_y, statistics, values, counter,
        *z.shape[:1], len(bank_z), z.shape[1], z.stride(0), bank_z.stride(0), call.scale,
        OWN_LABEL=call.mode.own_label, GRADIENT=gradient, **call.shared,
    )  # fmt: skip
    return statistics, values, counter


COMBINE_ROWS, COMBINE_COLUMNS = 128, 64


def _combine_shares(
    call: _Launch, statistics: Tensor, counter: Tensor, mean: bool, unit: float = 1.0
) -> tuple[Tensor, ...]:
    z = call.z
    rows = _empty((2, len(z)), dtype=torch.float32, device=z.device)
    tiles = triton.cdiv(len(z), COMBINE_ROWS)
    partial = _empty((2, tiles), dtype=torch.float32, device=z.device)
    loss, factor = (_empty((), dtype=torch.float32, device=z.device) for _ in range(2))
    combine[tiles,](
        z, statistics, rows[0], rows[1], partial, counter, loss, factor, *z.shape, z.stride(0), call.splits,
        1 / call.temperature, unit, MEAN=mean, BLOCK=COMBINE_ROWS, BLOCK_D=COMBINE_COLUMNS,
    )  # fmt: skip
    return loss, factor, rows[0], rows[1]


def _gradient(
    call: _Launch, statistics: Tensor, values: Tensor, log2_denominator: Tensor, weight: Tensor, factor: Tensor,
    positives: bool,
) -> Tensor:  # fmt: skip
    dz = _empty(call.z.shape, dtype=gradient_dtype(call.z), device=call.z.device)
    batch_gradient[call.row_tiles, call.chunks](
        call.z, call.y, log2_denominator, weight, statistics, values, factor, dz,
        *dz.shape, call.z.stride(0), call.splits, call.scale, POSITIVES=positives, **call.shared,
    )  # fmt: skip
    return dz


def contrastive(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: float,
    mode: str,
    mean: bool,
    gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Loss () in float32 and dz (n, d) of SelfCon, SupCon, ESC or ENSC; the module's docstring has the equations.

    z (n, d) of any length, y (n,) any int64 (SelfCon ignores it: rows i and i + n/2 are the pair); the bank, frozen,
    bank_z (M, d) of any float dtype and bank_y (M,), negative where a row is not filled. Without `gradient` dz is (0,).
    """
    call = _prepare(z, y, bank_z, bank_y, temperature, mode)
    statistics, values, counter = _sweep_keys(call, gradient)
    loss, factor, log2_denominator, positive_weight = _combine_shares(call, statistics, counter, mean)
    if not gradient:
        return loss, _empty((0,), dtype=gradient_dtype(z), device=z.device)
    return loss, _gradient(call, statistics, values, log2_denominator, positive_weight, factor, positives=True)


def contrastive_log_denominator(
    z: Tensor, y: Tensor, bank_z: Tensor | None, bank_y: Tensor | None, temperature: float, mode: str
) -> Tensor:
    """log D_i (n,) in float32; -inf for a single row without a bank."""
    call = _prepare(z, y, bank_z, bank_y, temperature, mode)
    statistics, _, counter = _sweep_keys(call, gradient=False)
    return _combine_shares(call, statistics, counter, mean=False, unit=LN2.value)[2]


def contrastive_log_denominator_backward(
    grad: Tensor,
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: float,
    mode: str,
    log_denominator: Tensor,
) -> Tensor:
    """dz (n, d) of Σ_i grad_i log D_i: Σ_i grad_i P_ij in place of the loss's weights."""
    call = _prepare(z, y, bank_z, bank_y, temperature, mode)
    statistics, values, _ = _sweep_keys(call, gradient=True)
    # Weights of at most 1, whatever the scale of the incoming gradient: float16 products could overflow.
    largest = grad.abs().amax().float()
    weight = grad.float() / largest.where(largest != 0, 1)
    log2_denominator = log_denominator * LOG2E.value
    dz = _gradient(call, statistics, values, log2_denominator, weight, largest / temperature, positives=False)
    return dz.to(z.dtype)


def aot_cases(family: str) -> Iterator[tuple]:
    """Every kernel at every setting of a chip family, for tests/aot.py."""
    floats, counts = dict.fromkeys(("scale", "inverse_temperature", "unit"), "fp32"), dict.fromkeys(("n", "m"), "i32")
    shared = floats | counts | {"d": "i32", "splits": "i32", "z_stride": "i32", "bank_stride": "i32"}
    shared |= {"y": "*i64", "bank_y": "*i64", "counter": "*i32"}
    buffers = ("statistics", "values", "log_denominator", "log2_denominator", "positive_weight", "weight", "partial")
    shared |= dict.fromkeys((*buffers, "loss", "factor"), "*fp32")
    for (of, kind, width), tile in TILES.items():
        for dtype in {"half": (torch.bfloat16, torch.float16)}.get(kind, (torch.float32,)) if of == family else ():
            pointer = f"*{TYPES[dtype]}"
            types = shared | dict.fromkeys(("z", "bank_z", "dz"), pointer)
            precision = "ieee" if kind == "float32" else "tf32"
            constexprs = {"SHIFT": 14 if dtype == torch.float16 else 0, "PRECISION": precision, **tile.constexprs}
            name = f"{TYPES[dtype]}-{kind}-{width}"
            rows = {"MEAN": True, "BLOCK": COMBINE_ROWS, "BLOCK_D": COMBINE_COLUMNS}
            yield aot_case(f"combine-{name}", combine, types, rows, tile)
            for mode, rule in MODES.items():
                given = constexprs | {"BANK": rule.bank, "PAIRED": rule.paired}
                given |= {"OWN_LABEL": rule.own_label, "GRADIENT": True, "POSITIVES": True}
                yield aot_case(f"sweep-{mode}-{name}", sweep, types, given, tile)
                yield aot_case(f"batch-{mode}-{name}", batch_gradient, types, given, tile)
