"""Tiles of both sweeps, and what is more than a program holds."""

from typing import NamedTuple

from ..host.chips import FAMILIES, launch_options

MOST_CLASS_ELEMENTS = 16384  # K·D of one table of class sums
MOST_CLASSES = 32  # more go to the wgmma of sm_90, see issue 1905 of pytorch/helion on sides below 64, as rows are
MOST_EMBEDDINGS = 16  # rows of a sample, which the second sweep holds at once
TABLE_OPTIONS = launch_options(16)


class EmbeddingTile(NamedTuple):
    """Rows, columns of a chunk, warps and stages of Ad-Corre's first sweep; rows, of k embeddings each, and warps of
    the second."""

    block_n: int
    block_d: int
    num_warps: int
    num_stages: int
    row_block_n: int
    row_warps: int


_TILES = {
    (2, 16): EmbeddingTile(64, 16, 4, 2, 128, 8),
    (2, 32): EmbeddingTile(64, 32, 4, 2, 64, 8),
    (2, 64): EmbeddingTile(32, 64, 4, 2, 32, 8),
    (2, 128): EmbeddingTile(64, 128, 8, 2, 16, 8),
    (2, 256): EmbeddingTile(32, 256, 8, 2, 8, 8),
    (2, 512): EmbeddingTile(32, 256, 16, 2, 4, 8),
    (2, 1024): EmbeddingTile(16, 128, 8, 2, 2, 8),
    (4, 16): EmbeddingTile(64, 16, 4, 2, 64, 8),
    (4, 32): EmbeddingTile(64, 32, 4, 2, 32, 8),
    (4, 64): EmbeddingTile(32, 64, 4, 2, 16, 8),
    (4, 128): EmbeddingTile(32, 128, 8, 2, 8, 8),
    (4, 256): EmbeddingTile(16, 128, 8, 2, 4, 8),
    (4, 512): EmbeddingTile(16, 128, 16, 2, 2, 8),
    (4, 1024): EmbeddingTile(16, 64, 8, 2, 1, 8),  # spills up to 80 bytes where FD and MD are both asked for
}
# By chip family, bytes of an element and columns rounded up to a power of two.
EMBEDDING_TILES = {(family, *key): tile for family in ("cpu", *FAMILIES) for key, tile in _TILES.items()} | {
    # k 7, n 32768: 403 µs where 8 warps in 2 stages took 460; 871 where 2 stages took 925 (H100, 2026-11-27).
    ("sm90", 2, 256): EmbeddingTile(32, 256, 4, 1, 8, 8),
    ("sm90", 2, 512): EmbeddingTile(32, 256, 16, 1, 4, 8),
}
