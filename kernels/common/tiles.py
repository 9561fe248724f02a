"""Tiles of rows in chunks of columns: loads and stores, labels, and numbers that stay finite."""

import triton
import triton.language as tl


@triton.jit
def load_chunk(ptr, rows, row_ok, stride, chunk, width, BLOCK_D: tl.constexpr):
    """Columns [chunk·BLOCK_D, ...) of the given rows: (rows, BLOCK_D), zero outside. Offsets are 64-bit."""
    cols = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    at = ptr + rows.to(tl.int64)[:, None] * stride + cols[None, :]
    return tl.load(at, mask=row_ok[:, None] & (cols < width)[None, :], other=0.0)


@triton.jit
def store_chunk(ptr, value, rows, row_ok, stride, chunk, width, BLOCK_D: tl.constexpr):
    """The store that mirrors :func:`load_chunk`; the value is rounded to the element type of `ptr`."""
    cols = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    at = ptr + rows.to(tl.int64)[:, None] * stride + cols[None, :]
    tl.store(at, value.to(ptr.dtype.element_ty), mask=row_ok[:, None] & (cols < width)[None, :])


@triton.jit
def load_row(ptr, row, stride, chunk, width, BLOCK_D: tl.constexpr):
    """One row's chunk in float32: (BLOCK_D,)."""
    cols = chunk * BLOCK_D + tl.arange(0, BLOCK_D).to(tl.int64)
    return tl.load(ptr + row * stride + cols, mask=cols < width, other=0.0).to(tl.float32)


@triton.jit
def is_finite(x):
    """Neither NaN nor infinite. Where x is a product, x - x is no such test: compilers make of the two one fused step,
    which leaves the rounding of the product."""
    return tl.abs(x) < float("inf")


@triton.jit
def load_per_class(ptr, num_classes, DEFAULT: tl.constexpr, K: tl.constexpr):
    """An optional vector of C numbers as (K,) float32; `DEFAULT` without one, 0 past the last class."""
    classes = tl.arange(0, K)
    if ptr is None:
        values = tl.where(classes < num_classes, DEFAULT, 0.0)
    else:
        values = tl.load(ptr + classes, mask=classes < num_classes, other=0.0).to(tl.float32)
    return values


@triton.jit
def value_of(number):
    """A number, or the one a pointer leads to, in float32."""
    value = number
    if isinstance(number, tl.tensor) and number.dtype.is_ptr():  # a Python number in the interpreter
        value = tl.load(number).to(tl.float32)
    return value


@triton.jit
def inverse_or_zero(value):
    """1 / value, and 0 at 0: a vector of length zero has no direction."""
    return tl.where(value == 0, 0.0, 1.0 / tl.where(value == 0, 1.0, value))


@triton.jit
def scales_of(largest):
    """A power of two that brings numbers of at most this size below 4, and its inverse: squares of what it scaled
    neither overflow nor vanish, and no digit is rounded. Inf becomes NaN."""
    exponent = (largest.to(tl.int32, bitcast=True) >> 23) & 255
    exponent = tl.minimum(255 - exponent, 253)
    scale = (exponent << 23).to(tl.float32, bitcast=True)
    return scale, ((254 - exponent) << 23).to(tl.float32, bitcast=True)


@triton.jit
def read_labels(y_ptr, rows, in_batch, num_classes, status_ptr):
    """Labels safe to index with, and the rows that have one; a label outside [0, C) goes to the status alone."""
    y = tl.load(y_ptr + rows, mask=in_batch, other=0)
    unsigned: tl.constexpr = tl.uint64 if y.dtype == tl.int64 else tl.uint32
    legal = y.to(unsigned, bitcast=True) < num_classes
    if status_ptr is not None:
        tl.store(status_ptr + tl.zeros_like(rows), y, mask=in_batch & ~legal)
    return tl.where(legal, y, 0).to(tl.int32), in_batch & legal
