"""What becomes of the class sums: FD and MD, and the tables of their gradients."""

import triton
import triton.language as tl

from ..common.tiles import load_chunk, load_per_class, store_chunk, value_of
from .tiles import feature_table, mean_table


@triton.jit(do_not_specialize=["n", "num_classes"])
def tables(
    batch, kept, n, num_classes, fd_scale, md_scale, D: tl.constexpr, K: tl.constexpr, SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr, FD: tl.constexpr, MD: tl.constexpr,
):  # fmt: skip
    """An embedding a program: its losses FD and MD, and its two tables (K, d). n and FD's scale may be pointers
    to numbers."""
    embedding = tl.program_id(0)
    classes = tl.arange(0, K)
    real = classes < num_classes
    cols = tl.arange(0, BLOCK_D)[None, :]
    block = kept.sums + embedding * SIZE
    table_ptr = kept.tables + embedding * (2 * K * D)
    counts = tl.load(block + classes).to(tl.float64)
    directed = tl.load(block + K + classes).to(tl.float64)
    loss = tl.sum(directed * 0.0, 0).to(tl.float32)  # NaN where a label is no class
    if FD:
        # FD is what is left of terms of size n²: they are added in float64.
        w = load_per_class(batch.w, num_classes, 0.5, K).to(tl.float64)
        s = load_chunk(block + 2 * K, classes, real, D, 0, D, BLOCK_D).to(tl.float64)
        s = tl.where(cols < D, s - tl.sum(s, 1, keep_dims=True) / D, 0.0)
        scale = value_of(fd_scale)
        part, table = feature_table(s, w, scale)
        total = 2 * tl.sum(w * ((value_of(n) - 1) * counts + directed), 0) - part
        loss += (total * scale).to(tl.float32)
        store_chunk(table_ptr, table, classes, real, D, 0, D, BLOCK_D)
    if MD:
        s = load_chunk(block + 2 * K + FD * K * D, classes, real, D, 0, D, BLOCK_D).to(tl.float32)
        part, table = mean_table(s, counts.to(tl.float32), cols, md_scale, D)
        loss += part
        store_chunk(table_ptr + K * D, table, classes, real, D, 0, D, BLOCK_D)
    tl.store(kept.losses + embedding, loss)
