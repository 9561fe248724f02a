"""First sweep: moments of rows and sums of classes."""

import triton
import triton.language as tl

from ..common.tiles import read_labels, store_chunk
from .tiles import add_class_sums, moments, zeros_tile


@triton.jit(do_not_specialize=["n", "num_classes"])
def sums(
    batch, kept, n, num_classes, e_stride, row_stride,
    D: tl.constexpr, K: tl.constexpr, SIZE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    CHUNKS: tl.constexpr, FD: tl.constexpr, MD: tl.constexpr, TENSOR_CORES: tl.constexpr,
):  # fmt: skip
    """A grid of (programs, embeddings): moments of rows, and a block of partial sums each.

    Rows past the last are the last once more, without a label: no load is masked.
    """
    program = tl.program_id(0)
    embedding = tl.program_id(1)
    classes = tl.arange(0, K)
    cols = tl.arange(0, BLOCK_D)[None, :]
    e = batch.e + embedding.to(tl.int64) * e_stride
    of_e = zeros_tile(K, BLOCK_D, CHUNKS if MD else 0)
    units = zeros_tile(K, BLOCK_D, CHUNKS if FD else 0)
    counts = tl.zeros((K, BLOCK_N), tl.float32)
    directed = tl.zeros((K, BLOCK_N), tl.float32)
    unlabelled = tl.zeros((BLOCK_N,), tl.float32)
    for tile in tl.range(program, tl.cdiv(n, BLOCK_N), tl.num_programs(0), disable_licm=True):
        rows = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        in_batch = rows < n
        rows = tl.minimum(rows, n - 1)
        y, valid = read_labels(batch.y, rows, in_batch, num_classes, batch.status)
        hot = (classes[:, None] == y[None, :]) & valid[None, :]
        at = e + rows.to(tl.int64)[:, None] * row_stride
        x = ()
        for chunk in tl.static_range(CHUNKS):
            here = cols + chunk * BLOCK_D
            x += (tl.load(at + here, mask=here < D, other=0.0),)
        first = tl.load(at).to(tl.float32)
        mean, inverse = moments(x, first, cols, D)
        inverse = tl.sum(inverse, 1)
        units, of_e = add_class_sums(units, of_e, hot, inverse, x, first, mean, cols, D, FD, MD, TENSOR_CORES)
        moment = kept.moments + 2 * embedding + rows.to(tl.int64) * (2 * tl.num_programs(1))
        tl.store(moment[:, None], mean if x[0].dtype == tl.float32 else mean + first)
        tl.store(moment + 1, inverse)
        counts += tl.where(hot, 1.0, 0.0)
        directed += tl.where(hot & (inverse != 0)[None, :], 1.0, 0.0)
        unlabelled += tl.where(in_batch & ~valid, float("nan"), 0.0)
    place = program.to(tl.int64) * tl.num_programs(1) + embedding
    block = kept.partials + place * SIZE
    tl.store(block + classes, tl.sum(counts, 1))
    tl.store(block + K + classes, tl.sum(directed, 1) + tl.sum(unlabelled, 0))
    for chunk in tl.static_range(CHUNKS):
        if FD:
            store_chunk(block + 2 * K, units[chunk], classes, classes >= 0, D, chunk, D, BLOCK_D)
        if MD:
            store_chunk(block + 2 * K + FD * K * D, of_e[chunk], classes, classes >= 0, D, chunk, D, BLOCK_D)
