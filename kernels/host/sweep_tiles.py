"""Tiles of a sweep over pairs of rows, for every engine that multiplies a tile of S and then G K."""

from .chips import KINDS, TRITON, WIDE, Tile

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
# On sm_90 bfloat16 products run at sixteen times the rate of multiply-adds in float32, and six of them replace one: a
# float32 number is the sum of three bfloat16 ones, and the products left out lie below 2^-24 of the whole. Tensor cores
# truncate where they add: no more than 128 numbers are summed there, and Triton adds the sum to the rest with a rounded
# addition. Not on sm_80, where every warp splits both operands, which costs what it saves; nor on sm_100, for which
# Triton 3.6 compiles it to nothing.
if TRITON >= (3, 6):
    SWEEP_TILES |= {
        ("sm90", "float32", 64): Tile(128, 64, 64, 64, 8, 2, precision="bf16x6"),
        # ENSC, n 8192, d 256, 262144 bank rows: 49.8 ms where 128 columns at a time, S computed for each, took 83.3
        # (H100, 2026-11-27), though this spills up to 592 bytes a thread.
        ("sm90", "float32", WIDE): Tile(128, 64, 256, 32, 8, 2, precision="bf16x6"),
    }
    if TRITON < (3, 9):  # which spills hundreds of bytes here
        SWEEP_TILES["sm90", "float32", 128] = Tile(128, 64, 128, 128, 8, 2, precision="bf16x6")
