"""Margin, softmax, loss and gradient of rows of logits, in place: one program a row, one visit or two of the row."""

import triton
import triton.language as tl

from .targets import DOT, ILLEGAL, W_LENGTH, WEIGHT, X_LENGTH

LOWEST = tl.constexpr(-3.4028234663852886e38)  # below every logit, and finite: it may be subtracted from itself


@triton.jit
def _block(
    row, bias, start, target, x_length, num_classes, row_stride, head,
    LOGITS: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Columns, products and logits of a block of the row; -inf are the logits of the target and, for rows are padded to
    whole vectors, past the last class. As BLOCK / VECTOR short rows, each of them in one thread."""
    pieces = tl.arange(0, BLOCK // VECTOR)[:, None] * VECTOR
    columns = start + pieces + tl.arange(0, VECTOR)[None, :]
    dot = tl.load(row + columns, mask=columns < row_stride, other=0.0).to(tl.float32)
    none = tl.zeros((VECTOR,), tl.float32)
    logits = LOGITS(dot, tl.zeros_like(dot) > 0, tl.broadcast_to(x_length, (BLOCK // VECTOR,)), none, none, head)
    if bias is not None:
        logits += tl.load(bias + columns, mask=columns < row_stride, other=0.0)
    return columns, dot, tl.where((columns < num_classes) & (columns != target), logits, -float("inf"))


@triton.jit
def _others(
    row, bias, target, x_length, num_classes, row_stride, head,
    LOGITS: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """The largest logit of the other classes, and Σ exp(logit - largest) over them.

    Every thread keeps maxima and sums of its own, rescaled once a vector, and the threads meet once, at the end.
    """
    largest = tl.full((BLOCK // VECTOR,), LOWEST, tl.float32)
    total = tl.zeros((BLOCK // VECTOR,), tl.float32)
    for start in range(0, num_classes, BLOCK):
        _, _, logits = _block(
            row, bias, start, target, x_length, num_classes, row_stride, head, LOGITS, BLOCK, VECTOR
        )  # fmt: skip
        higher = tl.maximum(largest, tl.max(logits, 1))
        total = total * tl.exp(largest - higher) + tl.sum(tl.exp(logits - higher[:, None]), 1)
        largest = higher
    highest = tl.max(largest, 0)
    return highest, tl.sum(total * tl.exp(largest - highest), 0)


@triton.jit
def _write_gradient(
    row, bias, target, own_g, highest, scale, x_length, num_classes, row_stride, head,
    LOGITS: tl.constexpr, CHAIN: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Overwrite a row's products with G: `own_g` at the target, and of p = scale · exp(logit - highest) elsewhere."""
    for start in range(0, num_classes, BLOCK):
        columns, dot, logits = _block(
            row, bias, start, target, x_length, num_classes, row_stride, head, LOGITS, BLOCK, VECTOR
        )  # fmt: skip
        p, none = scale * tl.exp(logits - highest), tl.zeros((VECTOR,), tl.float32)
        lengths = tl.broadcast_to(x_length, (BLOCK // VECTOR,))
        g, _, _ = CHAIN(p, dot, tl.zeros_like(dot) > 0, lengths, none, head)
        g = tl.where(columns == target, own_g, g)
        tl.store(row + columns, g.to(row.dtype.element_ty), mask=columns < row_stride)


@triton.jit
def _log1p(x):
    """log(1 + x) for x >= 0, with all digits of a small x."""
    rounded = 1.0 + x
    return tl.where(rounded == 1.0, x, tl.log(rounded) * (x / tl.where(rounded == 1.0, 1.0, rounded - 1.0)))


@triton.jit(do_not_specialize=["first", "n"])
def softmax_rows(
    logits, bias, targets, facts, statistics, losses, coefficients, head, first, n, num_classes, row_stride,
    LOGITS: tl.constexpr, CHAIN: tl.constexpr, FIND: tl.constexpr, FINISH: tl.constexpr, GRADIENT: tl.constexpr,
    APART: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Cross-entropy (n,) of rows from `first` on, and G of :mod:`.heads` over their products with the classes.

    FIND reads a row's products and finds its statistics (3, rows): the largest logit and the sum of exponentials of the
    other classes, and the target's logit. FINISH goes on from there, to the loss and with GRADIENT to G. Between two
    launches of one each, statistics of other shards of the classes may be added. APART leaves the target out of G: its
    G, R and Q go to the coefficients (3, n), in float32.
    """
    place, rows = tl.program_id(0), tl.num_programs(0)
    at = first + place
    row = logits + place.to(tl.int64) * row_stride
    target = tl.load(targets + at)
    here = target >= 0
    only = tl.arange(0, 1)  # for the head's functions: a tile of one row and its own class
    hot = (only == 0)[None, :]
    x_length = tl.load(facts + X_LENGTH * n + at + only)
    w_length = tl.load(facts + W_LENGTH * n + at + only)
    own_dot = tl.load(facts + DOT * n + at + only)[None, :]
    if FIND:
        largest, total = _others(row, bias, target, x_length, num_classes, row_stride, head, LOGITS, BLOCK, VECTOR)
        own_bias = tl.zeros((1,), tl.float32)
        if bias is not None:
            own_bias += tl.load(bias + target, mask=here, other=0.0)
        own = tl.sum(tl.reshape(LOGITS(own_dot, hot, x_length, w_length, own_bias, head), (1,)), 0)
        own = tl.where(here, own, 0.0)
    else:
        largest = tl.load(statistics + place)
        total = tl.load(statistics + rows + place)
        own = tl.load(statistics + 2 * rows + place)
    if FINISH:
        highest = tl.maximum(largest, own)
        # The target is added last, so that neither a small loss nor 1 - p of a confident row is a difference.
        rest = total * tl.exp(largest - highest)
        whole = rest + tl.exp(own - highest)
        loss = tl.where(own < largest, tl.log(whole) + (highest - own), _log1p(rest))
        tl.store(losses + at, tl.where(target == ILLEGAL, float("nan"), loss))
        if GRADIENT:
            weight = tl.load(facts + WEIGHT * n + at)
            own_p = tl.zeros((1, 1), tl.float32) - weight * (rest / whole)
            own_g, r, q = CHAIN(own_p, own_dot, hot, x_length, w_length, head)
            own_g, r, q = tl.sum(tl.reshape(own_g, (1,)), 0), tl.sum(r, 0), tl.sum(tl.reshape(q, (1,)), 0)
            if APART:
                tl.store(coefficients + at, tl.where(here, own_g, 0.0))
                tl.store(coefficients + n + at, tl.where(here, r, 0.0))
                tl.store(coefficients + 2 * n + at, tl.where(here, q, 0.0))
                own_g = 0.0
            _write_gradient(
                row, bias, target, own_g, highest, weight / whole, x_length, num_classes, row_stride, head,
                LOGITS, CHAIN, BLOCK, VECTOR,
            )  # fmt: skip
    else:
        tl.store(statistics + place, largest)
        tl.store(statistics + rows + place, total)
        tl.store(statistics + 2 * rows + place, own)
