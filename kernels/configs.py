"""Tile settings of every engine, by chip family, kind or bytes of an element, and width: one committed table.

Nothing tunes itself at a user's first step. The settings were found by compiling ahead of time: the largest that spill
nothing on sm_80, sm_90 and sm_100, with the matrix unit in use; `python -m bench audit` shows what they take of a
chip. None has been timed on one.
"""

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import torch
import triton

FAMILIES = ("sm80", "sm89", "sm90", "sm100", "cdna")
KINDS = {"half": "tf32", "tf32": "tf32", "float32": "ieee"}  # of products, and the precision where nothing says more
WIDE = 2**30  # rows of any width, multiplied chunk by chunk
# Of a thread, where ptxas would choose fewer, to have more programs at a time, and spill: all, and as many as let two
# programs of 8 warps run at a time. AMD's compiler takes no such limit.
ALL_REGISTERS = {family: None if family == "cdna" else 255 for family in ("cpu", *FAMILIES)}
HALF_REGISTERS = {family: None if family == "cdna" else 128 for family in ("cpu", *FAMILIES)}
TRITON = tuple(int(part) for part in triton.__version__.split(".")[:2])
# Before 3.8 Triton refuses a float32 product over fewer than 16 rows.
LEAST_ROWS = 8 if TRITON >= (3, 8) else 16


@cache
def chip(device: torch.device) -> str:
    """The family whose tile settings fit: by matrix unit and shared memory. `cpu` is Triton's interpreter."""
    if device.type != "cuda":
        return "cpu"
    if torch.version.hip:
        return "cdna"
    major, minor = torch.cuda.get_device_capability(device)
    return {8: "sm80" if minor in (0, 7) else "sm89", 9: "sm90", 10: "sm100"}.get(major, "sm89")


def launch_options(num_warps: int, num_stages: int = 1, max_registers: int | None = None) -> dict[str, int]:
    """Keywords of a launch; the limit only where it is one, for AMD's compiler knows none. Products and sums are fused,
    as Triton does by itself up to 3.9, which warns that its default will change."""
    limit = {} if max_registers is None else {"maxnreg": max_registers}
    return {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True, **limit}


class Tile(NamedTuple):
    """Anchors by keys by output columns; products are summed over chunks of `block_k` columns.

    `max_registers` a thread where ptxas would choose fewer, to have more programs at a time, and spill. `precision`, as
    Triton names it, is that of products of float32 operands.
    """

    block_m: int
    block_n: int
    block_d: int
    block_k: int
    num_warps: int
    num_stages: int
    max_registers: int | None = None
    precision: str = "tf32"

    @property
    def constexprs(self) -> dict[str, int | str]:
        blocks = {"BLOCK_M": self.block_m, "BLOCK_N": self.block_n, "BLOCK_D": self.block_d, "BLOCK_K": self.block_k}
        return blocks | {"PRECISION": self.precision}

    @property
    def options(self) -> dict[str, int]:
        return launch_options(self.num_warps, self.num_stages, self.max_registers)


