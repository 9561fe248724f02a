"""Tiles of the sweep over pairs."""

from ..host.chips import Tile
from ..host.sweep_tiles import SWEEP_TILES

# The accumulator of sm_100 lies in its tensor memory, and the pairwise sweep holds little beside it.
PAIR_TILES = SWEEP_TILES | {
    ("sm89", "half", 64): Tile(64, 64, 64, 64, 4, 3),
    ("sm100", "half", 64): Tile(128, 64, 64, 64, 8, 2),
    ("sm100", "half", 256): Tile(128, 64, 256, 256, 8, 2),
}
