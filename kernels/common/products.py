"""Products of tiles in float32 on tensor cores: of rows with a table, and sums of rows by class."""

import triton
import triton.language as tl


@triton.jit
def _leading_bits(x):
    """The 11 leading bits of a float32: exactly a TF32 number."""
    bits = x.to(tl.uint32, bitcast=True) & 0xFFFFE000
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _pieces(x):
    """Three TF32 numbers that add up to a float32 without error. Of inf and NaN the rest is NaN, as the product."""
    high = _leading_bits(x)
    middle = _leading_bits(x - high)
    return high, middle, x - high - middle


@triton.jit
def float32_product(a, b, PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr):
    """a b in float32, at `PRECISION`: "tf32", or "ieee" for full float32. Of two sixteen-bit tiles, of two float32
    ones, or of a float32 one and a sixteen-bit one, which is not widened in memory.

    A float32 number is the exact sum of three TF32 numbers, and a sixteen-bit number is one. Of the nine products of
    pieces the six largest are taken, smallest first; the others lie below 2⁻³² of the whole. Tensor cores truncate
    where they add, so they sum over no more than one tile, which the caller adds to its total with a rounded addition.
    The layout of their operands is what lets the sums of wide rows stay in registers; the multiply-add units would
    hold whole rows in every thread.
    """
    if a.dtype != tl.float32:
        product = tl.dot(a, b)
    elif PRECISION == "tf32" or not TENSOR_CORES:
        product = tl.dot(a, b.to(tl.float32), input_precision=PRECISION)
    else:
        a_high, a_middle, a_low = _pieces(a)
        if b.dtype == tl.float32:
            b_high, b_middle, b_low = _pieces(b)
            product = tl.dot(a_middle, b_middle, input_precision="tf32")
            product = tl.dot(a_low, b_high, product, input_precision="tf32")
            product = tl.dot(a_high, b_low, product, input_precision="tf32")
            product = tl.dot(a_middle, b_high, product, input_precision="tf32")
            product = tl.dot(a_high, b_middle, product, input_precision="tf32")
        else:
            b_high = b.to(tl.float32)
            product = tl.dot(a_low, b_high, input_precision="tf32")
            product = tl.dot(a_middle, b_high, product, input_precision="tf32")
        product = tl.dot(a_high, b_high, product, input_precision="tf32")
    return product


@triton.jit
def two_pieces(x, HALF: tl.constexpr):
    """A float32 as the sum of what a product takes as it is and a rest: two bfloat16 numbers that hold 16 of its 24
    bits, or a TF32 number and what lacks the last bit in TF32."""
    if HALF:
        high = x.to(tl.bfloat16)
        rest = (x - high.to(tl.float32)).to(tl.bfloat16)
    else:
        bits = (x.to(tl.uint32, bitcast=True) + 0x1000) & 0xFFFFE000
        high = bits.to(tl.float32, bitcast=True)
        rest = x - high
    return high, rest


@triton.jit
def class_product(weights, x, EXACT: tl.constexpr, WHOLE: tl.constexpr, TENSOR_CORES: tl.constexpr):
    """weights x in float32: weights (K, rows), x (rows, columns) of any dtype. `EXACT` weights are 0 or 1; of `WHOLE`
    ones beside bfloat16 rows every bit counts, not 16 of 24."""
    HALF: tl.constexpr = x.dtype == tl.bfloat16 and not WHOLE
    if not (HALF or TENSOR_CORES):
        return tl.dot(weights, x.to(tl.float32), input_precision="ieee")
    high, low = two_pieces(weights, HALF)
    if x.dtype == tl.float32:
        rows, rest = two_pieces(x, False)
        total = tl.dot(high, rest, input_precision="tf32")
        if not EXACT:
            total = tl.dot(low, rows, total, input_precision="tf32")
        total = tl.dot(high, rows, total, input_precision="tf32")
    else:
        rows = x if HALF else x.to(tl.float32)
        total = tl.dot(high, rows, input_precision="tf32")
        if not EXACT:
            total = tl.dot(low, rows, total, input_precision="tf32")
    return total
