"""Second sweep: ED and the whole gradient."""

import triton
import triton.language as tl

from ..common.tiles import read_labels, value_of
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
def rows(
    batch, kept, de, n, num_classes, e_stride, row_stride, ed_scale,
    EMBEDDINGS: tl.constexpr, D: tl.constexpr, K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    FD: tl.constexpr, MD: tl.constexpr, ED: tl.constexpr, BY_ROW: tl.constexpr,
):  # fmt: skip
    """The k embeddings of a tile of rows at once: a part of ED for each program or each row, and the whole gradient.
    ED's scale is a number, or a pointer to one."""
    program = tl.program_id(0)
    cols = tl.arange(0, BLOCK_D)[None, :]
    total = tl.zeros((BLOCK_N,), tl.float32)
    share = 1.0
    of_ed = value_of(ed_scale)
    if batch.total is not None:  # exactly 1 where all rows weigh 1
        weight = tl.load(batch.total)
        share = n / tl.where(weight == 0, 1.0, weight)
    for tile in range(program, tl.cdiv(n, BLOCK_N), tl.num_programs(0)):
        rows = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        in_batch = rows < n
        rows = tl.minimum(rows, n - 1).to(tl.int64)
        at = rows[:, None] * row_stride
        moment_ptrs = rows[:, None] * (2 * EMBEDDINGS)
        if FD or MD:
            moment_ptrs += kept.moments
        together = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
        directed = tl.zeros((BLOCK_N, 1), tl.float32)
        centred_rows = ()
        inverses = ()
        scale = 2 * of_ed
        if batch.sample_weights is not None:
            weights = tl.load(batch.sample_weights + rows)
            present = weights[:, None] != 0  # a row that weighs nothing may hold anything
            weights *= share
            scale = scale * weights[:, None]
        if FD or ED:
            for a in tl.static_range(EMBEDDINGS):
                v, inverse = load_centred(batch.e, moment_ptrs + 2 * a, at, cols, D, FD or MD)
                at += e_stride
                if batch.sample_weights is not None:
                    v = tl.where(present, v, 0.0)
                    inverse = tl.where(present, inverse, 0.0)
                if ED:
                    together += v * inverse
                    directed += tl.where(inverse == 0, 0.0, 1.0)
                centred_rows += (v,)
                inverses += (inverse,)
        if ED:
            pairs = tl.sum(together * together, 1) - tl.sum(directed, 1)
            losses = EMBEDDINGS * (EMBEDDINGS - 1) + pairs
            if batch.sample_weights is not None:
                losses *= weights
            if BY_ROW:
                tl.store(kept.losses + rows, losses * of_ed, mask=in_batch)
            else:
                total += tl.where(in_batch, losses, 0.0)
            together *= scale
        if de is not None:
            own = cols
            if FD or MD:
                y, _ = read_labels(batch.y, rows, rows >= 0, num_classes, None)
                own += y[:, None] * D
            out = rows[:, None]
            for a in tl.static_range(EMBEDDINGS):
                slope = 0.0
                if MD:
                    slope = tl.load(kept.tables + (2 * a + 1) * K * D + own, mask=cols < D, other=0.0)
                if FD or ED:
                    g = 0.0
                    if FD:
                        g = tl.load(kept.tables + 2 * a * K * D + own, mask=cols < D, other=0.0)
                    if ED:
                        g += together - centred_rows[a] * (scale * inverses[a])
                    along = tl.sum(g * centred_rows[a], 1, keep_dims=True) * inverses[a] * inverses[a]
                    slope += (g - along * centred_rows[a]) * inverses[a]
                tl.store(de + out * D + cols, slope.to(de.dtype.element_ty), mask=cols < D)
                out += n
    if ED and not BY_ROW:
        tl.store(kept.losses + (FD or MD) * EMBEDDINGS + program, tl.sum(total, 0) * of_ed)
