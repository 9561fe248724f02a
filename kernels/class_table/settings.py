"""How the engine is cut, by shape and chip: rows of a tile, warps, and which sums sit beside the rows.

Found by compiling ahead of time (`python -m bench audit`): as many rows as leave registers to the sums, 16 warps on a
multiprocessor where the loss is a center's alone. None has been timed on a chip.
"""

from functools import cache
from typing import NamedTuple

import triton

from ..host.chips import TRITON, launch_options

MOST_CLASSES, MOST_COLUMNS = 64, 2048
SMALL_BATCH = 128  # rows that one program does as fast as more, with their launches, would
QUADRATIC_CLASSES = 16  # the means of the others are C² d numbers of work: more classes are given more programs
HELD_SUMS = 2**14  # numbers of (M, D) that a program keeps beside its rows
ROWS = 2**13  # numbers of a tile of rows
WIDE_ROWS = {"sm90": 2**14} if TRITON < (3, 8) else {}  # of centers alone that repel, by 16 warps
TABLE_TILE = 2**12  # numbers of a tile of a table
# Numbers of the class weights, (classes, D), that products find in shared memory, by bytes of an element; more of them
# make a large classifier. Those of float32 are split in pieces, and put there again for every tile of rows.
HEAD_NUMBERS = {
    **{(family, 2): 2**15 for family in ("cpu", "sm90", "sm100")},
    **{(family, 2): 2**14 for family in ("sm80", "sm89")},
    **{(family, 4): 2**14 for family in ("cpu", "sm80", "sm89", "sm90", "sm100")},
    **{("cdna", size): 2**13 for size in (2, 4)},
}
HELD_PIECES = {"cpu": 2**13, "sm90": 2**13, "sm100": 2**13}  # numbers in float32 that are split once for all tiles
TABLE_OPTIONS = launch_options(8)
SUMS_ROWS, SUMS_COLUMNS, SUMS_OPTIONS = 32, 64, launch_options(4)
FINISH_COLUMNS, FINISH_OPTIONS = 32, launch_options(4)
PROGRAM_WARPS = 16  # of a multiprocessor


class Cut(NamedTuple):
    """Of one shape: K classes, M = kinds K sums, D columns, all powers of two; R rows in P parts; how many warps."""

    k: int
    m: int
    d: int
    r: int
    p: int
    warps: int
    fused: bool  # the sums are held, else left to `sums`
    held: bool  # so are the class weights
    block_d: int  # columns of a chunk of a table


@cache
def cut(family: str, element_size: int, num_classes: int, d: int, kinds: int, repels: bool) -> Cut:
    """How a call is cut whose programs take `kinds` sums; by twice the warps where its only loss `repels`."""
    width = max(16, triton.next_power_of_2(d))
    k = max(8, triton.next_power_of_2(num_classes))
    m = max(16, triton.next_power_of_2(max(1, kinds) * k))
    fused = m * width <= HELD_SUMS
    if not fused:
        k = max(16, k)
        m = triton.next_power_of_2(max(1, kinds) * k)
    r = max(16 if fused else 8, min(64, (WIDE_ROWS.get(family, ROWS) if repels else ROWS) // width))
    warps = max(1, min(16, r * width // (512 if repels else 1024)))
    p = max(1, min(warps, 8 if repels else 16, width // 16))
    held = element_size < 4 or max(16, k) * width <= HELD_PIECES.get(family, 0)
    return Cut(k, m, width, r, p, warps, fused, held, min(width, TABLE_TILE // k))


def fits(family: str, element_size: int, num_classes: int, d: int) -> bool:
    """Whether the class weights are a small table."""
    numbers = max(16, triton.next_power_of_2(num_classes)) * max(16, triton.next_power_of_2(d))
    return num_classes <= MOST_CLASSES and d <= MOST_COLUMNS and numbers <= HEAD_NUMBERS[family, element_size]
