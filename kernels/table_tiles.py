"""Tile arithmetic of the center family: properties of the table of centers, and offsets of rows from it."""

import triton
import triton.language as tl

from .tiles import inverse_or_zero, lengths_of, load_again, load_chunk, load_per_class, load_row, rows_in_chunks


@triton.jit
def center_spread(c_ptr, num_classes, d, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr):
    """‖c_k - c̄‖² for each class: (K,), zero past the last class.

    Centers are taken relative to the first, so an offset common to all costs no digits. With V the sum of the result,
    Σ_j ‖c_j - c_k‖² = C ‖c_k - c̄‖² + V and the spread of all ordered pairs is 2 C V: sums of squares, no cancellation.
    """
    classes = tl.arange(0, K)
    real = classes < num_classes
    squared = tl.zeros((K,), tl.float32)
    for chunk in range(CHUNKS):
        first = load_row(c_ptr, 0, d, chunk, d, BLOCK_D)
        table = load_chunk(c_ptr, classes, real, d, chunk, d, BLOCK_D).to(tl.float32)
        shifted = tl.where(real[:, None], table - first[None, :], 0.0)
        mean = tl.sum(shifted, 0) / num_classes
        offset = tl.where(real[:, None], shifted - mean[None, :], 0.0)
        squared += tl.sum(offset * offset, 1)
    return squared


@triton.jit
def leave_one_out(
    squared, c_ptr, rows_ptr, num_classes, d, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr
):
    """What the anti-center distance S = Σ_{j≠y} ‖x - c_j‖² = (C-1) ‖x - c̄₋y‖² + V₋y needs of the table.

    V₋k, the spread of the others about their mean c̄₋k, is V - C/(C-1) ‖c_k - c̄‖². That loses digits only for a class
    holding most of V. Just one class, the outlier, can hold more than half of it; its c̄₋k and V₋k are summed without
    it. Of the others' means the outlier is a part, and they are taken relative to it. Returns V₋k (K,), the outlier, a
    class beside it (the anchor of its own mean), and where two rows were put, a copy for each program: c̄ without the
    outlier less the anchor, and Σ_j (c_j - outlier). Read again at every tile, they take no registers in between.
    """
    classes = tl.arange(0, K)
    real = classes < num_classes
    outlier = tl.minimum(tl.argmax(tl.where(real, squared, -1.0), 0), num_classes - 1)
    anchor = tl.where(outlier == 0, tl.minimum(1, num_classes - 1), 0)
    others = tl.maximum(num_classes - 1, 1)
    rest = 0.0
    rows_ptr += tl.program_id(0).to(tl.int64) * 2 * d
    for chunk in range(CHUNKS):
        at_outlier = load_row(c_ptr, outlier, d, chunk, d, BLOCK_D)
        at_anchor = load_row(c_ptr, anchor, d, chunk, d, BLOCK_D)
        table = load_chunk(c_ptr, classes, real, d, chunk, d, BLOCK_D).to(tl.float32)
        besides = (real & (classes != outlier))[:, None]
        shifted = tl.where(besides, table - at_anchor[None, :], 0.0)
        mean = tl.sum(shifted, 0) / others
        offset = tl.where(besides, shifted - mean[None, :], 0.0)
        rest += tl.sum(tl.sum(offset * offset, 1), 0)
        cols = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
        tl.store(rows_ptr + cols, mean, mask=cols < d)
        total = tl.sum(tl.where(real[:, None], table - at_outlier[None, :], 0.0), 0)
        tl.store(rows_ptr + d + cols, total, mask=cols < d)
    tl.debug_barrier()
    whole = tl.sum(squared, 0)
    spread = tl.maximum(whole - squared * (num_classes.to(tl.float32) / others), 0.0)
    # Two classes: the others of each are one center, which has no spread.
    spread = tl.where(num_classes > 2, spread, 0.0)
    return tl.where(classes == outlier, rest, spread), outlier, anchor, rows_ptr


@triton.jit
def own_offset(x, y, row_ok, c_ptr, d, chunk, BLOCK_D: tl.constexpr):
    """x - c_y of a chunk. The table's rows come from the L1, where a small table stays."""
    return x.to(tl.float32) - load_chunk(c_ptr, y, row_ok, d, chunk, d, BLOCK_D).to(tl.float32)


@triton.jit
def anti_offset(x, y, row_ok, c_ptr, num_classes, d, without, chunk, BLOCK_D: tl.constexpr):
    """x - c̄₋y of a chunk, c̄₋y the mean of the other centers; `without` is what :func:`leave_one_out` returned."""
    _, outlier, anchor, rows_ptr = without
    rest_mean = load_row(rows_ptr, 0, d, chunk, d, BLOCK_D)[None, :]
    total = load_row(rows_ptr, 1, d, chunk, d, BLOCK_D)[None, :]
    at_outlier = load_row(c_ptr, outlier, d, chunk, d, BLOCK_D)[None, :]
    at_anchor = load_row(c_ptr, anchor, d, chunk, d, BLOCK_D)[None, :]
    own = load_chunk(c_ptr, y, row_ok, d, chunk, d, BLOCK_D).to(tl.float32)
    x = x.to(tl.float32)
    mean = (total - (own - at_outlier)) / tl.maximum(num_classes - 1, 1)
    return tl.where((y == outlier)[:, None], x - at_anchor - rest_mean, x - at_outlier - mean)


