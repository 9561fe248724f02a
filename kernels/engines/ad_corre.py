"""Ad-Corre engine: FD (NFD), MD and ED in O(n·d), from class sums of standardised rows. Kernels and launcher.

|Φ - corr| = 1 - Φ corr and |1 + corr| = 1 + corr, so all three losses are linear in the correlations, and a sum of
correlations over pairs is a product of sums of unit rows. With û the standardised rows, s_c = Σ_{y=c} û,
W = Σ_c w_c s_c and U = Σ_c s_c, for each embedding

    FD = 2 (n-1) Σ_i w_i - (4 Σ_c w_c ‖s_c‖² - 2 W·U - 2 Σ_i w_i ‖û_i‖²),
    dFD/dû_i = -2 (4 w_c s_c - w_c U - W),   c = y_i.

One sweep takes the class sums and, in the last program of an embedding, its tables (C, d); a second sweep writes the
gradient. Floor: e is read twice and its gradient written once.
"""

from collections.abc import Iterator
from itertools import product

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..aot import TYPES, aot_case
from ..configs import EMBEDDING_TILES, MOST_PROGRAMS, chip
from ..embedding_tiles import centred, chain, feature_table, mean_table, standardise, standards
from ..launch import arrival_counters, cdiv, gradient_dtype, max_programs
from ..products import class_sum_product
from ..tiles import (
    BLOCK_ROWS,
    FAN_IN,
    arrive_last,
    fold_chunk,
    fold_slabs,
    fold_sums,
    load_per_class,
    load_tile,
    read_labels,
    store_chunk,
    store_slab_chunk,
    store_sums,
    zeros_tile,
)


