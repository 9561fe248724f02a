"""Tiles of the class table."""

from typing import NamedTuple

from ..host.chips import ALL_REGISTERS, FAMILIES, launch_options


class ClassTile(NamedTuple):
    """Rows of one program of the class table, columns of a chunk, warps, the (16, d) sums that fit beside them, and the
    most registers, as for :class:`Tile`."""

    block_n: int
    block_d: int
    num_warps: int
    accumulators: int = 0
    max_registers: int | None = None

    @property
    def options(self) -> dict[str, int]:
        return launch_options(self.num_warps, max_registers=self.max_registers)


_CLASS_TILES = {  # by bytes of an element and columns rounded up to a power of two
    **{(size, d): ClassTile(16, d, 4, 8) for size in (2, 4) for d in (16, 32, 64)},
    **{(size, 128): ClassTile(16, 128, 8, 8) for size in (2, 4)},
    **{(size, 256): ClassTile(16, 128, 8, 4) for size in (2, 4)},
    (2, 512): ClassTile(16, 256, 8, 2),
    (4, 512): ClassTile(8, 128, 8, 2),
    **{(size, 2048): ClassTile(8, 128, 8) for size in (2, 4)},
}
CLASS_TILES = {(family, *key): tile for family in ("cpu", *FAMILIES) for key, tile in _CLASS_TILES.items()}
CLASS_TILES |= {
    (family, size, 1024): ClassTile(8, 128, 8, max_registers=most)
    for family, most in ALL_REGISTERS.items()
    for size in (2, 4)
}
CLASS_TILES |= {(family, 4, 512): ClassTile(8, 128, 8, 2, 255) for family in ("sm80", "sm100")}
# A classifier beside a loss that pushes: offsets and operands together take the registers of more than 8 rows.
PUSHED_TILES = {(4, 256): ClassTile(8, 128, 8), (2, 512): ClassTile(8, 128, 8)}
# Where sums are left to a second launch: the first's tile and the most entries of its chunk of the table, by bytes of
# an element; the second's tile by classes too.
STORED_TILES = {family: ClassTile(8, 128, 8, 0, most) for family, most in ALL_REGISTERS.items()}
STORED_ELEMENTS = {2: 4096, 4: 2048}
SUMS_TILES = {
    (family, size, classes): ClassTile(rows, columns, 8, 0, most)
    for family, most in ALL_REGISTERS.items()
    for size, rows in ((2, 32), (4, 16))
    for classes, columns in ((16, 64), (32, 64), (64, 32))
}
# 64 classes are enough rows for the unit of sm_90, which then gets no other side below 64 either.
SUMS_TILES |= {("sm90", size, 64): ClassTile(rows, 64, 4) for size, rows in ((2, 32), (4, 16))}
SLAB_CLASSES, SLAB_COLUMNS = 16, 1024  # sums of no more stay in the caches while a program adds to them
SCALES_WARPS = 16  # with 8 a register is spilled across the call of a float64 division
