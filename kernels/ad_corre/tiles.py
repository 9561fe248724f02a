"""Tile arithmetic of Ad-Corre: moments of rows, sums of a class, and the tables that class sums become."""

import triton
import triton.language as tl

from ..common.products import class_product
from ..common.tiles import is_finite


@triton.jit
def centred(x, first, mean, cols, D: tl.constexpr):
    """Rows less their means, which are relative to their first entries; 0 past the width. A large offset costs no
    digits so, and a constant row is exactly zero."""
    return tl.where(cols < D, x.to(tl.float32) - first - mean, 0.0)


@triton.jit
def moments(x, first, cols, D: tl.constexpr):
    """Mean of rows relative to their first entries, and inverse length of the centred ones: (rows, 1). `x` is a tuple
    of chunks of whole rows, `cols` the columns of the first.

    The inverse is 0 for a constant row, also one shorter than 1e-19, and NaN where squares overflow, beyond 1e19.
    """
    total = centred(x[0], first, 0.0, cols, D)
    for chunk in tl.static_range(1, len(x)):
        total += centred(x[chunk], first, 0.0, cols + chunk * cols.shape[1], D)
    mean = tl.sum(total, 1, keep_dims=True) / D
    v = centred(x[0], first, mean, cols, D)
    total = v * v
    for chunk in tl.static_range(1, len(x)):
        v = centred(x[chunk], first, mean, cols + chunk * cols.shape[1], D)
        total += v * v
    squared = tl.sum(total, 1, keep_dims=True)
    inverse = tl.rsqrt(tl.where(squared < 1.2e-38, float("inf"), squared))
    return mean, tl.where(is_finite(squared), inverse, float("nan"))


@triton.jit
def add_class_sums(
    units, of_e, hot, inverse, x, first, mean, cols, D: tl.constexpr, FD: tl.constexpr, MD: tl.constexpr,
    TENSOR_CORES: tl.constexpr,
):  # fmt: skip
    """Sums of classes (K, columns), a chunk each, with the rows of a tile added: of unit rows for FD, of rows for MD.

    Sixteen-bit rows are multiplied as they are, float32 ones centred: what is made of the sums asks for no mean.
    """
    weights = tl.where(hot, inverse[None, :], 0.0)
    new_units = ()
    new_of_e = ()
    for chunk in tl.static_range(len(x)):
        rows = x[chunk]
        if rows.dtype == tl.float32:
            rows = centred(rows, first, mean, cols + chunk * cols.shape[1], D)
        if MD:
            new_of_e += (of_e[chunk] + class_product(hot.to(tl.float32), rows, True, False, TENSOR_CORES),)
        if FD:
            new_units += (units[chunk] + class_product(weights, rows, False, False, TENSOR_CORES),)
    return new_units, new_of_e


@triton.jit
def feature_table(s, w, scale):
    """What the sums s (K, columns) of unit rows take off FD of one embedding, and the gradient of FD in û for each
    class (K, columns)."""
    weighted = tl.sum(w[:, None] * s, 0)
    whole = tl.sum(s, 0)
    taken = 4 * tl.sum(w[:, None] * s * s) - 2 * tl.sum(weighted * whole, 0)
    return taken, (-2 * scale) * (w[:, None] * (4 * s - whole[None, :]) - weighted[None, :])


@triton.jit
def mean_table(sums, counts, cols, scale, D: tl.constexpr):
    """MD of one embedding, and its gradient in each row of a class (K, columns), from sums of rows."""
    present = counts > 0
    per_row = (1 / tl.where(present, counts, 1.0))[:, None]
    means = sums * per_row
    first = tl.sum(tl.where(cols == 0, means, 0.0), 1, keep_dims=True)
    mean, inverse = moments((means,), first, cols, D)
    u = centred(means, first, mean, cols, D) * inverse
    others = tl.sum(u, 0)[None, :] - u
    pairs = tl.sum(tl.where(present, 1.0, 0.0), 0)
    loss = (pairs * (pairs - 1) + tl.sum(tl.sum(u * others, 1), 0)) * scale
    g = 2 * scale * (others - u * tl.sum(u * others, 1, keep_dims=True))
    return loss, g * inverse * per_row


@triton.jit
def zeros_tile(ROWS: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr):
    """A float32 accumulator as wide as a row tile."""
    tile = ()
    for _ in tl.static_range(CHUNKS):
        tile += (tl.zeros((ROWS, BLOCK_D), tl.float32),)
    return tile