@triton.jit
def add_class_sums(
    unit_sums, sums, x, first, hot, cols, d,
    FD: tl.constexpr, MD: tl.constexpr, TENSOR_CORES: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """The sums of unit rows and of rows, (K, BLOCK_D) a chunk, with a tile added; and rows of each class that are not
    constant, (K,). Unit rows are made chunk by chunk: whole ones would not fit the registers beside the sums. A chunk
    past the width is left out; that this is asked of each also keeps chunks apart, as :func:`..tiles.in_turn` does."""
    not_constant = tl.zeros((hot.shape[1],), tl.float32)
    if FD:
        mean, scale, inverse = standards(x, first, cols, d, CHUNKS)
        not_constant += tl.sum(tl.where(hot & (inverse != 0), 1.0, 0.0), 0)
    unit_added = ()
    added = ()
    for chunk in tl.static_range(CHUNKS):
        if FD:
            total = unit_sums[chunk]
            if chunk * cols.shape[1] < d:
                u = centred(x[chunk], first, mean, cols, chunk, d) * scale * inverse
                total += class_sum_product(hot, u, TENSOR_CORES)
            unit_added += (total,)
        if MD:
            total = sums[chunk]
            if chunk * cols.shape[1] < d:
                total += class_sum_product(hot, x[chunk], TENSOR_CORES)
            added += (total,)
    return unit_added, added, not_constant


@triton.jit
def finish_embedding(
    stats_ptr, slabs_ptr, sums_ptr, w_ptr, losses_ptr, tables_ptr, first, count, n, num_classes, d, fd_scale, md_scale,
    K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr, FD: tl.constexpr, MD: tl.constexpr,
):  # fmt: skip
    """The losses FD and MD of one embedding and its gradient tables (2, K, d), from `count` slabs from `first` on."""
    WIDTH: tl.constexpr = BLOCK_D * CHUNKS
    classes = tl.arange(0, K)
    counts, directed, unlabelled, _ = fold_sums(stats_ptr, first, count, K)
    loss = tl.sum(unlabelled, 0)
    if FD:
        w = load_per_class(w_ptr, num_classes, 0.5, K)
        # FD is what is left of terms of size n²: they are added in float64.
        total = 2 * tl.sum((w * ((n - 1) * counts + directed)).to(tl.float64), 0)
        for chunk in range(CHUNKS):
            sums = fold_chunk(slabs_ptr, first, count, d, chunk, K, BLOCK_D)
            part, table = feature_table(sums, w, fd_scale)
            total -= part
            store_chunk(tables_ptr, table, classes, classes < num_classes, d, chunk, d, BLOCK_D)
        loss += (total * fd_scale).to(tl.float32)
    if MD:
        sums = fold_chunk(sums_ptr, first, count, d, 0, K, WIDTH)
        part, table = mean_table(sums, counts, tl.arange(0, WIDTH)[None, :], d, md_scale, K)
        loss += part
        store_chunk(tables_ptr + K * d, table, classes, classes < num_classes, d, 0, d, WIDTH)
    tl.store(losses_ptr, loss)


@triton.jit(do_not_specialize=["n", "num_classes"])
def ad_corre_tables(
    e_ptr, y_ptr, w_ptr, status_ptr, losses_ptr, tables_ptr, slabs_ptr, stats_ptr, counters_ptr,
    n, num_classes, d, e_stride, row_stride, fd_scale, md_scale,
    K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
    FD: tl.constexpr, MD: tl.constexpr, TENSOR_CORES: tl.constexpr,
):  # fmt: skip
    """First sweep, a grid of (programs, embeddings): class sums, then the losses and the gradient tables (2, K, d)."""
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    embedding = tl.program_id(1)
    classes = tl.arange(0, K)
    cols = tl.arange(0, BLOCK_D)[None, :]
    e_ptr += embedding.to(tl.int64) * e_stride
    unit_sums = zeros_tile(K, BLOCK_D, CHUNKS if FD else 0)
    sums = zeros_tile(K, BLOCK_D, CHUNKS if MD else 0)
    counts = tl.zeros((K,), tl.float32)
    directed = tl.zeros((K,), tl.float32)
    unlabelled = tl.zeros((BLOCK_N,), tl.float32)
    for tile in tl.range(program, tl.cdiv(n, BLOCK_N), programs, disable_licm=True):
        rows = tile * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        y, valid = read_labels(y_ptr, rows, rows < n, num_classes, status_ptr)
        hot = (y[:, None] == classes[None, :]) & valid[:, None]
        x = load_tile(e_ptr, rows, valid, row_stride, d, BLOCK_D, CHUNKS)
        first = tl.load(e_ptr + rows * row_stride, mask=valid & FD, other=0.0)[:, None]
        unit_sums, sums, not_constant = add_class_sums(
            unit_sums, sums, x, first, hot, cols, d, FD, MD, TENSOR_CORES, CHUNKS
        )  # fmt: skip
        counts += tl.sum(tl.where(hot, 1.0, 0.0), 0)
        directed += not_constant
        unlabelled += tl.where((rows < n) & ~valid, float("nan"), 0.0)

    groups = tl.cdiv(programs, FAN_IN)
    blocks = programs + groups
    slab_size = blocks.to(tl.int64) * K * d
    slabs_ptr += embedding.to(tl.int64) * 2 * slab_size
    sums_ptr = slabs_ptr + FD * slab_size
    stats_ptr += embedding * blocks * BLOCK_ROWS * K
    counters_ptr += embedding * (groups + 1)
    store_sums(stats_ptr, program, (counts, directed, tl.zeros((K,), tl.float32) + tl.sum(unlabelled, 0)), K)
    for chunk in tl.static_range(CHUNKS):
        if FD:
            store_slab_chunk(slabs_ptr, unit_sums[chunk], program, d, chunk, K, BLOCK_D)
        if MD:
            store_slab_chunk(sums_ptr, sums[chunk], program, d, chunk, K, BLOCK_D)
    group = program // FAN_IN
    members = tl.minimum(programs - group * FAN_IN, FAN_IN)
    if arrive_last(counters_ptr + 1 + group, members):
        oldest = group * FAN_IN
        fold_slabs(stats_ptr, 0, oldest, members, programs + group, K, 0, 1, BLOCK_ROWS, K)
        for part in range(CHUNKS):
            fold_slabs(slabs_ptr, slab_size, oldest, members, programs + group, d, part, FD + MD, K, BLOCK_D)
        if arrive_last(counters_ptr, groups):
            tables_ptr += embedding.to(tl.int64) * 2 * K * d
            finish_embedding(
                stats_ptr, slabs_ptr, sums_ptr, w_ptr, losses_ptr + embedding, tables_ptr, programs, groups,
                n, num_classes, d, fd_scale, md_scale, K, BLOCK_D, CHUNKS, FD, MD,
            )  # fmt: skip


@triton.jit
def gather_table(tables_ptr, which, embedding, y, row_ok, cols, d, K: tl.constexpr):
    """Each row's own class's entry of table `which` for every embedding: (embeddings, rows, columns)."""
    at = ((embedding * 2 + which) * K + y[None, :, None]).to(tl.int64) * d + cols
    return tl.load(tables_ptr + at, mask=row_ok & (cols < d), other=0.0)


@triton.jit(do_not_specialize=["n", "k", "num_classes"])
def ad_corre_rows(
    e_ptr, y_ptr, losses_ptr, tables_ptr, de_ptr, partials_ptr, counter_ptr, loss_ptr,
    n, k, num_classes, d, e_stride, row_stride, ed_scale,
    K: tl.constexpr, EMBEDDINGS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, PROGRAMS: tl.constexpr,
    FD: tl.constexpr, MD: tl.constexpr, ED: tl.constexpr,
):  # fmt: skip
    """Second sweep: the k embeddings of a tile of rows at once; ED, the whole gradient, and the loss of all terms.

    ED of a row is Σ_{a≠b} (1 + û_a·û_b) = k (k-1) + Σ_a û_a·(A - û_a), A = Σ_a û_a, with gradient 2 (A - û_a) in û_a.
    """
    program = tl.program_id(0)
    embedding = tl.arange(0, EMBEDDINGS)[:, None, None]
    cols = tl.arange(0, BLOCK_D)[None, None, :]
    total = tl.zeros((BLOCK_N,), tl.float32)
    for tile in range(program, tl.cdiv(n, BLOCK_N), tl.num_programs(0)):
        rows = tile * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        in_batch = rows < n
        here = in_batch[None, :, None] & (embedding < k)
        at = embedding.to(tl.int64) * e_stride + rows[None, :, None] * row_stride
        x = tl.load(e_ptr + at + cols, mask=here & (cols < d), other=0.0)
        u, inverse = standardise(x, tl.load(e_ptr + at, mask=here, other=0.0), cols, d)
        g = tl.zeros((EMBEDDINGS, BLOCK_N, BLOCK_D), tl.float32)
        if ED:
            others = tl.where(embedding < k, tl.sum(u, 0)[None, :, :] - u, 0.0)
            total += tl.where(in_batch, k * (k - 1) + tl.sum(tl.sum(u * others, 2), 0), 0.0)
            g += 2 * ed_scale * others
        if de_ptr is not None:
            if FD or MD:
                y, _ = read_labels(y_ptr, rows, in_batch, num_classes, None)
            if FD:
                g += gather_table(tables_ptr, 0, embedding, y, here, cols, d, K)
            g = chain(g, u, inverse, cols, d)
            if MD:
                g += gather_table(tables_ptr, 1, embedding, y, here, cols, d, K)
            at = (embedding.to(tl.int64) * n + rows[None, :, None]) * d + cols
            tl.store(de_ptr + at, g.to(de_ptr.dtype.element_ty), mask=here & (cols < d))
    tl.store(partials_ptr + program, tl.sum(total, 0) * ed_scale)
    if arrive_last(counter_ptr, tl.num_programs(0)):
        slots = tl.arange(0, PROGRAMS)
        parts = tl.load(partials_ptr + slots, mask=slots < tl.num_programs(0), other=0.0, cache_modifier=".cg")
        loss = tl.sum(parts, 0)
        if FD or MD:
            slots = tl.arange(0, EMBEDDINGS)
            loss += tl.sum(tl.load(losses_ptr + slots, mask=slots < k, other=0.0), 0)
        tl.store(loss_ptr, loss)


MOST_CLASS_ELEMENTS = 16384  # K·D of one table of class sums
MOST_ROW_ELEMENTS = 16384  # k·D of one row of the second sweep

_empty = torch.empty


def ad_corre(
    e: Tensor,
    y: Tensor,
    class_difficulty: Tensor | None,
    num_classes: int,
    fd: float,
    md: float,
    ed: float,
    mean: bool,
    gradient: bool,
    status: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """fd·FD + md·MD + ed·ED of e (k, n, d), y (n,), class_difficulty w (C,): the loss and de. A weight 0 is a term off.

    Two launches (one for ED alone). `class_difficulty` None is NFD's 0.5 everywhere. A label outside [0, C) makes the
    loss NaN and goes to `status` (1,); ED alone reads no label.
    """
    k, n, d = e.shape
    classes, width = max(16, triton.next_power_of_2(num_classes)), max(16, triton.next_power_of_2(d))
    embeddings = triton.next_power_of_2(k)
    if (
        (chip(e.device), e.element_size(), width) not in EMBEDDING_TILES
        or classes * width > MOST_CLASS_ELEMENTS
        or embeddings * width > MOST_ROW_ELEMENTS
    ):
        raise NotImplementedError("embeddings or class tables too wide for one program, or float64")
    config = EMBEDDING_TILES[chip(e.device), e.element_size(), width]
    e, y = (e if e.stride(-1) == 1 or d == 1 else e.contiguous()), y.contiguous()
    new = {"dtype": torch.float32, "device": e.device}
    terms = {"FD": fd != 0, "MD": md != 0}
    losses, tables, loss = _empty((k,), **new), _empty((k, 2, classes, d), **new), _empty((), **new)
    de = _empty((k, n, d), dtype=gradient_dtype(e), device=e.device) if gradient else None
    if fd or md:
        programs = min(cdiv(n, config.block_n), cdiv(max_programs(e.device), k))
        blocks = programs + cdiv(programs, FAN_IN.value)
        ad_corre_tables[(programs, k)](
            e,
            y,
            class_difficulty if fd else None,
            status,
            losses,
            tables,
            _empty((k, 2, blocks, classes, d), **new),
            _empty((k, blocks, BLOCK_ROWS.value, classes), **new),
            arrival_counters(e.device),
            n,
            num_classes,
            d,
            e.stride(0),
            e.stride(1),
            0.0 if n == 1 else fd / (k * n**2) if mean else fd,  # a single row has no pair
            md / (k * num_classes**2) if mean else md,
            K=classes,
            BLOCK_N=config.block_n,
            BLOCK_D=config.block_d,
            CHUNKS=width // config.block_d,
            **terms,
            TENSOR_CORES=torch.version.hip is None,
            **config.sum_options,
        )
    # Without a gradient and without ED no row is left to visit: the second launch only adds the losses up.
    rows = n if gradient or ed else 0
    block_n = max(1, config.elements // (embeddings * width))
    programs = max(1, min(cdiv(rows, block_n), max_programs(e.device), MOST_PROGRAMS))
    ad_corre_rows[(programs,)](
        e,
        y,
        losses,
        tables,
        de,
        _empty((programs,), **new),
        arrival_counters(e.device),
        loss,
        rows,
        k,
        num_classes,
        d,
        e.stride(0),
        e.stride(1),
        ed / (n * k**2) if mean else ed,
        K=classes,
        EMBEDDINGS=embeddings,
        BLOCK_N=block_n,
        BLOCK_D=width,
        PROGRAMS=MOST_PROGRAMS,
        **terms,
        ED=ed != 0,
        **config.row_options,
    )
    return loss, de if gradient else _empty((0,), dtype=gradient_dtype(e), device=e.device)


def aot_cases(family: str) -> Iterator[tuple]:
    """Both sweeps, all terms on, at the widths of published embeddings, for the audit."""
    shared = dict.fromkeys(("n", "num_classes", "d", "k", "e_stride", "row_stride"), "i32")
    shared |= dict.fromkeys(("fd_scale", "md_scale", "ed_scale"), "fp32")
    shared |= dict.fromkeys(("y_ptr", "status_ptr"), "*i64") | dict.fromkeys(("counters_ptr", "counter_ptr"), "*i32")
    buffers = ("w_ptr", "losses_ptr", "tables_ptr", "slabs_ptr", "stats_ptr", "partials_ptr", "loss_ptr")
    shared |= dict.fromkeys(buffers, "*fp32")
    terms = {"FD": True, "MD": True, "ED": True}
    for (k, width), dtype in product(((7, 128), (7, 256), (7, 512), (4, 1024)), TYPES):
        config, embeddings = EMBEDDING_TILES[family, dtype.itemsize, width], triton.next_power_of_2(k)
        dtype = TYPES[dtype]
        types = shared | {"e_ptr": f"*{dtype}", "de_ptr": "*bf16" if dtype == "bf16" else "*fp32"}
        marked = "*" if width == 256 and dtype != "fp16" else ""
        sums = {"BLOCK_N": config.block_n, "BLOCK_D": config.block_d, "CHUNKS": width // config.block_d}
        sums |= {"K": 16, "FD": True, "MD": True, "TENSOR_CORES": family != "cdna"}
        yield aot_case(f"tables-{dtype}-{k}-{width}{marked}", ad_corre_tables, types, sums, config.sum_options)
        rows = terms | {"K": 16, "EMBEDDINGS": embeddings, "BLOCK_N": max(1, config.elements // (embeddings * width))}
        yield aot_case(
            f"rows-{dtype}-{k}-{width}{marked}",
            ad_corre_rows,
            types,
            rows | {"BLOCK_D": width, "PROGRAMS": MOST_PROGRAMS},
            config.row_options,
        )
