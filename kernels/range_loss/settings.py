"""Tiles of pairs and of rows: no product here is for a matrix unit."""

from ..host.chips import FAMILIES, Tile

# Rows, keys, columns, and chunk of a sum.
RANGE_PAIRS = {"cpu": Tile(16, 32, 0, 16, 4, 1), **dict.fromkeys(FAMILIES, Tile(16, 128, 0, 8, 4, 1))}
RANGE_ROWS = Tile(32, 0, 64, 0, 4, 1)
