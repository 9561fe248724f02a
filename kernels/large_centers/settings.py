"""How the engine is cut, by width: columns of a chunk, rows of a tile, warps. None has been timed on a chip.

Found by compiling ahead of time (`python -m bench audit`): as many rows as spill nothing.
"""

import math
from functools import cache
from typing import NamedTuple

import triton

from ..host.chips import launch_options

WARPS = 16  # of a multiprocessor that `rows` fills


class Cut(NamedTuple):
    """R rows by BLOCK_D columns."""

    r: int
    block_d: int
    warps: int

    def constants(self, d: int) -> dict[str, int]:
        return {"d": d, "R": self.r, "BLOCK_D": self.block_d, **launch_options(self.warps)}


@cache
def row_cut(d: int) -> Cut:
    """Whole rows up to 2048 columns: a warp takes 512 of them, so that few add up a row."""
    block_d = min(2048, max(16, triton.next_power_of_2(d)))
    warps = max(1, block_d // 512)
    r = 1 if d > block_d else min(16, max(2, 1024 * warps // block_d))
    return Cut(r, block_d, warps)


@cache
def class_cut(d: int) -> Cut:
    """Narrow chunks: a class has few rows, and its program few columns."""
    block_d = min(256, max(16, triton.next_power_of_2(d)))
    return Cut(16, block_d, 4 if block_d > 64 else 1)


def slice_rows(n: int) -> int:
    """Rows of a slice. The longest program then visits about twice as many rows, and as many slices."""
    return max(16, 3 * math.isqrt(n) // 4)
