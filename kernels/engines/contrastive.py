"""Contrastive engine: SelfCon, SupCon, ESC and ENSC, loss and gradient, in three launches (Zhu et al. 2022, eq. 3-6).

    L = Σ_i log D_i - 1/|P_i| Σ_{p∈P_i} s_ip,   s_ij = z_i·z_j/τ,   D_i = Σ_{a≠i} e^{s_ia} + Σ_m e^{s_im},

a over the batch (n, d), m over the bank (M, d), over all of it or its rows of other labels. With P_ij = e^{s_ij}/D_i,
w_i = 1 where there is a positive, else 0, and p_ij = [j ∈ P_i]/|P_i|:

    τ dL/dz_i = w_i Σ_m P_im z_m + Σ_{j≠i} (w_i P_ij + w_j P_ji - p_ij - p_ji) z_j.

1. `_sweep` is flash attention with V = K: a tile of anchors passes over its share of batch and bank with an online
   log-sum-exp in base 2, and O += P K over the bank. Few anchors: the keys are split over programs.
2. `_combine` joins the shares in fixed order: log D, the loss, the number of anchors that count.
3. `_batch_gradient` visits the pairs of the batch once, as anchors and as keys: S is symmetric, so both gradients are
   one product. It starts from the bank's O and writes dz.

Floor: 4·n·M·d + 6·n²·d operations (against 4·n·(n+M)·d + 4·n²·d with the two gradients apart); the bank is read once
per tile of anchors, in its storage dtype, through L2: programs that run together read the same share of it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..pair_tiles import (
    LN2,
    LOG2E,
    TYPES,
    Tile,
    aot_case,
    chip,
    dense_rows,
    last_to_finish,
    load_rows,
    row_pointers,
    pick_splits,
    pick_tile,
    processors,
    product,
    share,
    similarities,
)

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


@triton.jit
def _fold(s, scale, peak, mass, SHIFT: tl.constexpr):
    """Online log-sum-exp: 2^(s·scale - peak), the factor that older sums need, and the new peak and mass.

    The peak is kept SHIFT below the maximum, so that float16 weights reach 2^SHIFT and small ones are not flushed.
    NaN may pass by the maximum, never by the mass.
    """
    new_peak = tl.maximum(peak, tl.max(s, 1) * scale - SHIFT)
    finite_peak = tl.where(new_peak == float("-inf"), 0.0, new_peak)
    p = tl.exp2(tl.fma(s, scale, -finite_peak[:, None]))
    decay = tl.exp2(peak - finite_peak)
    return p, decay, new_peak, mass * decay + tl.sum(p, 1)


@triton.jit
def _add_pairs(a, b, other_a, other_b):
    return a + other_a, b + other_b


@triton.jit
def _labels(y, rows, n, PAIRED: tl.constexpr):
    if PAIRED:
        return (rows % (n // 2)).to(tl.int64)
    return tl.load(y + rows, mask=rows < n, other=0)


@triton.jit(do_not_specialize=["n", "m"])
def _sweep(
    z, y, bank_z, bank_y, statistics, values, counter, n, m, d, z_stride, bank_stride, scale,
    BANK: tl.constexpr, OWN_LABEL: tl.constexpr, PAIRED: tl.constexpr, GRADIENT: tl.constexpr,
    SHIFT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of anchors over one share of the keys; statistics (4, splits, n), values (splits, n, d)."""
    tile, split, chunk = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    splits = tl.num_programs(1)
    if tile + split + chunk == 0:
        tl.store(counter, 0)
    rows = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    anchors = load_rows(z, tile * BLOCK_M, rows < n, z_stride, columns, d)
    labels = _labels(y, rows, n, PAIRED)
    peak = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    mass = tl.zeros((BLOCK_M,), tl.float32)
    similar = tl.zeros((BLOCK_M,), tl.float32)
    positives = tl.zeros((BLOCK_M,), tl.float32)

    first, last = share(n, split, splits, BLOCK_N)
    for start in range(first, last, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        s, _ = similarities(
            anchors, z, tile * BLOCK_M, rows < n, z_stride, z, start, keys < n, z_stride, columns, d, BLOCK_K, PRECISION
        )
        others = (keys < n)[None, :] & (rows[:, None] != keys[None, :])
        _, _, peak, mass = _fold(tl.where(others, s, float("-inf")), scale, peak, mass, SHIFT)
        same = others & (labels[:, None] == _labels(y, keys, n, PAIRED)[None, :])
        # One reduction of both: on its own the count would be laid out, and its labels compared, a second time.
        tile_similar, tile_positives = tl.reduce((tl.where(same, s, 0.0), tl.where(same, 1.0, 0.0)), 1, _add_pairs)
        similar += tile_similar
        positives += tile_positives

    output = split * n + rows
    plane = splits * n
    if chunk == 0:
        tl.store(statistics + 2 * plane + output, similar * scale, mask=rows < n)
        tl.store(statistics + 3 * plane + output, positives, mask=rows < n)
    if BANK:
        total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        first, last = share(m, split, splits, BLOCK_N)
        for start in range(first, last, BLOCK_N):
            keys = start + tl.arange(0, BLOCK_N)
            key_labels = tl.load(bank_y + keys, mask=keys < m, other=-1)
            filled = key_labels >= 0
            s, key_tile = similarities(
                anchors, z, tile * BLOCK_M, rows < n, z_stride, bank_z, start, filled, bank_stride, columns, d,
                BLOCK_K, PRECISION,
            )  # fmt: skip
            counted = filled[None, :]
            if not OWN_LABEL:
                counted = counted & (labels[:, None] != key_labels[None, :])
            p, decay, peak, mass = _fold(tl.where(counted, s, float("-inf")), scale, peak, mass, SHIFT)
            if GRADIENT:
                total = tl.dot(p.to(anchors.dtype), key_tile, total * decay[:, None], input_precision=PRECISION)
        if GRADIENT:
            pointers = row_pointers(values + split.to(tl.int64) * n * d, tile * BLOCK_M, d, columns, BLOCK_M)
            tl.store(pointers, total, mask=(rows < n)[:, None] & (columns < d)[None, :])
    if chunk == 0:
        tl.store(statistics + output, peak, mask=rows < n)
        tl.store(statistics + plane + output, mass, mask=rows < n)


@triton.jit(do_not_specialize=["n", "splits"])
def _combine(
    z, statistics, log_denominator, positive_weight, partial, counter, loss, factor, n, d, z_stride, splits,
    inverse_temperature, unit, MEAN: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """log₂ D_i · unit (n,), 1/|P_i| (n,), the loss, and the factor 1/τ (over the anchors that count, for the mean) of dz."""
    tile, tiles = tl.program_id(0), tl.num_programs(0)
    rows = tile * BLOCK + tl.arange(0, BLOCK)
    valid = rows < n
    plane = splits * n
    peak = tl.full((BLOCK,), float("-inf"), tl.float32)
    for split in range(splits):
        peak = tl.maximum(peak, tl.load(statistics + split * n + rows, mask=valid, other=0.0))
    finite_peak = tl.where(peak == float("-inf"), 0.0, peak)
    mass = tl.zeros((BLOCK,), tl.float32)
    similar = tl.zeros((BLOCK,), tl.float32)
    positives = tl.zeros((BLOCK,), tl.float32)
    for split in range(splits):
        share_of_row = statistics + split * n + rows
        weight = tl.exp2(tl.load(share_of_row, mask=valid, other=0.0) - finite_peak)
        mass += weight * tl.load(share_of_row + plane, mask=valid, other=0.0)
        similar += tl.load(share_of_row + 2 * plane, mask=valid, other=0.0)
        positives += tl.load(share_of_row + 3 * plane, mask=valid, other=0.0)
    log2_denominator = finite_peak + tl.log2(mass)
    anchor = positives > 0
    # 0·z is NaN where z is not finite: such a row reaches the loss even if no similarity shows it.
    losses = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, d, BLOCK_D):
        losses += tl.sum(load_rows(z, tile * BLOCK, valid, z_stride, start + tl.arange(0, BLOCK_D), d) * 0.0, 1)
    losses += tl.where(anchor, (log2_denominator - similar / tl.maximum(positives, 1.0)) * LN2, 0.0)
    tl.store(log_denominator + rows, log2_denominator * unit, mask=valid)
    tl.store(positive_weight + rows, tl.where(anchor, 1.0 / tl.maximum(positives, 1.0), 0.0), mask=valid)
    tl.store(partial + tile, tl.sum(tl.where(valid, losses, 0.0)))
    tl.store(partial + tiles + tile, tl.sum(anchor.to(tl.float32)))
    if last_to_finish(counter, tiles):
        total = tl.zeros((BLOCK,), tl.float32)
        count = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, tiles, BLOCK):
            parts = start + tl.arange(0, BLOCK)
            total += tl.load(partial + parts, mask=parts < tiles, other=0.0, cache_modifier=".cg")
            count += tl.load(partial + tiles + parts, mask=parts < tiles, other=0.0, cache_modifier=".cg")
        divisor = 1.0
        if MEAN:
            divisor = tl.maximum(tl.sum(count), 1.0)
        tl.store(loss, tl.sum(total) / divisor)
        tl.store(factor, inverse_temperature / divisor)


