"""The tile of whole rows."""

from ..host.chips import Tile

DIRECTION_ROWS = Tile(4096, 0, 0, 0, 8, 1)  # numbers of a tile of whole rows
