"""The tile of a batch."""

from ..host.chips import Tile

ENQUEUE_ROWS = Tile(16, 0, 256, 0, 4, 1)
BLOCKS = {"BLOCK_M": ENQUEUE_ROWS.block_m, "BLOCK_D": ENQUEUE_ROWS.block_d}
