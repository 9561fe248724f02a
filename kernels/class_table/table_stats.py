"""What depends on the tables alone, once a call: lengths and unit rows, the spread of the centers, means of the others.

And the two factors of the loss that are sums over rows and yet must be known before the first gradient is written:
Σ W_y of a weighted mean, and for MVA Σ ‖x - c_y‖² of every feature group. Floor: a read of each table, of the labels
for the first sum, of the features for the second.
"""

import triton
import triton.language as tl

from ..common.tiles import inverse_or_zero, load_per_class, load_row, read_labels, store_chunk
from .arguments import ALONG, INVERSE, LENGTH, REST, SCALAR, SPREAD, STATISTICS, VARYING
from .tiles import load_tile, row_sums, table_rows

LABELS = tl.constexpr(1024)  # of a tile of labels alone


@triton.jit
def table_chunk(ptr, num_classes, d, chunk, K: tl.constexpr, BLOCK_D: tl.constexpr):
    """Columns of a (C, d) table: (K, BLOCK_D) in float32, zero past the last class."""
    classes = tl.arange(0, K)[:, None]
    columns = tl.arange(0, BLOCK_D)[None, :]
    ok = (classes < num_classes) & (chunk * BLOCK_D + columns < d)
    return tl.load(ptr + chunk * BLOCK_D + (classes * d + columns), mask=ok, other=0.0).to(tl.float32)


@triton.jit
def put(tables, row, values, K: tl.constexpr):
    """Writes a row (K,) of the statistics."""
    tl.store(tables.statistics + row * K + tl.arange(0, K), values)


@triton.jit
def lengths(ptr, num_classes, d, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr):
    """Lengths of the rows of a table: (K,), zero past the last class."""
    squared = tl.zeros((K,), tl.float32)
    for chunk in range(CHUNKS):
        rows = table_chunk(ptr, num_classes, d, chunk, K, BLOCK_D)
        squared += tl.sum(rows * rows, 1)
    return tl.sqrt(squared)


@triton.jit
def class_weights(
    tables, num_classes, d, UNIT: tl.constexpr, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr
):
    """Lengths of the class weights, and where a head asks for them their directions."""
    length = lengths(tables.w, num_classes, d, K, BLOCK_D, CHUNKS)
    put(tables, LENGTH, length, K)
    if UNIT:
        classes = tl.arange(0, K)
        inverse = inverse_or_zero(length)[:, None]
        for chunk in range(CHUNKS):
            unit = table_chunk(tables.w, num_classes, d, chunk, K, BLOCK_D) * inverse
            store_chunk(tables.statistics + STATISTICS * K, unit, classes, classes < num_classes, d, chunk, d, BLOCK_D)


@triton.jit
def center_directions(tables, num_classes, d, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr):
    """1/‖c_k‖ (0 for a zero center) and ĉ_k·Σ_{j≠k} ĉ_j."""
    inverse = inverse_or_zero(lengths(tables.c, num_classes, d, K, BLOCK_D, CHUNKS))
    along = tl.zeros((K,), tl.float32)
    for chunk in range(CHUNKS):
        directions = table_chunk(tables.c, num_classes, d, chunk, K, BLOCK_D) * inverse[:, None]
        along += tl.sum(directions * (tl.sum(directions, 0)[None, :] - directions), 1)
    put(tables, INVERSE, inverse, K)
    put(tables, ALONG, along, K)


@triton.jit
def center_spread(ptr, num_classes, d, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr):
    """‖c_k - c̄‖² for each class: (K,), zero past the last class.

    Centers are taken relative to the first, so an offset common to all costs no digits. With V the sum of the result,
    Σ_j ‖c_j - c_k‖² = C ‖c_k - c̄‖² + V and the spread of all ordered pairs is 2 C V: sums of squares, no cancellation.
    """
    real = (tl.arange(0, K) < num_classes)[:, None]
    squared = tl.zeros((K,), tl.float32)
    for chunk in range(CHUNKS):
        first = load_row(ptr, 0, d, chunk, d, BLOCK_D)[None, :]
        shifted = tl.where(real, table_chunk(ptr, num_classes, d, chunk, K, BLOCK_D) - first, 0.0)
        mean = (tl.sum(shifted, 0) / num_classes)[None, :]
        offset = tl.where(real, shifted - mean, 0.0)
        squared += tl.sum(offset * offset, 1)
    return squared


@triton.jit
def others_mean(
    tables, means_ptr, k, num_classes, d, PAPER: tl.constexpr, K: tl.constexpr, BLOCK_D: tl.constexpr,
    CHUNKS: tl.constexpr,
):  # fmt: skip
    """Mean c̄₋k and spread V₋k = Σ_{j≠k} ‖c_j - c̄₋k‖² of the centers other than k.

    Each is summed without k, relative to one of the others: as a difference of sums over all classes V₋k would lose its
    digits where c_k lies far out. The mean is written as the sum of two numbers, for it may lie nearer to a sample than
    one float32 can say: rows k of two tables (K, d). `PAPER` asks for c_k - c̄₋k too, in a third.
    """
    classes = tl.arange(0, K)
    besides = ((classes < num_classes) & (classes != k))[:, None]
    row = k + tl.zeros((1,), tl.int32)
    near = tl.where(k == 0, tl.minimum(1, num_classes - 1), 0)
    rest = 0.0
    for chunk in range(CHUNKS):
        base = load_row(tables.c, near, d, chunk, d, BLOCK_D)[None, :]
        shifted = tl.where(besides, table_chunk(tables.c, num_classes, d, chunk, K, BLOCK_D) - base, 0.0)
        mean = (tl.sum(shifted, 0) / tl.maximum(num_classes - 1, 1))[None, :]
        offset = tl.where(besides, shifted - mean, 0.0)
        rest += tl.sum(tl.sum(offset * offset, 1), 0)
        high = base + mean
        part = high - base
        low = (base - (high - part)) + (mean - part)
        store_chunk(means_ptr, high, row, row >= 0, d, chunk, d, BLOCK_D)
        store_chunk(means_ptr + K * d, low, row, row >= 0, d, chunk, d, BLOCK_D)
        if PAPER:
            c = load_row(tables.c, k, d, chunk, d, BLOCK_D)[None, :]
            store_chunk(means_ptr + 2 * K * d, c - high - low, row, row >= 0, d, chunk, d, BLOCK_D)
    tl.store(tables.statistics + REST * K + k, rest)


