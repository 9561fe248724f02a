"""What a row needs of its own class, in float32: a half-precision logit would lose the digits of a confident loss."""

import triton
import triton.language as tl

from ..common.pair_tiles import load_rows
from ..directions.rows import unit_rows

# Rows of the table (4, n) of facts, and what stands for a class in place of a column of this shard.
DOT, X_LENGTH, W_LENGTH, WEIGHT = (tl.constexpr(row) for row in range(4))
ELSEWHERE, ILLEGAL = tl.constexpr(-1), tl.constexpr(-2)


@triton.jit
def load_targets(w, targets, d, columns):
    """Rows w_y (R, D) in float32, zero for a row whose class is not here."""
    at = w + targets.to(tl.int64)[:, None] * d + columns[None, :]
    return tl.load(at, mask=(targets >= 0)[:, None] & (columns < d)[None, :], other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["n", "num_classes", "class_offset", "all_classes"])
def target_rows(
    x, y, w, class_weights, status, targets, facts, n, num_classes, class_offset, all_classes, d, x_stride,
    UNIT_X: tl.constexpr, UNIT_W: tl.constexpr, LENGTHS: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The column of each row's class among these `num_classes`, and facts: the product with it that the head is handed,
    ‖x‖, ‖w_y‖ (both 0 unless LENGTHS) and W_y. A label outside [0, all_classes) goes to the status."""
    first = tl.program_id(0) * BLOCK
    rows, columns = first + tl.arange(0, BLOCK), tl.arange(0, BLOCK_D)
    in_batch = rows < n
    label = tl.load(y + rows, mask=in_batch, other=0).to(tl.int64)
    legal = in_batch & (label >= 0) & (label < all_classes)
    if status is not None:
        tl.store(status + tl.zeros_like(rows), label, mask=in_batch & ~legal)
    column = label - class_offset
    here = legal & (column >= 0) & (column < num_classes)
    target = tl.where(here, column, tl.where(legal, ELSEWHERE, ILLEGAL)).to(tl.int32)
    features = load_rows(x, first, in_batch, x_stride, columns, d).to(tl.float32)
    own = load_targets(w, target, d, columns)
    x_length = tl.zeros((BLOCK,), tl.float32)
    w_length = x_length
    if LENGTHS:
        u, v = unit_rows(features, columns, d, False)[0], unit_rows(own, columns, d, False)[0]
        x_length, w_length = tl.sum(features * u, 1), tl.sum(own * v, 1)
        features, own = u if UNIT_X else features, v if UNIT_W else own
    weight = tl.where(legal, 1.0, 0.0)
    if class_weights is not None:
        weight = tl.load(class_weights + label, mask=legal, other=0.0).to(tl.float32)
    tl.store(targets + rows, target, mask=in_batch)
    at = facts + rows
    tl.store(at + DOT * n, tl.sum(features * own, 1), mask=in_batch)
    tl.store(at + X_LENGTH * n, x_length, mask=in_batch)
    tl.store(at + W_LENGTH * n, w_length, mask=in_batch)
    tl.store(at + WEIGHT * n, weight, mask=in_batch)
