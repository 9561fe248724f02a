"""Tile arithmetic of the center family: properties of the table of centers, and offsets of rows from it."""

import triton
import triton.language as tl

from ..ad_corre.tiles import in_turn
from ..common.tiles import inverse_or_zero, load_chunk, load_per_class, load_row, store_chunk
from .chunks import held_chunk, lengths_of, load_again


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
    squared, c_ptr, means_ptr, num_classes, d, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr
):
    """What the anti-center distance S = Σ_{j≠y} ‖x - c_j‖² = (C-1) ‖x - c̄₋y‖² + V₋y needs of the table.

    V₋k, the spread of the others about their mean c̄₋k, is V - C/(C-1) ‖c_k - c̄‖². That loses digits only for a class
    holding most of V. Just one class, the outlier, can hold more than half of it; its c̄₋k and V₋k are summed without
    it, relative to an anchor, a class beside it. Of the others' means the outlier is a part, and they are taken
    relative to it. Returns V₋k (K,), and for :func:`others_mean` outlier, anchor, and where the means (C, d) were put:
    after a barrier, for they are read by other threads than wrote them.
    """
    classes = tl.arange(0, K)
    real = classes < num_classes
    outlier = tl.minimum(tl.argmax(tl.where(real, squared, -1.0), 0), num_classes - 1)
    anchor = tl.where(outlier == 0, tl.minimum(1, num_classes - 1), 0)
    others = tl.maximum(num_classes - 1, 1).to(tl.float32)
    besides = (real & (classes != outlier))[:, None]
    rest = 0.0
    for chunk in range(CHUNKS):
        at_outlier = load_row(c_ptr, outlier, d, chunk, d, BLOCK_D)
        at_anchor = load_row(c_ptr, anchor, d, chunk, d, BLOCK_D)
        table = load_chunk(c_ptr, classes, real, d, chunk, d, BLOCK_D).to(tl.float32)
        shifted = tl.where(besides, table - at_anchor[None, :], 0.0)
        rest_mean = (tl.sum(shifted, 0) / others)[None, :]
        offset = tl.where(besides, shifted - rest_mean, 0.0)
        rest += tl.sum(tl.sum(offset * offset, 1), 0)
        shifted = tl.where(besides, table - at_outlier[None, :], 0.0)
        means = (tl.sum(shifted, 0)[None, :] - shifted) / others
        store_chunk(means_ptr, tl.where(besides, means, rest_mean), classes, real, d, chunk, d, BLOCK_D)
    whole = tl.sum(squared, 0)
    spread = tl.maximum(whole - squared * (num_classes.to(tl.float32) / others), 0.0)
    # Two classes: the others of each are one center, which has no spread.
    spread = tl.where(num_classes > 2, spread, 0.0)
    return tl.where(classes == outlier, rest, spread), (outlier, anchor, means_ptr)


@triton.jit
def own_offset(x, y, row_ok, c_ptr, d, chunk, BLOCK_D: tl.constexpr):
    """x - c_y of a chunk. The table's rows come from the L1, where a small table stays."""
    return x.to(tl.float32) - load_chunk(c_ptr, y, row_ok, d, chunk, d, BLOCK_D).to(tl.float32)


@triton.jit
def others_mean(y, row_ok, c_ptr, num_classes, d, without, chunk, BLOCK_D: tl.constexpr):
    """c̄₋y of a chunk, the mean of the other centers, in two parts: a center, and the mean relative to it.

    `without` has outlier, anchor and means of :func:`leave_one_out`; for a table too large for the means it has two
    rows instead that they are made of, c̄ without the outlier less the anchor, and Σ_j (c_j - outlier).
    """
    outlier, anchor, means_ptr = without[0], without[1], without[2]
    near = load_chunk(c_ptr, tl.where(y == outlier, anchor, outlier), row_ok, d, chunk, d, BLOCK_D).to(tl.float32)
    if len(without) == 3:
        mean = load_chunk(means_ptr, y, row_ok, d, chunk, d, BLOCK_D)
    else:
        total = load_row(without[3], 0, d, chunk, d, BLOCK_D)[None, :]
        own = load_chunk(c_ptr, y, row_ok, d, chunk, d, BLOCK_D).to(tl.float32)
        rest_mean = load_row(means_ptr, 0, d, chunk, d, BLOCK_D)[None, :]
        mean = (total - (own - near)) / tl.maximum(num_classes - 1, 1)
        mean = tl.where((y == outlier)[:, None], rest_mean, mean)
    return near, mean


@triton.jit
def anti_offset(x, y, row_ok, c_ptr, num_classes, d, without, chunk, BLOCK_D: tl.constexpr):
    """x - c̄₋y of a chunk."""
    near, mean = others_mean(y, row_ok, c_ptr, num_classes, d, without, chunk, BLOCK_D)
    return x.to(tl.float32) - near - mean


