"""First sweep: moments of rows and sums of classes, which the last program makes losses and gradient tables of."""

import triton
import triton.language as tl

from ..common.tiles import arrive_last, load_per_class, read_labels, store_chunk
from .slabs import BLOCK_ROWS, FAN_IN, fold_chunk, fold_slabs, fold_sums, store_slab_chunk, store_sums
from .tiles import add_class_sums, feature_table, mean_table, moments, zeros_tile


@triton.jit
def finish_embedding(
    stats_ptr, slabs_ptr, sums_ptr, w_ptr, losses_ptr, tables_ptr, first, count, n, num_classes, fd_scale, md_scale,
    K: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr, FD: tl.constexpr, MD: tl.constexpr,
):  # fmt: skip
    """The losses FD and MD of one embedding and its gradient tables (2, K, D), from `count` slabs from `first` on."""
    classes = tl.arange(0, K)
    WIDTH: tl.constexpr = BLOCK_D * CHUNKS
    counts, directed, unlabelled, _ = fold_sums(stats_ptr, first, count, K)
    loss = tl.sum(unlabelled, 0)
    if FD:
        w = load_per_class(w_ptr, num_classes, 0.5, K)
        # FD is what is left of terms of size n²: they are added in float64.
        total = 2 * tl.sum((w * ((n - 1) * counts + directed)).to(tl.float64), 0)
        mean = tl.zeros((K,), tl.float32)
        for chunk in range(CHUNKS):
            mean += tl.sum(fold_chunk(slabs_ptr, first, count, D, chunk, K, BLOCK_D), 1) / D
        for chunk in range(CHUNKS):
            cols = chunk * BLOCK_D + tl.arange(0, BLOCK_D)[None, :]
            s = fold_chunk(slabs_ptr, first, count, D, chunk, K, BLOCK_D)
            part, table = feature_table(tl.where(cols < D, s - mean[:, None], 0.0), w, fd_scale)
            total -= part
            store_chunk(tables_ptr, table, classes, classes < num_classes, D, chunk, D, BLOCK_D)
        loss += (total * fd_scale).to(tl.float32)
    if MD:
        sums = fold_chunk(sums_ptr, first, count, D, 0, K, WIDTH)
        part, table = mean_table(sums, counts, tl.arange(0, WIDTH)[None, :], md_scale, D)
        loss += part
        store_chunk(tables_ptr + K * D, table, classes, classes < num_classes, D, 0, D, WIDTH)
    tl.store(losses_ptr, loss)


@triton.jit(do_not_specialize=["n", "num_classes"])
def ad_corre_tables(
    e_ptr, y_ptr, w_ptr, status_ptr, losses_ptr, tables_ptr, moments_ptr, slabs_ptr, stats_ptr, counters_ptr,
    n, num_classes, e_stride, row_stride, fd_scale, md_scale,
    D: tl.constexpr, K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
    FD: tl.constexpr, MD: tl.constexpr, TENSOR_CORES: tl.constexpr,
):  # fmt: skip
    """First sweep, a grid of (programs, embeddings): moments of rows (k, 2, n), class sums, then the losses and the
    gradient tables (2, K, D).

    Rows past the last are the last once more, without a label: no load is masked.
    """
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    embedding = tl.program_id(1)
    classes = tl.arange(0, K)[:, None]
    cols = tl.arange(0, BLOCK_D)[None, :]
    e_ptr += embedding.to(tl.int64) * e_stride
    moments_ptr += 2 * embedding
    sums = zeros_tile(K, BLOCK_D, CHUNKS if MD else 0)
    units = zeros_tile(K, BLOCK_D, CHUNKS if FD else 0)
    counts = tl.zeros((K, BLOCK_N), tl.float32)
    directed = tl.zeros((K, BLOCK_N), tl.float32)
    unlabelled = tl.zeros((BLOCK_N,), tl.float32)
    for tile in tl.range(program, tl.cdiv(n, BLOCK_N), programs, disable_licm=True):
        rows = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        in_batch = rows < n
        rows = tl.minimum(rows, n - 1)
        y, valid = read_labels(y_ptr, rows, in_batch, num_classes, status_ptr)
        hot = (classes == y[None, :]) & valid[None, :]
        at = e_ptr + rows.to(tl.int64)[:, None] * row_stride
        x = ()
        for chunk in tl.static_range(CHUNKS):
            here = cols + chunk * BLOCK_D
            x += (tl.load(at + here, mask=here < D, other=0.0),)
        first = tl.load(at).to(tl.float32)
        mean, inverse = moments(x, first, cols, D)
        inverse = tl.sum(inverse, 1)
        weights = tl.where(hot, inverse[None, :], 0.0)
        if MD:
            sums = add_class_sums(sums, hot.to(tl.float32), x, first, mean, cols, num_classes, D, True, TENSOR_CORES)
        if FD:
            units = add_class_sums(units, weights, x, first, mean, cols, num_classes, D, False, TENSOR_CORES)
        moment = moments_ptr + rows.to(tl.int64) * (2 * tl.num_programs(1))
        tl.store(moment[:, None], mean if x[0].dtype == tl.float32 else mean + first)
        tl.store(moment + 1, inverse)
        counts += tl.where(hot, 1.0, 0.0)
        directed += tl.where(hot & (inverse != 0)[None, :], 1.0, 0.0)
        unlabelled += tl.where(in_batch & ~valid, float("nan"), 0.0)

    groups = tl.cdiv(programs, FAN_IN)
    blocks = programs + groups
    slab_size = blocks.to(tl.int64) * K * D
    slabs_ptr += embedding.to(tl.int64) * 2 * slab_size
    sums_ptr = slabs_ptr + FD * slab_size
    stats_ptr += embedding * blocks * BLOCK_ROWS * K
    counters_ptr += embedding * (groups + 1)
    bad = tl.zeros((K,), tl.float32) + tl.sum(unlabelled, 0)
    store_sums(stats_ptr, program, (tl.sum(counts, 1), tl.sum(directed, 1), bad), K)
    for chunk in tl.static_range(CHUNKS):
        if FD:
            store_slab_chunk(slabs_ptr, units[chunk], program, D, chunk, K, BLOCK_D)
        if MD:
            store_slab_chunk(sums_ptr, sums[chunk], program, D, chunk, K, BLOCK_D)
    group = program // FAN_IN
    members = tl.minimum(programs - group * FAN_IN, FAN_IN)
    if arrive_last(counters_ptr + 1 + group, members):
        oldest = group * FAN_IN
        fold_slabs(stats_ptr, 0, oldest, members, programs + group, K, 0, 1, BLOCK_ROWS, K)
        for part in range(CHUNKS):
            fold_slabs(slabs_ptr, slab_size, oldest, members, programs + group, D, part, FD + MD, K, BLOCK_D)
        if arrive_last(counters_ptr, groups):
            tables_ptr += embedding.to(tl.int64) * 2 * K * D
            finish_embedding(
                stats_ptr, slabs_ptr, sums_ptr, w_ptr, losses_ptr + embedding, tables_ptr, programs, groups,
                n, num_classes, fd_scale, md_scale, K, D, BLOCK_D, CHUNKS, FD, MD,
            )  # fmt: skip
