"""Device helpers shared by the class-table and Ad-Corre engines.

A tile of rows is a tuple of column chunks, each (BLOCK_N, BLOCK_D), so that a row of any width is read once, stays in
registers, and no temporary is wider than a chunk.
"""

import triton
import triton.language as tl

FAN_IN = tl.constexpr(16)  # slabs one program folds; two levels cover every grid


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
def load_tile(ptr, rows, row_ok, stride, width, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr):
    """Whole rows as a tuple of chunks."""
    tile = ()
    for chunk in tl.static_range(CHUNKS):
        tile += (load_chunk(ptr, rows, row_ok, stride, chunk, width, BLOCK_D),)
    return tile


@triton.jit
def zeros_tile(ROWS: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr):
    """A float32 accumulator as wide as a row tile."""
    tile = ()
    for _ in tl.static_range(CHUNKS):
        tile += (tl.zeros((ROWS, BLOCK_D), tl.float32),)
    return tile


@triton.jit
def inverse_or_zero(value):
    """1 / value, and 0 at 0: a vector of length zero has no direction."""
    return tl.where(value == 0, 0.0, 1.0 / tl.where(value == 0, 1.0, value))


@triton.jit
def finite_or_zero(x):
    """NaN and inf replaced by 0."""
    return tl.where(x - x == 0, x, tl.zeros_like(x))


@triton.jit
def tile_lengths(tile, ROWS: tl.constexpr, CHUNKS: tl.constexpr):
    """Lengths of the rows of a tile: (ROWS,). Squares are taken after division by the largest entry."""
    largest = tl.zeros((ROWS,), tl.float32)
    for chunk in tl.static_range(CHUNKS):
        largest = tl.maximum(largest, tl.max(tl.abs(tile[chunk].to(tl.float32)), 1))
    squared = tl.zeros((ROWS,), tl.float32)
    divisor = tl.where(largest > 0, largest, 1.0)[:, None]
    for chunk in tl.static_range(CHUNKS):
        scaled = tile[chunk].to(tl.float32) / divisor
        squared += tl.sum(scaled * scaled, 1)
    # A maximum may drop NaN; the sum of squares does not.
    return tl.where(squared == 0, 0.0, tl.where(largest > 0, largest, 1.0) * tl.sqrt(squared))


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
def class_sum_product(hot, x, total, TENSOR_CORES: tl.constexpr):
    """total + hotᵀ x for hot (rows, classes) of zeros and ones: float32 sums of unrounded entries.

    Sixteen-bit rows are exact as they are. A float32 row is the exact sum of three TF32 numbers, and the products with
    0 and 1 are exact, so three tensor-core products replace the multiply-add units; where there are none, one product.
    """
    if x.dtype != tl.float32:
        total = tl.dot(tl.trans(hot.to(x.dtype)), x, total)
    elif TENSOR_CORES:
        flags = tl.trans(hot.to(tl.float32))
        high, middle, low = _pieces(x)
        total = tl.dot(flags, high, total, input_precision="tf32")
        total = tl.dot(flags, middle, total, input_precision="tf32")
        total = tl.dot(flags, low, total, input_precision="tf32")
    else:
        total = tl.dot(tl.trans(hot.to(tl.float32)), x, total, input_precision="ieee")
    return total


@triton.jit
def float32_product(a, b, PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr):
    """a b in float32, of sixteen-bit operands or of float32 ones, at `PRECISION`: "tf32", or "ieee" for full float32.

    A float32 number is the exact sum of three TF32 numbers. Of the nine products of pieces the six largest are taken,
    smallest first; the others lie below 2⁻³² of the whole. Tensor cores truncate where they add, so they sum over no
    more than one tile, which the caller adds to its total with a rounded addition. The layout of their operands is what
    lets the sums of wide rows stay in registers; the multiply-add units would hold whole rows in every thread.
    """
    if a.dtype != tl.float32:
        product = tl.dot(a, b)
    elif PRECISION == "tf32" or not TENSOR_CORES:
        product = tl.dot(a, b, input_precision=PRECISION)
    else:
        a_high, a_middle, a_low = _pieces(a)
        b_high, b_middle, b_low = _pieces(b)
        product = tl.dot(a_middle, b_middle, input_precision="tf32")
        product = tl.dot(a_low, b_high, product, input_precision="tf32")
        product = tl.dot(a_high, b_low, product, input_precision="tf32")
        product = tl.dot(a_middle, b_high, product, input_precision="tf32")
        product = tl.dot(a_high, b_middle, product, input_precision="tf32")
        product = tl.dot(a_high, b_high, product, input_precision="tf32")
    return product


