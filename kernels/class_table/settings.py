"""How the engine is cut: rows of a tile, warps, and which sums sit beside the rows."""

from functools import cache
from typing import NamedTuple

import triton

MOST_CLASSES, MOST_COLUMNS = 64, 2048
SMALL_BATCH = 128  # rows that one program does as fast as more, with their launches, would
HELD_SUMS = 2**14  # numbers of (M, D) that a program keeps beside its rows
HELD_ROWS = 2**13  # numbers of a tile of rows
TABLE_TILE = 2**12  # numbers of a tile of a table
FINISH_COLUMNS = 64
WARPS = 16  # of a multiprocessor: registers for a whole tile and its sums


class Cut(NamedTuple):
    """Of one shape: classes and columns as powers of two, rows and warps of a program, sums held or left to `sums`."""

    k: int
    m: int
    d: int
    r: int
    warps: int
    parts: int
    fused: bool
    block_d: int  # columns of a chunk of a table
    sums_block_d: int


@cache
def cut(num_classes: int, d: int, kinds: int, heavy: bool) -> Cut:
    """`heavy` losses hold more than x and one offset of it."""
    width = max(16, triton.next_power_of_2(d))
    k = max(8, triton.next_power_of_2(num_classes))
    m = max(16, triton.next_power_of_2(max(1, kinds) * k))
    fused = m * width <= HELD_SUMS
    if not fused:
        k = max(16, k)
        m = triton.next_power_of_2(max(1, kinds) * k)
    r = max(16, min(64, HELD_ROWS // width))
    warps = max(1, min(16 if heavy else 8, r * width // 512))
    parts = max(1, min(warps, width // 16))
    return Cut(k, m, width, r, warps, parts, fused, min(width, TABLE_TILE // k), min(width, 64))
