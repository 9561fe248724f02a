"""Tiles of the primitives. What has no product for a matrix unit takes the same everywhere."""

from ..host.chips import FAMILIES, KINDS, TRITON, WIDE, Tile

# The correlation matrix; its gradient's product is never of half-precision operands, and holds two tiles of g.
MATRIX_TILES = {
    **{("cpu", kind, WIDE): Tile(16, 16, 32, 16, 4, 1, None, precision) for kind, precision in KINDS.items()},
    **{(family, "half", WIDE): Tile(64, 64, 128, 64, 4, 3) for family in FAMILIES},
    **{(family, "tf32", WIDE): Tile(64, 64, 64, 32, 4, 2) for family in FAMILIES},
    **{(family, "float32", WIDE): Tile(64, 32, 64, 32, 8, 2, precision="ieee") for family in FAMILIES},
}
MATRIX_GRADIENT_TILES = MATRIX_TILES | {
    (family, kind, WIDE): Tile(64, 64, 64, 0, 8, 2) for family in FAMILIES for kind in ("half", "tf32")
}
if TRITON >= (3, 6):  # as the sweeps over pairs of rows
    MATRIX_TILES["sm90", "float32", WIDE] = Tile(128, 64, 64, 32, 8, 2, precision="bf16x6")
    MATRIX_GRADIENT_TILES["sm90", "float32", WIDE] = Tile(128, 64, 64, 0, 8, 2, precision="bf16x6")
DIFFERENCES = Tile(32, 64, 32, 8, 8, 1)  # rows, keys, columns, and chunk of a sum
ANTI_CENTER_ROWS = Tile(8, 0, 256, 0, 4, 1)