@triton.jit
def read_labels(y_ptr, rows, in_batch, num_classes, status_ptr):
    """Labels safe to index with, and the rows that have one; a label outside [0, C) goes to the status alone."""
    y = tl.load(y_ptr + rows, mask=in_batch, other=0)
    legal = (y >= 0) & (y < num_classes)
    if status_ptr is not None:
        tl.store(status_ptr + tl.zeros_like(rows), y, mask=in_batch & ~legal)
    return tl.where(legal, y, 0).to(tl.int32), in_batch & legal


@triton.jit
def add_products(
    x, operand, g, hot, push, w_sums, c_sums, push_sums,
    CLASSIFIER: tl.constexpr, UPDATE: tl.constexpr, PUSH: tl.constexpr,
    PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr,
):  # fmt: skip
    """Adds a chunk of rows to its sums per class, (K, BLOCK_D) each: Σ G x, Σ_{y=k} x and Σ_{y≠k} p x."""
    if CLASSIFIER:
        w_sums += float32_product(tl.trans(g.to(operand.dtype)), operand, PRECISION, TENSOR_CORES)
    if UPDATE:
        # A row that is not finite marks its own class through the count; it must not reach the others as 0·NaN.
        c_sums = class_sum_product(hot, finite_or_zero(x), c_sums, TENSOR_CORES)
    if PUSH:
        push_sums += float32_product(tl.trans(push), x.to(tl.float32), "ieee", TENSOR_CORES)
    return w_sums, c_sums, push_sums


@triton.jit
def arrive_last(counter_ptr, expected):
    """Whether this program is the last of `expected` to come here; the counter is then zero again for the next launch.

    The barrier puts every thread's stores before the release; the acquire puts the loads of the last program after
    every other program's release. Which program is last varies between runs; what it adds up, and in which order, not.
    """
    tl.debug_barrier()
    ticket = tl.atomic_add(counter_ptr, 1, sem="acq_rel")
    last = ticket == expected - 1
    if last:
        tl.store(counter_ptr, 0)
    return last


@triton.jit
def fold_chunk(slabs_ptr, first, count, width, chunk, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """Σ over `count` slabs from `first` on of one chunk, in that order: (ROWS, BLOCK_D).

    Slabs (programs, ROWS, width) are float32; `.cg` reads past the L1, which another program's stores do not reach.
    """
    rows = tl.arange(0, ROWS).to(tl.int64)
    cols = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros((ROWS, BLOCK_D), tl.float32)
    for i in range(count):
        at = slabs_ptr + ((first + i) * ROWS + rows)[:, None] * width + cols[None, :]
        total += tl.load(at, mask=(cols < width)[None, :], other=0.0, cache_modifier=".cg")
    return total


@triton.jit
def store_slab_chunk(slabs_ptr, value, slab, width, chunk, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """One chunk of a program's slab (ROWS, width)."""
    rows = slab * ROWS + tl.arange(0, ROWS)
    store_chunk(slabs_ptr, value, rows, rows >= 0, width, chunk, width, BLOCK_D)


@triton.jit
def fold_slabs(slabs_ptr, first, count, into, d, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr):
    """Slab `into` = Σ of `count` slabs from `first` on."""
    for chunk in tl.static_range(CHUNKS):
        total = fold_chunk(slabs_ptr, first, count, d, chunk, K, BLOCK_D)
        store_slab_chunk(slabs_ptr, total, into, d, chunk, K, BLOCK_D)