# Pairs of rows: (family, product, widest row) of a sweep over keys, S tile and G K in one loop. The unit of sm_90 gets
# no side below 64, see issue 1905 of pytorch/helion.
SWEEP_TILES = {
    **{("cpu", kind, 32): Tile(16, 16, 32, 32, 4, 1, None, precision) for kind, precision in KINDS.items()},
    **{("cpu", kind, WIDE): Tile(16, 16, 64, 32, 4, 1, None, precision) for kind, precision in KINDS.items()},
    ("sm80", "half", 64): Tile(64, 64, 64, 64, 8, 2),
    ("sm80", "half", 128): Tile(64, 64, 128, 128, 8, 2),
    ("sm80", "half", 256): Tile(64, 64, 256, 256, 8, 2),
    ("sm80", "half", WIDE): Tile(64, 64, 128, 64, 8, 2),
    ("sm80", "tf32", 128): Tile(64, 32, 128, 128, 8, 2),
    ("sm80", "tf32", WIDE): Tile(64, 32, 128, 32, 8, 2),
    ("sm80", "float32", WIDE): Tile(64, 32, 128, 32, 8, 2, 255, precision="ieee"),
    ("sm89", "half", 64): Tile(64, 64, 64, 64, 8, 2),
    ("sm89", "half", 128): Tile(64, 64, 128, 128, 8, 2),
    ("sm89", "half", 256): Tile(64, 32, 256, 256, 8, 2),
    ("sm89", "half", WIDE): Tile(64, 64, 128, 64, 8, 2),
    ("sm89", "tf32", 128): Tile(64, 32, 128, 128, 8, 2),
    ("sm89", "tf32", WIDE): Tile(64, 32, 128, 32, 8, 2),
    ("sm89", "float32", WIDE): Tile(64, 32, 128, 32, 8, 2, precision="ieee"),
    ("sm90", "half", 64): Tile(128, 64, 64, 64, 8, 3),
    ("sm90", "half", 128): Tile(128, 64, 128, 128, 8, 3),
    ("sm90", "half", 256): Tile(128, 64, 256, 256, 8, 3),
    ("sm90", "half", WIDE): Tile(128, 64, 256, 64, 8, 3),
    ("sm90", "tf32", 128): Tile(128, 64, 128, 128, 8, 2),
    ("sm90", "tf32", WIDE): Tile(64, 64, 64, 64, 4, 2),
    ("sm90", "float32", WIDE): Tile(64, 32, 128, 32, 8, 2, precision="ieee"),
    ("sm100", "half", 64): Tile(128, 64, 64, 64, 8, 3, 255),
    ("sm100", "half", 128): Tile(128, 64, 128, 128, 8, 3, 255),
    ("sm100", "half", 256): Tile(64, 64, 256, 256, 8, 2),
    ("sm100", "half", WIDE): Tile(128, 64, 128, 64, 8, 3, 255),
    ("sm100", "tf32", 128): Tile(128, 64, 128, 128, 8, 2),
    ("sm100", "tf32", WIDE): Tile(64, 64, 64, 64, 4, 2),
    ("sm100", "float32", WIDE): Tile(32, 32, 128, 32, 4, 2, precision="ieee"),
    ("cdna", "half", 64): Tile(64, 64, 64, 64, 8, 1),
    ("cdna", "half", 128): Tile(64, 64, 128, 128, 8, 1),
    ("cdna", "half", 256): Tile(64, 32, 256, 256, 8, 1),
    ("cdna", "half", WIDE): Tile(64, 64, 128, 64, 8, 1),
    ("cdna", "float32", WIDE): Tile(64, 32, 128, 32, 8, 1, precision="ieee"),
}
# The accumulator of sm_100 lies in its tensor memory, and the pairwise sweep holds little beside it.
PAIR_TILES = SWEEP_TILES | {
    ("sm89", "half", 64): Tile(64, 64, 64, 64, 4, 3),
    ("sm100", "half", 64): Tile(128, 64, 64, 64, 8, 2),
    ("sm100", "half", 256): Tile(128, 64, 256, 256, 8, 2),
}
# The contrastive sweep over the batch holds more a pair than the one over the bank: where that spills, half the columns
# at a time.
BATCH_TILES = SWEEP_TILES | {
    ("sm80", "half", 256): Tile(64, 64, 128, 128, 8, 2),
    ("sm89", "half", 256): Tile(64, 64, 128, 128, 8, 2),
    ("sm90", "half", 256): Tile(128, 64, 256, 256, 8, 3),
    ("sm100", "half", 256): Tile(64, 64, 256, 256, 8, 2, 255),
}
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
# On sm_90 bfloat16 products run at sixteen times the rate of multiply-adds in float32, and six of them replace one: a
# float32 number is the sum of three bfloat16 ones, and the products left out lie below 2^-24 of the whole. Tensor cores
# truncate where they add: no more than 128 numbers are summed there, and Triton adds the sum to the rest with a rounded
# addition. Not on sm_80, where every warp splits both operands, which costs what it saves; nor on sm_100, for which
# Triton 3.6 compiles it to nothing.
if TRITON >= (3, 6):
    for _table in (SWEEP_TILES, PAIR_TILES, BATCH_TILES):
        _table |= {
            ("sm90", "float32", 64): Tile(128, 64, 64, 64, 8, 2, precision="bf16x6"),
            ("sm90", "float32", WIDE): Tile(128, 64, 128, 32, 8, 2, precision="bf16x6"),
        }
        if TRITON < (3, 9):  # which spills hundreds of bytes here
            _table["sm90", "float32", 128] = Tile(128, 64, 128, 128, 8, 2, precision="bf16x6")
    MATRIX_TILES["sm90", "float32", WIDE] = Tile(128, 64, 64, 32, 8, 2, precision="bf16x6")
    MATRIX_GRADIENT_TILES["sm90", "float32", WIDE] = Tile(128, 64, 64, 0, 8, 2, precision="bf16x6")