@triton.jit
def others_offset(y, row_ok, c_ptr, num_classes, d, without, chunk, BLOCK_D: tl.constexpr):
    """Σ_j (c_y - c_j) of a chunk, which is (C-1) (c_y - c̄₋y)."""
    near, mean = others_mean(y, row_ok, c_ptr, num_classes, d, without, chunk, BLOCK_D)
    own = load_chunk(c_ptr, y, row_ok, d, chunk, d, BLOCK_D).to(tl.float32)
    return (num_classes - 1).to(tl.float32) * (own - near - mean)


@triton.jit
def center_directions(c_ptr, num_classes, d, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr):
    """1/‖c_k‖ (0 for a zero center) and ĉ_k·Σ_{j≠k} ĉ_j: (K,) both."""
    inverse = inverse_or_zero(class_lengths(c_ptr, num_classes, d, K, BLOCK_D, CHUNKS))
    classes = tl.arange(0, K)
    along = tl.zeros((K,), tl.float32)
    for chunk in range(CHUNKS):
        table = load_chunk(c_ptr, classes, classes < num_classes, d, chunk, d, BLOCK_D).to(tl.float32)
        directions = table * inverse[:, None]
        along += tl.sum(directions * (tl.sum(directions, 0)[None, :] - directions), 1)
    return inverse, along


@triton.jit
def class_lengths(w_ptr, num_classes, d, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr):
    """Lengths of the rows of a (C, d) table: (K,), zero past the last class."""
    classes = tl.arange(0, K)
    return lengths_of((w_ptr, classes, classes < num_classes, d, d), K, BLOCK_D, CHUNKS)


@triton.jit
def unit_rows(w_ptr, length, units_ptr, num_classes, d, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr):
    """Puts the rows of a (C, d) table there scaled to length one."""
    classes = tl.arange(0, K)
    inverse = inverse_or_zero(length)[:, None]
    for chunk in range(CHUNKS):
        table = load_chunk(w_ptr, classes, classes < num_classes, d, chunk, d, BLOCK_D).to(tl.float32)
        store_chunk(units_ptr, table * inverse, classes, classes < num_classes, d, chunk, d, BLOCK_D)


@triton.jit
def read_centers(
    c_ptr, means_ptr, center_weights_ptr, scales_ptr, auxiliary, num_classes, d, CLASS_SCALAR: tl.constexpr,
    K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr, ANTI: tl.constexpr,
):  # fmt: skip
    """The loss's factor per class, the spread of all ordered pairs and V₋k, each (K,), and what :func:`others_mean`
    takes, of :func:`leave_one_out`."""
    squared = center_spread(c_ptr, num_classes, d, K, BLOCK_D, CHUNKS)
    whole = tl.sum(squared, 0)
    classes = num_classes.to(tl.float32)
    weights = load_per_class(center_weights_ptr, num_classes, 1.0, K)
    scalar = CLASS_SCALAR(weights, classes * squared + whole, whole / (classes - 1), auxiliary)
    if scales_ptr is not None:
        scalar *= tl.load(scales_ptr + 1)
    spread, without = squared, ()
    if ANTI:
        spread, without = leave_one_out(squared, c_ptr, means_ptr, num_classes, d, K, BLOCK_D, CHUNKS)
    return (scalar, tl.zeros_like(spread) + 2 * classes * whole, spread), without


@triton.jit
def squared_offsets(
    x, y, valid, c_ptr, num_classes, d, without, chunk,
    ANTI: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Of a chunk, (x - c_y)² and (x - c̄₋y)² entry by entry."""
    own = own_offset(x, y, valid, c_ptr, d, chunk, BLOCK_D)
    anti = tl.zeros_like(own)
    if ANTI:
        anti = anti_offset(x, y, valid, c_ptr, num_classes, d, without, chunk, BLOCK_D)
    return own * own, anti * anti


@triton.jit
def center_distances(
    x, y, valid, c_ptr, num_classes, d, without,
    ANTI: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """‖x - c_y‖² and ‖x - c̄₋y‖² of a tile: (ROWS,) both. Chunks are added entry by entry, and the entries once."""
    own = tl.zeros((ROWS, BLOCK_D), tl.float32)
    anti = tl.zeros((ROWS, BLOCK_D), tl.float32)
    if x[0].dtype.is_ptr():
        for chunk in tl.range(CHUNKS, disable_licm=True):
            part = load_again(x, chunk, BLOCK_D)
            more, away = squared_offsets(part, y, valid, c_ptr, num_classes, d, without, chunk, ANTI, BLOCK_D)
            own += more
            anti += away
    else:
        for chunk in tl.static_range(CHUNKS):
            if in_turn(chunk, num_classes, CHUNKS):
                part = held_chunk(x, chunk, num_classes, CHUNKS)
                more, away = squared_offsets(part, y, valid, c_ptr, num_classes, d, without, chunk, ANTI, BLOCK_D)
                own += more
                anti += away
    return tl.sum(own, 1), tl.sum(anti, 1)
