"""Tile arithmetic of Ad-Corre: standardised rows, the chain rule back, and the tables that class sums become."""

import triton
import triton.language as tl

from .tiles import inverse_or_zero, scales_of


@triton.jit
def shifted(x, first, cols, chunk, d):
    """A chunk of rows relative to their first entry, 0 past the width: a large offset costs no digits then, and a
    constant row is exactly zero."""
    return tl.where(cols + chunk * cols.shape[-1] < d, x.to(tl.float32) - first.to(tl.float32), 0.0)


@triton.jit
def centred(x, first, mean, cols, chunk, d):
    """A chunk of rows less their means."""
    return tl.where(cols + chunk * cols.shape[-1] < d, shifted(x, first, cols, chunk, d) - mean, 0.0)


@triton.jit
def standards(x, first, cols, d, CHUNKS: tl.constexpr):
    """Mean of the shifted rows, a power of two that scales the centred ones, and the inverse length of what it scaled,
    0 for constant rows. `x` is a tuple of chunks of whole rows, over their last dimension."""
    LAST: tl.constexpr = len(cols.shape) - 1
    mean = tl.sum(shifted(x[0], first, cols, 0, d), LAST, keep_dims=True)
    for chunk in tl.static_range(1, CHUNKS):
        mean += tl.sum(shifted(x[chunk], first, cols, chunk, d), LAST, keep_dims=True)
    mean = mean / d
    largest = tl.max(tl.abs(centred(x[0], first, mean, cols, 0, d)), LAST, keep_dims=True)
    for chunk in tl.static_range(1, CHUNKS):
        entries = tl.abs(centred(x[chunk], first, mean, cols, chunk, d))
        largest = tl.maximum(largest, tl.max(entries, LAST, keep_dims=True))
    scale, _ = scales_of(largest)
    squared = tl.zeros_like(mean)
    for chunk in tl.static_range(CHUNKS):
        scaled = centred(x[chunk], first, mean, cols, chunk, d) * scale
        squared += tl.sum(scaled * scaled, LAST, keep_dims=True)
    return mean, scale, inverse_or_zero(tl.sqrt(squared))


@triton.jit
def standardise(x, first, cols, d):
    """Rows centred and scaled to length one, over the last dimension, and inverse lengths, 0 for constant rows."""
    mean, scale, inverse = standards((x,), first, cols, d, 1)
    return centred(x, first, mean, cols, 0, d) * scale * inverse, inverse * scale


@triton.jit
def chain(g, u, inverse, cols, d):
    """The gradient g in û taken back to the row it came from: centred (g - û (û·g)) / length."""
    g = (g - u * tl.sum(g * u, len(g.shape) - 1, keep_dims=True)) * inverse
    return tl.where(cols < d, g - tl.sum(tl.where(cols < d, g, 0.0), len(g.shape) - 1, keep_dims=True) / d, 0.0)


@triton.jit
def feature_table(s, w, scale):
    """What a chunk of the sums s (K, BLOCK_D) of unit rows takes off FD of one embedding, in float64, and the gradient
    of FD in û for each class (K, BLOCK_D)."""
    weighted = tl.sum(w[:, None] * s, 0)
    whole = tl.sum(s, 0)
    own = tl.sum(w[:, None].to(tl.float64) * s.to(tl.float64) * s.to(tl.float64))
    crossed = tl.sum(weighted.to(tl.float64) * whole.to(tl.float64), 0)
    return 4 * own - 2 * crossed, (-2 * scale) * (w[:, None] * (4 * s - whole[None, :]) - weighted[None, :])


@triton.jit
def mean_table(sums, counts, cols, d, scale, ROWS: tl.constexpr):
    """MD of one embedding, and its gradient in each row of a class (K, D), from the sums (K, D) of rows."""
    present = counts > 0
    means = sums / tl.where(present, counts, 1.0)[:, None]
    first = tl.sum(tl.where(cols == 0, means, 0.0), 1)[:, None]
    u, inverse = standardise(means, first, cols, d)
    others = tl.sum(u, 0)[None, :] - u
    pairs = tl.sum(tl.where(present, 1.0, 0.0), 0)
    loss = (pairs * (pairs - 1) + tl.sum(tl.sum(u * others, 1), 0)) * scale
    g = chain(2 * scale * others, u, inverse, cols, d)
    return loss, g / tl.where(present, counts, 1.0)[:, None]