@triton.jit
def sum_of_weights(batch, tables, n, num_classes):
    """Σ W_y over the program's share of the labels."""
    total = tl.zeros((LABELS,), tl.float64)
    for tile in range(tl.program_id(0), tl.cdiv(n, LABELS), tl.num_programs(0)):
        rows = tile * LABELS + tl.arange(0, LABELS)
        y, valid = read_labels(batch.y, rows, rows < n, num_classes, None)
        total += tl.load(tables.class_weights + y, mask=valid, other=0.0).to(tl.float64)
    return tl.sum(total, 0)


@triton.jit
def sum_of_distances(
    x_ptr, y_ptr, weights_ptr, n, x_stride, c_ptr, num_classes, status_ptr, d, R: tl.constexpr, P: tl.constexpr,
    W: tl.constexpr,
):  # fmt: skip
    """Σ w ‖x - c_y‖² over the program's share of some rows, NaN for a label that is no class."""
    total = tl.zeros((R,), tl.float64)
    for tile in range(tl.program_id(0), tl.cdiv(n, R), tl.num_programs(0)):
        rows = tile * R + tl.arange(0, R)
        y, valid = read_labels(y_ptr, rows, rows < n, num_classes, status_ptr)
        there = valid
        if weights_ptr is not None:
            weight = tl.load(weights_ptr + rows, mask=valid, other=0.0)
            there = valid & (weight != 0)
        x = load_tile(x_ptr, tile * R, there, x_stride, d, P, W).to(tl.float32)
        offset = x - table_rows(c_ptr, y, d, P, W)
        own = row_sums(offset * offset)
        if weights_ptr is not None:
            own *= weight
        total += tl.where(valid, own, tl.where(rows < n, float("nan"), 0.0)).to(tl.float64)
    return tl.sum(total, 0)


@triton.jit
def rows_of_group(batch, group_sizes, v: tl.constexpr):
    """How many rows of group v of MVA are real."""
    size = tl.zeros((), tl.float32) + group_sizes[v]
    if batch.group_rows is not None:
        size = tl.load(batch.group_rows + v)
    return size


@triton.jit(do_not_specialize=VARYING)
def table_stats(
    batch, tables, head, rule, n, num_classes, group_sizes, x_stride, group_strides, d: tl.constexpr, K: tl.constexpr,
    BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr, R: tl.constexpr, P: tl.constexpr, W: tl.constexpr,
    SLOTS: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """The statistics of the tables by the first program, the means of the others and the sums over rows by all."""
    program = tl.program_id(0)
    if program == 0:
        if head.lengths:
            class_weights(tables, num_classes, d, head.unit_w, K, BLOCK_D, CHUNKS)
        if rule.directions:
            center_directions(tables, num_classes, d, K, BLOCK_D, CHUNKS)
        if rule.spread:
            squared = center_spread(tables.c, num_classes, d, K, BLOCK_D, CHUNKS)
            put(tables, SPREAD, squared, K)
            if rule.scalar is not None:
                whole = tl.sum(squared, 0)
                weights = load_per_class(tables.center_weights, num_classes, 1.0, K)
                scalar = rule.scalar(weights, num_classes * squared + whole, whole / (num_classes - 1), rule.a)
                put(tables, SCALAR, scalar, K)
    if rule.anti:
        means_ptr = others_table(tables, head, d, K)
        for k in range(program, num_classes, tl.num_programs(0)):
            others_mean(tables, means_ptr, k, num_classes, d, rule.paper_slope is not None, K, BLOCK_D, CHUNKS)
    if WEIGHTED:
        tl.store(tables.sums + program * SLOTS, sum_of_weights(batch, tables, n, num_classes))
    if len(batch.groups_x) > 0:
        own = sum_of_distances(
            batch.x, batch.y, batch.sample_weights, n, x_stride, tables.c, num_classes, batch.status, d, R, P, W
        )  # fmt: skip
        tl.store(tables.sums + program * SLOTS + 1, own)
    for v in tl.static_range(len(batch.groups_x)):
        size = rows_of_group(batch, group_sizes, v).to(tl.int32)
        own = sum_of_distances(
            batch.groups_x[v], batch.groups_y[v], None, size, group_strides[v], tables.c, num_classes, batch.status, d,
            R, P, W,
        )  # fmt: skip
        tl.store(tables.sums + program * SLOTS + 2 + v, own)


@triton.jit
def unit_weights(tables, head, K: tl.constexpr):
    """Where the class weights lie that rows are multiplied by."""
    return tables.statistics + STATISTICS * K if head.unit_w else tables.w


@triton.jit
def others_table(tables, head, d: tl.constexpr, K: tl.constexpr):
    """Where the means of the other centers lie, behind the unit class weights."""
    return tables.statistics + (STATISTICS * K + K * d * head.unit_w)
