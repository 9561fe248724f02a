"""The gradient of rows from that of their directions."""

import triton
import triton.language as tl

from ..common.pair_tiles import load_rows, store_rows
from .rows import unit_rows


@triton.jit(do_not_specialize=["n", "parts", "programs", "blocks"])
def chain_rule_rows(
    x, gradients, partial, loss, dx, n, d, x_stride, parts, programs, loss_scale, gradient_scale, taking, blocks,
    BY_PAIRS: tl.constexpr, STANDARDISE: tl.constexpr, LOSS: tl.constexpr, GRADIENT: tl.constexpr, BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dx (n, d) from the parts of dU (parts, n, d); the first program also adds up the loss."""
    first = tl.program_id(0) * BLOCK
    if BY_PAIRS:
        counts = tl.zeros((1024,), tl.float32)
        for start in range(0, blocks, 1024):
            places = start + tl.arange(0, 1024)
            counts += tl.load(taking.counts + places, mask=places < blocks, other=0.0)
        taking_part = tl.sum(counts)
        pairs = tl.maximum(taking_part * (taking_part - 1), 1.0)
        loss_scale /= pairs
        gradient_scale /= pairs
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
        if taking is not None:
            label = tl.load(taking.labels + rows, mask=rows < n, other=0)
            gradient = tl.where((label < 0)[:, None], 0.0, gradient)
        store_rows(dx, first, d, columns, d, n, gradient)
    if LOSS and first == 0:
        losses = tl.zeros((1024,), tl.float32)
        for start in range(0, programs, 1024):
            places = start + tl.arange(0, 1024)
            losses += tl.load(partial + places, mask=places < programs, other=0.0)
        tl.store(loss, tl.sum(losses) * loss_scale)
