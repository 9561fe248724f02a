"""Tiles of the contrastive kernels, and the powers of two that each dtype has room for."""

import torch

from ..host.chips import WIDE, Tile
from ..host.sweep_tiles import SWEEP_TILES

# The contrastive sweep over the batch holds more a pair than the one over the bank: where that spills, half the columns
# at a time.
BATCH_TILES = SWEEP_TILES | {
    ("sm80", "half", 256): Tile(64, 64, 128, 128, 8, 2),
    ("sm89", "half", 256): Tile(64, 64, 128, 128, 8, 2),
    ("sm90", "half", 256): Tile(128, 64, 256, 256, 8, 3),
    # SupCon, n 16384, d 512: 2788 µs where 64 keys at a time took 3269 (H100, 2026-11-27), though it spills 704 bytes.
    ("sm90", "half", WIDE): Tile(128, 128, 256, 64, 8, 3),
    ("sm100", "half", 256): Tile(64, 64, 256, 256, 8, 2, 255),
}
COMBINE_ROWS, COMBINE_COLUMNS, COMBINE_WARPS = 128, 64, 4
FINISH_BLOCK, FINISH_WARPS = 256, 4
ADD_BLOCK, ADD_WARPS = 1024, 4


def weight_shift(dtype: torch.dtype) -> int:
    """How many powers of two weights may reach in the sweep: what float16 has left above 2, and in bfloat16 room for a
    low temperature, with enough left for the sum over a large bank of long rows. None in float32, whose exponents
    would lose the digits that a shift takes."""
    return {torch.float16: 14, torch.bfloat16: 40}.get(dtype, 0)


def product_raise(dtype: torch.dtype) -> int:
    """The powers of two by which P stands above itself in the gradient's product: what float16 has left above 2."""
    return 14 if dtype == torch.float16 else 0


def largest_bound(dtype: torch.dtype) -> float:
    """The largest bound on logits, in base 2, under which they need no running maximum: weights stay above 2^-16 in
    float16, in the upper half of its numbers below the normal ones, and above 2^-120 in the others."""
    return {torch.float16: 15.0, torch.bfloat16: 80.0}.get(dtype, 60.0)
