"""How the engine is cut, by shape and chip: rows of a tile, warps, and which sums sit beside the rows.

Found by compiling ahead of time (`python -m bench audit`): as many rows as leave registers to the sums, 16 warps on a
multiprocessor where the loss is a center's alone. Those beside a time were timed on a chip.
"""

from functools import cache
from typing import NamedTuple

import triton

from ..host.chips import FAMILIES, launch_options

MOST_CLASSES, MOST_COLUMNS = 64, 2048
SMALL_BATCH = 128  # rows that one program does as fast as more, with their launches, would
QUADRATIC_CLASSES = 16  # the means of the others are C² d numbers of work: more classes are given more programs
HELD_SUMS = 2**11  # numbers of (M, D) that a warp keeps beside its rows
TABLE_TILE = 2**12  # numbers of a tile of a table
# Numbers of the class weights, (classes, D), that products find in shared memory, by bytes of an element; more of them
# make a large classifier. Those of float32 are split in pieces, and put there again for every tile of rows.
HEAD_NUMBERS = {
    **{(family, 2): 2**15 for family in ("cpu", "sm90", "sm100")},
    **{(family, 2): 2**14 for family in ("sm80", "sm89")},
    ("cdna", 2): 2**13,
    **{(family, 4): 2**13 for family in ("cpu", *FAMILIES)},
}
HELD_PIECES = {"cpu": 2**12, "sm90": 2**12, "sm100": 2**12}  # numbers in float32 that are split once for all tiles
TABLE_OPTIONS = launch_options(8)
SUMS_ROWS, SUMS_COLUMNS, SUMS_OPTIONS = 32, 64, launch_options(4)
FINISH_COLUMNS, FINISH_OPTIONS = 32, launch_options(8)
PROGRAM_WARPS, HEAD_WARPS = 16, 8  # of a multiprocessor; those of heads keep twice the registers


class RowTile(NamedTuple):
    """Rows of a tile, the parts that their columns are folded in, and warps."""

    block_n: int
    parts: int
    num_warps: int


def _row_tile(width: int, numbers: int, per_warp: int, most_parts: int, classes: int = 16) -> RowTile:
    rows = max(8 if width == MOST_COLUMNS else 16, min(2**10 // classes, numbers // width))
    warps = max(1, min(16, rows * width // per_warp))
    return RowTile(rows, max(1, min(warps, most_parts, width // 16)), warps)


def _head_tile(family: str, width: int, element_size: int, beside: str) -> RowTile:
    """As few rows as a product takes, by few warps, for each does all of the logits, the softmax and the chain rule: by
    a quarter of the warps softmax of 64 columns takes a third of the instructions."""
    warps = max(1, min(8, width * element_size // 128))
    if beside == "repelling":
        warps = max(warps, min(2 * warps, 4))
    elif width == 512 and element_size < 4 and (beside == "" or family == "sm90"):
        warps = 4  # LMCL, n 65536: 279 µs where 8 took 337 (H100, 2026-11-27)
    return RowTile(16, max(1, width // (64 if width >= 512 else 32)), warps)


WIDTHS = [2**k for k in range(4, 12)]  # of rows, by the next power of two
BESIDE = ("", "centers", "lengths", "repelling")  # what takes registers beside a head's logits
# By chip family, width, and classes of a product, whose logits every warp holds: of centers alone, and of one program
# that does all.
ROW_TILES = {
    (family, width, classes): _row_tile(width, 2**13, 1024, 16, classes)
    for family in ("cpu", *FAMILIES)
    for width in WIDTHS
    for classes in (16, 32, 64)
}
# Center loss, n 262144: 3135 µs where 16 warps took 3400 (H100, 2026-11-27).
ROW_TILES["sm90", 2048, 16] = ROW_TILES["sm90", 2048, 16]._replace(num_warps=8)
# Of heads in large batches, by bytes of an element and by what stands beside them.
HEAD_TILES = {
    (family, width, size, beside): _head_tile(family, width, size, beside)
    for family in ("cpu", *FAMILIES)
    for width in WIDTHS[:-1]
    for size in (2, 4)
    for beside in BESIDE
}
# Of centers alone that repel, by bytes of an element too: they hold two offsets of a row beside it, and take twice the
# warps; where that spills nothing, twice the rows too.
REPEL_TILES = {
    (family, width, size): _row_tile(width, 2**13, 512, 8)
    for family in ("cpu", *FAMILIES)
    for width in WIDTHS
    for size in (2, 4)
} | {(family, width, 2): _row_tile(width, 2**14, 1024, 4) for family in ("cpu", *FAMILIES) for width in WIDTHS[:6]}


class Cut(NamedTuple):
    """Of one shape: K classes, M = kinds K sums, D columns, all powers of two, and what a program holds."""

    k: int
    m: int
    d: int
    tile: RowTile
    small_tile: RowTile  # of one program alone, which would wait for more warps
    fused: bool  # the sums are held, else left to `sums`
    held: bool  # so are the class weights
    block_d: int  # columns of a chunk of a table


def cut(family: str, element_size: int, num_classes: int, d: int, kinds: int, beside: str | None, repels: bool) -> Cut:
    """How a call is cut whose programs take `kinds` sums, which has a head with something of BESIDE, or else none, and
    may have centers that repel."""
    width = max(16, triton.next_power_of_2(d))
    k = max(8, triton.next_power_of_2(num_classes))
    m = max(16, triton.next_power_of_2(max(1, kinds) * k))
    tile = small_tile = ROW_TILES[family, width, 16 if beside is None else max(16, k)]
    if beside is not None and width < MOST_COLUMNS:
        beside = beside if repels or k <= 16 else "lengths"
        tile = HEAD_TILES[family, width, element_size, beside]
        while k <= 32 and m <= 64 and tile.num_warps < 8 and m * width > HELD_SUMS * tile.num_warps:
            tile = tile._replace(num_warps=2 * tile.num_warps)  # which hold the sums
        if HELD_SUMS * tile.num_warps < m * width <= HELD_SUMS * small_tile.num_warps:
            tile = small_tile
    elif repels:
        tile = REPEL_TILES[family, width, element_size]
    # At 1024 columns most losses spill some bytes beside the sums, by count: less than a second read of x would cost.
    warps = small_tile.num_warps if beside is None else min(tile.num_warps, small_tile.num_warps)
    fused = m * width <= HELD_SUMS * warps and width < MOST_COLUMNS
    if not fused:
        k = max(16, k)
        m = triton.next_power_of_2(max(1, kinds) * k)
    held = element_size < 4 or max(16, k) * width <= HELD_PIECES.get(family, 0)
    return Cut(k, m, width, tile, small_tile, fused, held, min(width, TABLE_TILE // k))


@cache
def fits(family: str, element_size: int, num_classes: int, d: int) -> bool:
    """Whether the class weights are a small table: of 16 classes at most in float32, whose products take pieces.

    Softmax of 32 (64) classes and 512 float32 columns compiles to 1864 (8048) warp instructions a row that spill 1264
    (13976) bytes a thread (sm_90, Triton 3.8).
    """
    classes, width = max(16, triton.next_power_of_2(num_classes)), max(16, triton.next_power_of_2(d))
    most = MOST_CLASSES if element_size < 4 else 16
    return classes <= most and width <= MOST_COLUMNS and classes * width <= HEAD_NUMBERS[family, element_size]
