"""Margin, softmax, loss and gradient of rows of logits, in place: one program a row, one visit or two of the row."""

import triton
import triton.language as tl

from .targets import DOT, ILLEGAL, W_LENGTH, WEIGHT, X_LENGTH

LOWEST = tl.constexpr(-3.4028234663852886e38)  # below every logit, and finite: it may be subtracted from itself


@triton.jit
def _block(
    row, bias, start, x_length, num_classes, row_stride, head,
    LOGITS: tl.constexpr, WHOLE: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Columns, products and logits of a block of the row, as BLOCK / VECTOR short rows, each of them in one thread.

    A block that is not WHOLE is loaded to where the row is padded; past the last class logits are -inf.
    """
    pieces = tl.arange(0, BLOCK // VECTOR)[:, None] * VECTOR
    columns = start + pieces + tl.arange(0, VECTOR)[None, :]
    inside = None if WHOLE else columns < row_stride
    dot = tl.load(row + columns, mask=inside).to(tl.float32)
    none, lengths = tl.zeros((VECTOR,), tl.float32), tl.broadcast_to(x_length, (BLOCK // VECTOR,))
    logits = LOGITS(dot, tl.zeros_like(dot) > 0, lengths, none, none, head)
    if bias is not None:
        logits += tl.load(bias + columns, mask=inside)
    return columns, dot, logits if WHOLE else tl.where(columns < num_classes, logits, -float("inf"))


@triton.jit
def _add_block(
    largest, total, row, bias, start, x_length, num_classes, row_stride, head,
    LOGITS: tl.constexpr, WHOLE: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Each thread's largest logit and Σ exp(logit - largest), rescaled once a vector, with a block added."""
    _, _, logits = _block(row, bias, start, x_length, num_classes, row_stride, head, LOGITS, WHOLE, BLOCK, VECTOR)
    higher = tl.maximum(largest, tl.max(logits, 1))
    return higher, total * tl.exp(largest - higher) + tl.sum(tl.exp(logits - higher[:, None]), 1)


@triton.jit
def _survey(
    row, bias, x_length, num_classes, row_stride, head,
    LOGITS: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """The largest logit of the row, and Σ exp(logit - largest). The threads meet once, at the end."""
    largest = tl.full((BLOCK // VECTOR,), LOWEST, tl.float32)
    total = tl.zeros((BLOCK // VECTOR,), tl.float32)
    whole = num_classes // BLOCK * BLOCK
    for start in range(0, whole, BLOCK):
        largest, total = _add_block(
            largest, total, row, bias, start, x_length, num_classes, row_stride, head, LOGITS, True, BLOCK, VECTOR
        )  # fmt: skip
    if whole < num_classes:
        largest, total = _add_block(
            largest, total, row, bias, whole, x_length, num_classes, row_stride, head, LOGITS, False, BLOCK, VECTOR
        )  # fmt: skip
    highest = tl.max(largest, 0)
    return highest, tl.sum(total * tl.exp(largest - highest), 0)


@triton.jit
def _write_block(
    row, bias, start, highest, scale, x_length, num_classes, row_stride, head,
    LOGITS: tl.constexpr, CHAIN: tl.constexpr, WHOLE: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Overwrite a block of products with G of p = scale · exp(logit - highest)."""
    columns, dot, logits = _block(
        row, bias, start, x_length, num_classes, row_stride, head, LOGITS, WHOLE, BLOCK, VECTOR
    )  # fmt: skip
    none, lengths = tl.zeros((VECTOR,), tl.float32), tl.broadcast_to(x_length, (BLOCK // VECTOR,))
    g, _, _ = CHAIN(scale * tl.exp(logits - highest), dot, tl.zeros_like(dot) > 0, lengths, none, head)
    tl.store(row + columns, g.to(row.dtype.element_ty), mask=None if WHOLE else columns < row_stride)


@triton.jit
def _write_gradient(
    row, bias, highest, scale, x_length, num_classes, row_stride, head,
    LOGITS: tl.constexpr, CHAIN: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Overwrite a row's products with G."""
    whole = num_classes // BLOCK * BLOCK
    for start in range(0, whole, BLOCK):
        _write_block(
            row, bias, start, highest, scale, x_length, num_classes, row_stride, head,
            LOGITS, CHAIN, True, BLOCK, VECTOR,
        )  # fmt: skip
    if whole < num_classes:
        _write_block(
            row, bias, whole, highest, scale, x_length, num_classes, row_stride, head,
            LOGITS, CHAIN, False, BLOCK, VECTOR,
        )  # fmt: skip


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
        tl.store(row + target, -float("inf"), mask=here)  # the target is kept out of the sum, and of G elsewhere
        tl.debug_barrier()  # another thread reads it
        largest, total = _survey(row, bias, x_length, num_classes, row_stride, head, LOGITS, BLOCK, VECTOR)
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
        denominator = rest + tl.exp(own - highest)
        loss = tl.where(own < largest, tl.log(denominator) + (highest - own), _log1p(rest))
        tl.store(losses + at, tl.where(target == ILLEGAL, float("nan"), loss))
        if GRADIENT:
            weight = tl.load(facts + WEIGHT * n + at)
            own_p = tl.zeros((1, 1), tl.float32) - weight * (rest / denominator)
            own_g, r, q = CHAIN(own_p, own_dot, hot, x_length, w_length, head)
            own_g, r, q = tl.sum(tl.reshape(own_g, (1,)), 0), tl.sum(r, 0), tl.sum(tl.reshape(q, (1,)), 0)
            if APART:
                tl.store(coefficients + at, tl.where(here, own_g, 0.0))
                tl.store(coefficients + n + at, tl.where(here, r, 0.0))
                tl.store(coefficients + 2 * n + at, tl.where(here, q, 0.0))
                own_g = 0.0
            _write_gradient(
                row, bias, highest, weight / denominator, x_length, num_classes, row_stride, head,
                LOGITS, CHAIN, BLOCK, VECTOR,
            )  # fmt: skip
            tl.debug_barrier()  # another thread wrote there
            tl.store(row + target, own_g, mask=here)
    else:
        tl.store(statistics + place, largest)
        tl.store(statistics + rows + place, total)
        tl.store(statistics + 2 * rows + place, own)