@triton.jit
def others_offset(y, row_ok, c_ptr, num_classes, d, without, chunk, BLOCK_D: tl.constexpr):
    """Σ_j (c_y - c_j) of a chunk."""
    _, outlier, _, rows_ptr = without
    total = load_row(rows_ptr, 1, d, chunk, d, BLOCK_D)[None, :]
    own = load_chunk(c_ptr, y, row_ok, d, chunk, d, BLOCK_D).to(tl.float32)
    return num_classes * (own - load_row(c_ptr, outlier, d, chunk, d, BLOCK_D)[None, :]) - total


@triton.jit
def center_directions(c_ptr, num_classes, d, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr):
    """1/‖c_k‖ (0 for a zero center) and ĉ_k·Σ_{j≠k} ĉ_j: (K,) both."""
    inverse = inverse_or_zero(class_lengths(c_ptr, num_classes, d, False, K, BLOCK_D, CHUNKS))
    classes = tl.arange(0, K)
    along = tl.zeros((K,), tl.float32)
    for chunk in range(CHUNKS):
        table = load_chunk(c_ptr, classes, classes < num_classes, d, chunk, d, BLOCK_D).to(tl.float32)
        directions = table * inverse[:, None]
        along += tl.sum(directions * (tl.sum(directions, 0)[None, :] - directions), 1)
    return inverse, along


@triton.jit
def class_lengths(
    w_ptr, num_classes, d, HELD: tl.constexpr, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr
):
    """Lengths of the rows of a (C, d) table: (K,), zero past the last class."""
    classes = tl.arange(0, K)
    table = rows_in_chunks(w_ptr, classes, classes < num_classes, d, d, HELD, BLOCK_D, CHUNKS)
    return lengths_of(table, K, BLOCK_D, CHUNKS)


@triton.jit
def read_centers(
    c_ptr, rows_ptr, center_weights_ptr, scales_ptr, auxiliary, num_classes, d, CLASS_SCALAR: tl.constexpr,
    K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr, ANTI: tl.constexpr,
):  # fmt: skip
    """The loss's factor per class (K,), the spread of all ordered pairs, and what :func:`leave_one_out` returns."""
    squared = center_spread(c_ptr, num_classes, d, K, BLOCK_D, CHUNKS)
    whole = tl.sum(squared, 0)
    classes = num_classes.to(tl.float32)
    weights = load_per_class(center_weights_ptr, num_classes, 1.0, K)
    scalar = CLASS_SCALAR(weights, classes * squared + whole, whole / (classes - 1), auxiliary)
    if scales_ptr is not None:
        scalar *= tl.load(scales_ptr + 1)
    without = ()
    if ANTI:
        without = leave_one_out(squared, c_ptr, rows_ptr, num_classes, d, K, BLOCK_D, CHUNKS)
    return scalar, 2 * classes * whole, without


@triton.jit
def chunk_distances(
    x, y, valid, c_ptr, num_classes, d, without, chunk,
    ANTI: tl.constexpr, FENCED: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """What a chunk adds to :func:`center_distances`."""
    offset = own_offset(x, y, valid, c_ptr, d, chunk, BLOCK_D)
    own = tl.sum(offset * offset, 1)
    anti = tl.zeros_like(own)
    if ANTI:
        offset = anti_offset(x, y, valid, c_ptr, num_classes, d, without, chunk, BLOCK_D)
        anti += tl.sum(offset * offset, 1)
    if FENCED:
        tl.debug_barrier()  # as in :func:`.classifier_tiles.chunk_products`
    return own, anti


@triton.jit
def center_distances(
    x, y, valid, c_ptr, num_classes, d, without,
    ANTI: tl.constexpr, FENCED: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """‖x - c_y‖² and ‖x - c̄₋y‖² of a tile: (ROWS,) both."""
    own = tl.zeros((ROWS,), tl.float32)
    anti = tl.zeros((ROWS,), tl.float32)
    if x[0].dtype.is_ptr():
        for chunk in tl.range(CHUNKS, disable_licm=True):
            part = load_again(x, chunk, BLOCK_D)
            more, away = chunk_distances(
                part, y, valid, c_ptr, num_classes, d, without, chunk, ANTI, FENCED, BLOCK_D
            )  # fmt: skip
            own += more
            anti += away
    else:
        for chunk in tl.static_range(CHUNKS):
            more, away = chunk_distances(
                x[chunk], y, valid, c_ptr, num_classes, d, without, chunk, ANTI, FENCED, BLOCK_D
            )  # fmt: skip
            own += more
            anti += away
    return own, anti
