"""Ad-Corre engine: FD (NFD), MD and ED in O(n·d), from class sums of standardised rows. Kernels and launcher.

|Φ - corr| = 1 - Φ corr and |1 + corr| = 1 + corr, so all three losses are linear in the correlations, and a sum of
correlations over pairs is a product of sums of unit rows. With û the standardised rows, s_c = Σ_{y=c} û,
W = Σ_c w_c s_c and U = Σ_c s_c, for each embedding

    FD = 2 (n-1) Σ_i w_i - (4 Σ_c w_c ‖s_c‖² - 2 W·U - 2 Σ_i w_i ‖û_i‖²),
    dFD/dû_i = -2 (4 w_c s_c - w_c U - W),   c = y_i.

One sweep takes mean and inverse length of each row and the class sums, and its last program of an embedding the tables
(C, d) of those gradients; a second sweep, over the k embeddings a of a row at once, adds ED and writes

    ED = Σ_i k (k-1) + ‖A_i‖² - Σ_a ‖û_ai‖²,   A_i = Σ_a û_ai,   dED/dû_ai = 2 (A_i - û_ai),
    de = (g - û (û·g)) / ‖e - mean‖ + dMD/de,   g = d(FD + ED)/dû.

Nothing is centred again: g and û are. Nor are 16-bit rows centred before they are summed: s_c is then off by a
multiple of the row of ones, which centring the sums takes away; float32 would lose digits so.

Floor: e is read twice and its gradient written once, 3 k n d elements (705 MB at n = 65 536, k = 7, d = 256 in
bfloat16), and a few operations an element, in two launches. Beside it the two moments of a row are written and read.
Compiled for sm_90, a row of 256 bfloat16 numbers takes 131 + 112 warp instructions with Triton 3.6, 129 + 116 with 3.8.
"""

from collections.abc import Iterator
from itertools import product

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..aot import TYPES, aot_case
from ..configs import EMBEDDING_TILES, MOST_PROGRAMS, launch_options
from ..embedding_tiles import add_class_sums, centred, feature_table, mean_table, moments
from ..launch import arrival_counters, cdiv, gradient_dtype, max_programs
from ..tiles import (
    BLOCK_ROWS,
    FAN_IN,
    arrive_last,
    fold_chunk,
    fold_slabs,
    fold_sums,
    load_per_class,
    read_labels,
    store_chunk,
    store_slab_chunk,
    store_sums,
    zeros_tile,
)


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


@triton.jit
def load_centred(e_ptr, moments_ptr, at, cols, D: tl.constexpr, SAVED: tl.constexpr):
    """Centred rows and their inverse lengths, from moments of the first sweep where there was one."""
    x = tl.load(e_ptr + at + cols, mask=cols < D, other=0.0)
    if SAVED:
        first = tl.load(e_ptr + at) if x.dtype == tl.float32 else 0.0
        mean = tl.load(moments_ptr)
        inverse = tl.load(moments_ptr + 1)
    else:
        first = tl.load(e_ptr + at).to(tl.float32)
        mean, inverse = moments((x,), first, cols, D)
    return centred(x, first, mean, cols, D), inverse


@triton.jit(do_not_specialize=["n", "num_classes"])
def ad_corre_rows(
    e_ptr, y_ptr, losses_ptr, tables_ptr, moments_ptr, de_ptr, partials_ptr, counter_ptr, loss_ptr,
    n, num_classes, e_stride, row_stride, ed_scale,
    EMBEDDINGS: tl.constexpr, D: tl.constexpr, K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    PROGRAMS: tl.constexpr, FD: tl.constexpr, MD: tl.constexpr, ED: tl.constexpr,
):  # fmt: skip
    """Second sweep: the k embeddings of a tile of rows at once; ED, the whole gradient, and the loss of all terms."""
    program = tl.program_id(0)
    cols = tl.arange(0, BLOCK_D)[None, :]
    total = tl.zeros((BLOCK_N,), tl.float32)
    for tile in range(program, tl.cdiv(n, BLOCK_N), tl.num_programs(0)):
        rows = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        in_batch = rows < n
        rows = tl.minimum(rows, n - 1).to(tl.int64)
        at = rows[:, None] * row_stride
        moment_ptrs = moments_ptr + rows[:, None] * (2 * EMBEDDINGS)
        together = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
        directed = tl.zeros((BLOCK_N, 1), tl.float32)
        centred_rows = ()
        inverses = ()
        if FD or ED:
            for a in tl.static_range(EMBEDDINGS):
                v, inverse = load_centred(e_ptr, moment_ptrs + 2 * a, at, cols, D, FD or MD)
                at += e_stride
                if ED:
                    together += v * inverse
                    directed += tl.where(inverse == 0, 0.0, 1.0)
                centred_rows += (v,)
                inverses += (inverse,)
        if ED:
            pairs = tl.sum(together * together, 1) - tl.sum(directed, 1)
            total += tl.where(in_batch, EMBEDDINGS * (EMBEDDINGS - 1) + pairs, 0.0)
            together *= 2 * ed_scale
        if de_ptr is not None:
            own = cols
            if FD or MD:
                y, _ = read_labels(y_ptr, rows, rows >= 0, num_classes, None)
                own += y[:, None] * D
            out = rows[:, None]
            for a in tl.static_range(EMBEDDINGS):
                table_ptrs = tables_ptr + 2 * a * K * D + own
                de = tl.load(table_ptrs + K * D, mask=cols < D, other=0.0) if MD else 0.0
                if FD or ED:
                    g = tl.load(table_ptrs, mask=cols < D, other=0.0) if FD else 0.0
                    if ED:
                        g += together - centred_rows[a] * (2 * ed_scale * inverses[a])
                    along = tl.sum(g * centred_rows[a], 1, keep_dims=True) * inverses[a] * inverses[a]
                    de += (g - along * centred_rows[a]) * inverses[a]
                tl.store(de_ptr + out * D + cols, de.to(de_ptr.dtype.element_ty), mask=cols < D)
                out += n
    tl.store(partials_ptr + program, tl.sum(total, 0) * ed_scale)
    if arrive_last(counter_ptr, tl.num_programs(0)):
        slots = tl.arange(0, PROGRAMS)
        parts = tl.load(partials_ptr + slots, mask=slots < tl.num_programs(0), other=0.0, cache_modifier=".cg")
        loss = tl.sum(parts, 0)
        if FD or MD:
            for a in tl.static_range(EMBEDDINGS):
                loss += tl.load(losses_ptr + a)
        tl.store(loss_ptr, loss)


