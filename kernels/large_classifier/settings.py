"""Sizes of chunks and tiles. None has been timed on a chip."""

from functools import cache

import torch

from ..host.chips import launch_options

CHUNK_BYTES = 2**30  # of logits at most: the fewer chunks, the less often dW (C, d) is read and written
CPU_CHUNK_BYTES = 2**24
MEMORY_SHARE = 32  # a chunk takes at most this part of a device's memory
CHUNK_ROWS = 128  # a multiple of the tiles of products
ROW_ALIGNMENT = 64  # entries: rows of logits begin where a cache line does
BLOCK = 4096  # logits of a row that a program holds at a time
VECTOR_BYTES = 16  # of neighbouring logits in one thread
WARP_LOGITS = 512  # sixteen a thread


@cache
def chunk_bytes(device: torch.device) -> int:
    """What the logits of a chunk may take. Set by the memory a device has, not by what is free, so that chunks, and
    with them the order of sums, are the same in every run and on every process."""
    if device.type != "cuda":
        return CPU_CHUNK_BYTES
    return min(CHUNK_BYTES, torch.cuda.get_device_properties(device).total_memory // MEMORY_SHARE)


@cache
def row_settings(num_classes: int, element_size: int) -> tuple[dict[str, int], dict[str, int]]:
    """Constants and options of :func:`.softmax.softmax_rows`."""
    block = min(BLOCK, max(32, 1 << (num_classes - 1).bit_length()))
    return {"BLOCK": block, "VECTOR": VECTOR_BYTES // element_size}, launch_options(max(1, block // WARP_LOGITS))
