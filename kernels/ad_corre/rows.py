"""Second sweep: ED, the whole gradient, and the loss of all terms."""

import triton
import triton.language as tl

from ..common.tiles import arrive_last, read_labels
from .tiles import centred, moments


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