@triton.jit(do_not_specialize=["n", "splits"])
def _batch_gradient(
    z, y, log2_denominator, weight, statistics, values, factor, dz, n, d, z_stride, splits, scale,
    BANK: tl.constexpr, PAIRED: tl.constexpr, POSITIVES: tl.constexpr, SHIFT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """dz (n, d) from the bank's values and one visit of the batch's pairs.

    With POSITIVES `weight` (n,) is 1/|P_i| and w_i says whether it is there; without, it is w_i itself.
    """
    tile, chunk = tl.program_id(0), tl.program_id(1)
    rows = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    anchors = load_rows(z, tile * BLOCK_M, rows < n, z_stride, columns, d)
    labels = _labels(y, rows, n, PAIRED)
    log2_d, w, positive = _row_weights(log2_denominator, weight, rows, n, POSITIVES)
    magnified: tl.constexpr = 2.0**SHIFT
    total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    if BANK:
        for split in range(splits):
            exponent = tl.load(statistics + split * n + rows, mask=rows < n, other=0.0) - log2_d
            part = load_rows(values + tl.cast(split, tl.int64) * n * d, tile * BLOCK_M, rows < n, d, columns, d)
            total += (w * magnified * tl.exp2(exponent))[:, None] * part
    for start in range(0, n, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        s, key_tile = similarities(
            anchors, z, tile * BLOCK_M, rows < n, z_stride, z, start, keys < n, z_stride, columns, d, BLOCK_K, PRECISION
        )
        key_log2_d, key_w, key_positive = _row_weights(log2_denominator, weight, keys, n, POSITIVES)
        g = w[:, None] * tl.exp2(s * scale - log2_d[:, None])
        g += key_w[None, :] * tl.exp2(s * scale - key_log2_d[None, :])
        if POSITIVES:
            same = labels[:, None] == _labels(y, keys, n, PAIRED)[None, :]
            g -= tl.where(same, positive[:, None] + key_positive[None, :], 0.0)
        g = tl.where((keys < n)[None, :] & (rows[:, None] != keys[None, :]), g * magnified, 0.0)
        total = tl.dot(g.to(anchors.dtype), key_tile, total, input_precision=PRECISION)
    total *= tl.load(factor) / magnified
    inside = (rows < n)[:, None] & (columns < d)[None, :]
    tl.store(row_pointers(dz, tile * BLOCK_M, d, columns, BLOCK_M), total, mask=inside)


@triton.jit
def _row_weights(log2_denominator, weight, rows, n, POSITIVES: tl.constexpr):
    """log₂ D, w and 1/|P| of some rows. An empty denominator stands as +inf, so that its row has no P at all."""
    log2_d = tl.load(log2_denominator + rows, mask=rows < n, other=0.0)
    given = tl.load(weight + rows, mask=rows < n, other=0.0)
    w = given
    if POSITIVES:
        w = (given > 0).to(tl.float32)
    return tl.where(log2_d == float("-inf"), float("inf"), log2_d), w, given


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
    _sweep[grid](
        z, call.y, bank_z, call.bank_y, statistics, values, counter,
        *z.shape[:1], len(bank_z), z.shape[1], z.stride(0), bank_z.stride(0), call.scale,
        OWN_LABEL=call.mode.own_label, GRADIENT=gradient, **call.shared,
    )  # fmt: skip
    return statistics, values, counter


COMBINE_ROWS = 128


def _combine_shares(
    call: _Launch, statistics: Tensor, counter: Tensor, mean: bool, unit: float = 1.0
) -> tuple[Tensor, ...]:
    z = call.z
    rows = _empty((2, len(z)), dtype=torch.float32, device=z.device)
    tiles = triton.cdiv(len(z), COMBINE_ROWS)
    partial = _empty((2, tiles), dtype=torch.float32, device=z.device)
    loss, factor = (_empty((), dtype=torch.float32, device=z.device) for _ in range(2))
    _combine[tiles,](
        z, statistics, rows[0], rows[1], partial, counter, loss, factor, *z.shape, z.stride(0), call.splits,
        1 / call.temperature, unit, MEAN=mean, BLOCK=COMBINE_ROWS, BLOCK_D=64,
    )  # fmt: skip
    return loss, factor, rows[0], rows[1]


def _gradient(
    call: _Launch, statistics: Tensor, values: Tensor, log2_denominator: Tensor, weight: Tensor, factor: Tensor,
    positives: bool,
) -> Tensor:  # fmt: skip
    dz = _empty(call.z.shape, dtype=call.z.dtype, device=call.z.device)
    _batch_gradient[call.row_tiles, call.chunks](
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
        return loss, z.new_empty(0)
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
    return _gradient(
        call, statistics, values, log_denominator * LOG2E.value, weight, largest / temperature, positives=False
    )


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
            for mode, rule in MODES.items():
                given = constexprs | {"BANK": rule.bank, "PAIRED": rule.paired}
                sweep = given | {"OWN_LABEL": rule.own_label, "GRADIENT": True}
                yield aot_case(f"sweep-{mode}-{name}", _sweep, types, sweep, tile)
                batch = given | {"POSITIVES": True}
                yield aot_case(f"batch-{mode}-{name}", _batch_gradient, types, batch, tile)