MOST_CLASS_ELEMENTS = 16384  # K·D of one table of class sums
MOST_CLASSES = 32  # more go to the wgmma of sm_90, see issue 1905 of pytorch/helion on sides below 64, as rows are
MOST_EMBEDDINGS = 16  # rows of a sample, which the second sweep holds at once

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
    if (
        (e.element_size(), width) not in EMBEDDING_TILES
        or classes > MOST_CLASSES
        or classes * width > MOST_CLASS_ELEMENTS
        or k > MOST_EMBEDDINGS
    ):
        raise NotImplementedError("too many classes or embeddings for one program, rows too wide for it, or float64")
    config = EMBEDDING_TILES[e.element_size(), width]
    e, y = (e if e.stride(-1) == 1 or d == 1 else e.contiguous()), y.contiguous()
    ed = 0.0 if k == 1 else ed  # a single embedding has no pair
    new = {"dtype": torch.float32, "device": e.device}
    terms = {"FD": fd != 0, "MD": md != 0}
    shape = {"D": d, "K": classes}
    losses, tables, loss = _empty((k,), **new), _empty((k, 2, classes, d), **new), _empty((), **new)
    moments = _empty((n, k, 2), **new)
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
            moments,
            _empty((k, 2, blocks, classes, d), **new),
            _empty((k, blocks, BLOCK_ROWS.value, classes), **new),
            arrival_counters(e.device),
            n,
            num_classes,
            e.stride(0),
            e.stride(1),
            0.0 if n == 1 else fd / (k * n**2) if mean else fd,  # a single row has no pair
            md / (k * num_classes**2) if mean else md,
            BLOCK_N=config.block_n,
            BLOCK_D=config.block_d,
            CHUNKS=width // config.block_d,
            **shape,
            **terms,
            TENSOR_CORES=torch.version.hip is None,
            **launch_options(config.num_warps, config.num_stages),
        )
    # Without a gradient and without ED no row is left to visit: the second launch only adds the losses up.
    rows = n if gradient or ed else 0
    programs = max(1, min(cdiv(rows, config.row_block_n), max_programs(e.device), MOST_PROGRAMS))
    ad_corre_rows[(programs,)](
        e,
        y,
        losses,
        tables,
        moments,
        de,
        _empty((programs,), **new),
        arrival_counters(e.device),
        loss,
        rows,
        num_classes,
        e.stride(0),
        e.stride(1),
        ed / (n * k**2) if mean else ed,
        EMBEDDINGS=k,
        BLOCK_N=config.row_block_n,
        BLOCK_D=width,
        PROGRAMS=MOST_PROGRAMS,
        **shape,
        **terms,
        ED=ed != 0,
        **launch_options(config.row_warps),
    )
    return loss, de if gradient else _empty((0,), dtype=gradient_dtype(e), device=e.device)


def aot_cases(family: str) -> Iterator[tuple]:
    """Both sweeps, all terms on, at the widths of published embeddings, for the audit."""
    shared = dict.fromkeys(("n", "num_classes", "e_stride", "row_stride"), "i32")
    shared |= dict.fromkeys(("fd_scale", "md_scale", "ed_scale"), "fp32")
    shared |= dict.fromkeys(("y_ptr", "status_ptr"), "*i64") | dict.fromkeys(("counters_ptr", "counter_ptr"), "*i32")
    buffers = ("w_ptr", "losses_ptr", "tables_ptr", "moments_ptr", "slabs_ptr", "stats_ptr", "partials_ptr", "loss_ptr")
    shared |= dict.fromkeys(buffers, "*fp32")
    for (k, width), dtype in product(((7, 128), (7, 256), (7, 512), (4, 1024)), TYPES):
        config, dtype = EMBEDDING_TILES[dtype.itemsize, width], TYPES[dtype]
        types = shared | {"e_ptr": f"*{dtype}", "de_ptr": "*bf16" if dtype == "bf16" else "*fp32"}
        marked = "*" if width == 256 and dtype != "fp16" else ""
        terms = {"FD": True, "MD": True, "ED": True, "EMBEDDINGS": k, "D": width, "K": 16}
        sums = terms | {"BLOCK_N": config.block_n, "BLOCK_D": config.block_d, "CHUNKS": width // config.block_d}
        sums |= {"TENSOR_CORES": family != "cdna"}
        options = launch_options(config.num_warps, config.num_stages)
        yield aot_case(f"tables-{dtype}-{k}-{width}{marked}", ad_corre_tables, types, sums, options)
        rows = terms | {"BLOCK_N": config.row_block_n, "BLOCK_D": width, "PROGRAMS": MOST_PROGRAMS}
        options = launch_options(config.row_warps)
        yield aot_case(f"rows-{dtype}-{k}-{width}{marked}", ad_corre_rows, types, rows, options)
