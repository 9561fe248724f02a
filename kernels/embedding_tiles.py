"""Tile arithmetic of Ad-Corre: moments of rows, sums of a class, and the tables that class sums become."""

import triton
import triton.language as tl


@triton.jit
def centred(x, first, mean, cols, D: tl.constexpr):
    """Rows less their means, which are relative to their first entries; 0 past the width. A large offset costs no
    digits so, and a constant row is exactly zero."""
    return tl.where(cols < D, x.to(tl.float32) - first - mean, 0.0)


@triton.jit
def moments(x, first, cols, D: tl.constexpr):
    """Mean of whole rows (rows, columns), relative to their first entries, and inverse length of the centred ones: (rows, 1).

    The inverse is 0 for a constant row, also one shorter than 1e-19, and NaN where squares overflow, beyond 1e19.
    """
    mean = tl.sum(centred(x, first, 0.0, cols, D), 1, keep_dims=True) / D
    v = centred(x, first, mean, cols, D)
    squared = tl.sum(v * v, 1, keep_dims=True)
    return mean, tl.rsqrt(tl.where(squared < 1.2e-38, float("inf"), squared)) + (squared - squared)


@triton.jit
def weight_pieces(weights, x, TENSOR_CORES: tl.constexpr):
    """Float32 numbers as a sum of two that a product with 16-bit rows `x` takes as they are: bfloat16, else TF32."""
    if x.dtype == tl.bfloat16:
        high = weights.to(tl.bfloat16)
        return high, (weights - high.to(tl.float32)).to(tl.bfloat16)
    else:
        return tf32_pieces(weights)


@triton.jit
def tf32_pieces(x):
    """A float32 as a TF32 number and the rest, of which a TF32 product takes all but the last bit."""
    bits = (x.to(tl.uint32, bitcast=True) + 0x1000) & 0xFFFFE000
    high = bits.to(tl.float32, bitcast=True)
    return high, x - high


@triton.jit
def add_class_sums(sums, units, x, v, hot, inverse, FD: tl.constexpr, MD: tl.constexpr, TENSOR_CORES: tl.constexpr):
    """Σ x and Σ x / ‖v‖ of each class (K, D) with a tile added: x (rows, D), v its centred rows, hot (rows, K)."""
    flags = hot.to(tl.float32)
    weights = tl.where(hot, inverse[None, :], 0.0)
    if x.dtype == tl.bfloat16:
        high = weights.to(tl.bfloat16)
        low = (weights - high.to(tl.float32)).to(tl.bfloat16)
        if MD:
            sums += tl.dot(flags.to(tl.bfloat16), x)
        if FD:
            units += tl.dot(high, x, tl.dot(low, x))
    elif not TENSOR_CORES:
        if MD:
            sums += tl.dot(flags, v, input_precision="ieee")
        if FD:
            units += tl.dot(weights, v, input_precision="ieee")
    else:
        high, low = tf32_pieces(weights)
        if x.dtype == tl.float32:
            rows, rest = tf32_pieces(v)
            if MD:
                sums += tl.dot(flags, rows, tl.dot(flags, rest, input_precision="tf32"), input_precision="tf32")
            if FD:
                part = tl.dot(high, rest, tl.dot(low, rows, input_precision="tf32"), input_precision="tf32")
                units += tl.dot(high, rows, part, input_precision="tf32")
        else:
            rows = x.to(tl.float32)
            if MD:
                sums += tl.dot(flags, rows, input_precision="tf32")
            if FD:
                units += tl.dot(high, rows, tl.dot(low, rows, input_precision="tf32"), input_precision="tf32")
    return sums, units


@triton.jit
def feature_table(s, w, scale, cols, D: tl.constexpr):
    """What the sums s (K, columns) of rows over their lengths take off FD of one embedding, in float64, and the
    gradient of FD in û for each class."""
    s = tl.where(cols < D, s - tl.sum(s, 1, keep_dims=True) / D, 0.0)
    weighted = tl.sum(w[:, None] * s, 0)
    whole = tl.sum(s, 0)
    own = tl.sum(w[:, None].to(tl.float64) * s.to(tl.float64) * s.to(tl.float64))
    crossed = tl.sum(weighted.to(tl.float64) * whole.to(tl.float64), 0)
    return 4 * own - 2 * crossed, (-2 * scale) * (w[:, None] * (4 * s - whole[None, :]) - weighted[None, :])


@triton.jit
def mean_table(sums, counts, cols, scale, D: tl.constexpr):
    """MD of one embedding, and its gradient in each row of a class (K, columns), from sums of rows."""
    present = counts > 0
    per_row = (1 / tl.where(present, counts, 1.0))[:, None]
    means = sums * per_row
    first = tl.sum(tl.where(cols == 0, means, 0.0), 1, keep_dims=True)
    mean, inverse = moments(means, first, cols, D)
    u = centred(means, first, mean, cols, D) * inverse
    others = tl.sum(u, 0)[None, :] - u
    pairs = tl.sum(tl.where(present, 1.0, 0.0), 0)
    loss = (pairs * (pairs - 1) + tl.sum(tl.sum(u * others, 1), 0)) * scale
    g = 2 * scale * (others - u * tl.sum(u * others, 1, keep_dims=True))
    return loss, g * inverse * per_row