def pick_tile(table: Mapping[tuple[str, str, int], Tile], family: str, kind: str, d: int) -> Tile:
    """The setting of the narrowest width that holds rows of `d` columns."""
    return table[family, kind, min(width for name, of, width in table if (name, of) == (family, kind) and width >= d)]


# What has no product for a matrix unit takes the same tile everywhere: rows, keys, columns, and chunk of a sum.
DIFFERENCES = Tile(32, 64, 32, 8, 8, 1)
RANGE_PAIRS = {"cpu": Tile(16, 32, 0, 16, 4, 1), **dict.fromkeys(FAMILIES, Tile(16, 128, 0, 8, 4, 1))}
RANGE_ROWS = Tile(32, 0, 64, 0, 4, 1)
ANTI_CENTER_ROWS = Tile(8, 0, 256, 0, 4, 1)
DIRECTION_ROWS = Tile(4096, 0, 0, 0, 8, 1)  # numbers of a tile of whole rows
SURVEY_ROWS = Tile(64, 0, 64, 0, 4, 1)
ENQUEUE_ROWS = Tile(16, 0, 256, 0, 4, 1)


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
MOST_PROGRAMS = 512  # whose partial sums a kernel adds up at once


class EmbeddingTile(NamedTuple):
    """Rows, columns of a chunk, warps and stages of Ad-Corre's first sweep; rows, of k embeddings each, and warps of
    the second."""

    block_n: int
    block_d: int
    num_warps: int
    num_stages: int
    row_block_n: int
    row_warps: int


EMBEDDING_TILES = {  # by bytes of an element and columns rounded up to a power of two
    (2, 16): EmbeddingTile(64, 16, 4, 2, 128, 8),
    (2, 32): EmbeddingTile(64, 32, 4, 2, 64, 8),
    (2, 64): EmbeddingTile(32, 64, 4, 2, 32, 8),
    (2, 128): EmbeddingTile(64, 128, 8, 2, 16, 8),
    (2, 256): EmbeddingTile(32, 256, 8, 2, 8, 8),
    (2, 512): EmbeddingTile(32, 256, 16, 2, 4, 8),
    (2, 1024): EmbeddingTile(16, 256, 16, 2, 2, 8),
    (4, 16): EmbeddingTile(64, 16, 4, 2, 64, 8),
    (4, 32): EmbeddingTile(64, 32, 4, 2, 32, 8),
    (4, 64): EmbeddingTile(32, 64, 4, 2, 16, 8),
    (4, 128): EmbeddingTile(32, 128, 8, 2, 8, 8),
    (4, 256): EmbeddingTile(16, 128, 8, 2, 4, 8),
    (4, 512): EmbeddingTile(16, 128, 16, 2, 2, 8),
    (4, 1024): EmbeddingTile(16, 128, 8, 2, 1, 8),
}

SCALE_BLOCK, SCALE_WARPS, SCALE_PROGRAMS = 2048, 4, 8  # elements; programs to a multiprocessor
