"""Margin, softmax, loss and gradient of rows of logits, in place: one program a row, one visit or two of the row."""

import triton
import triton.language as tl

from .targets import DOT, ILLEGAL, OWN, SHARE, W_LENGTH, WEIGHT, X_LENGTH

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
def _class_weights(class_weights, columns, num_classes, logits):
    """W_j of a block, 0 where a logit is -inf: past the last class, and at the target."""
    weights = tl.full(logits.shape, 1.0, tl.float32)
    if class_weights is not None:
        weights = tl.load(class_weights + columns, mask=columns < num_classes, other=0.0).to(tl.float32)
    return tl.where(logits == -float("inf"), 0.0, weights)


@triton.jit
def _add_block(
    largest, total, along, mass, row, bias, class_weights, start, x_length, num_classes, row_stride, head,
    LOGITS: tl.constexpr, SMOOTH: tl.constexpr, WHOLE: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Each thread's largest logit and Σ exp(logit - largest), rescaled once a vector, with a block added; and if labels
    are smoothed Σ W logit and Σ W."""
    columns, _, logits = _block(
        row, bias, start, x_length, num_classes, row_stride, head, LOGITS, WHOLE, BLOCK, VECTOR
    )  # fmt: skip
    if SMOOTH:
        weights = _class_weights(class_weights, columns, num_classes, logits)
        along += tl.sum(tl.where(weights == 0, 0.0, weights * logits), 1)
        mass += tl.sum(weights, 1)
    higher = tl.maximum(largest, tl.max(logits, 1))
    return higher, total * tl.exp(largest - higher) + tl.sum(tl.exp(logits - higher[:, None]), 1), along, mass


@triton.jit
def _survey(
    row, bias, class_weights, x_length, num_classes, row_stride, head,
    LOGITS: tl.constexpr, SMOOTH: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """The largest logit of the row, Σ exp(logit - largest), and if labels are smoothed Σ W logit and Σ W. The threads
    meet once, at the end."""
    largest = tl.full((BLOCK // VECTOR,), LOWEST, tl.float32)
    total = tl.zeros((BLOCK // VECTOR,), tl.float32)
    along = total
    mass = total
    whole = num_classes // BLOCK * BLOCK
    for start in range(0, whole, BLOCK):
        largest, total, along, mass = _add_block(
            largest, total, along, mass, row, bias, class_weights, start, x_length, num_classes, row_stride, head,
            LOGITS, SMOOTH, True, BLOCK, VECTOR,
        )  # fmt: skip
    if whole < num_classes:
        largest, total, along, mass = _add_block(
            largest, total, along, mass, row, bias, class_weights, whole, x_length, num_classes, row_stride, head,
            LOGITS, SMOOTH, False, BLOCK, VECTOR,
        )  # fmt: skip
    highest = tl.max(largest, 0)
    return highest, tl.sum(total * tl.exp(largest - highest), 0), tl.sum(along, 0), tl.sum(mass, 0)


@triton.jit
def _write_block(
    row, bias, class_weights, start, highest, scale, share, x_length, num_classes, row_stride, head,
    LOGITS: tl.constexpr, CHAIN: tl.constexpr, SMOOTH: tl.constexpr, LEARNS: tl.constexpr, WHOLE: tl.constexpr,
    BLOCK: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Overwrite a block of products with G of p = scale · exp(logit - highest), less a share of W if labels are
    smoothed; and if the scale of logits LEARNS, Σ p (logit - highest), else 0."""
    columns, dot, logits = _block(
        row, bias, start, x_length, num_classes, row_stride, head, LOGITS, WHOLE, BLOCK, VECTOR
    )  # fmt: skip
    none, lengths = tl.zeros((VECTOR,), tl.float32), tl.broadcast_to(x_length, (BLOCK // VECTOR,))
    p = scale * tl.exp(logits - highest)
    if SMOOTH:
        p -= share * _class_weights(class_weights, columns, num_classes, logits)
    g, _, _ = CHAIN(p, dot, tl.zeros_like(dot) > 0, lengths, none, head)
    tl.store(row + columns, g.to(row.dtype.element_ty), mask=None if WHOLE else columns < row_stride)
    along = 0.0
    if LEARNS:
        along = tl.sum(tl.where(logits == -float("inf"), 0.0, p * (logits - highest)))
    return along


@triton.jit
def _write_gradient(
    row, bias, class_weights, highest, scale, share, x_length, num_classes, row_stride, head,
    LOGITS: tl.constexpr, CHAIN: tl.constexpr, SMOOTH: tl.constexpr, LEARNS: tl.constexpr, BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
):  # fmt: skip
    """Overwrite a row's products with G."""
    whole = num_classes // BLOCK * BLOCK
    along = 0.0
    for start in range(0, whole, BLOCK):
        along += _write_block(
            row, bias, class_weights, start, highest, scale, share, x_length, num_classes, row_stride, head,
            LOGITS, CHAIN, SMOOTH, LEARNS, True, BLOCK, VECTOR,
        )  # fmt: skip
    if whole < num_classes:
        along += _write_block(
            row, bias, class_weights, whole, highest, scale, share, x_length, num_classes, row_stride, head,
            LOGITS, CHAIN, SMOOTH, LEARNS, False, BLOCK, VECTOR,
        )  # fmt: skip
    return along


@triton.jit
def _log1p(x):
    """log(1 + x) for x >= 0, with all digits of a small x."""
    rounded = 1.0 + x
    return tl.where(rounded == 1.0, x, tl.log(rounded) * (x / tl.where(rounded == 1.0, 1.0, rounded - 1.0)))


@triton.jit(do_not_specialize=["first", "n"])
def softmax_rows(
    logits, bias, targets, facts, statistics, losses, coefficients, class_weights, along_logits, head, first, n,
    num_classes, row_stride, LOGITS: tl.constexpr, CHAIN: tl.constexpr, FIND: tl.constexpr, FINISH: tl.constexpr,
    GRADIENT: tl.constexpr, APART: tl.constexpr, SMOOTH: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Cross-entropy (n,) of rows from `first` on, and G of :mod:`.heads` over their products with the classes.

    FIND reads a row's products and finds its statistics (3, rows): the largest logit and the sum of exponentials of the
    other classes, and the target's logit. FINISH goes on from there, to the loss and with GRADIENT to G. Between two
    launches of one each, statistics of other shards of the classes may be added. APART leaves the target out of G: its
    G, R and Q go to the coefficients (3, n), in float32. SMOOTH takes a share of every class, of weights class_weights
    (C,), in both at once; losses then are weighed. `along_logits` (n,) are Σ_j p_j f_j of the rows, for Σ_j p_j = 0.
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
        largest, total, along, mass = _survey(
            row, bias, class_weights, x_length, num_classes, row_stride, head, LOGITS, SMOOTH, BLOCK, VECTOR
        )  # fmt: skip
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
        # Where the target's logit is NaN no comparison holds, and the denominator is NaN.
        loss = tl.where(own >= largest, _log1p(rest), tl.log(denominator) + (highest - own))
        weight = tl.load(facts + WEIGHT * n + at)
        own_weight = weight
        share = 0.0
        if SMOOTH:
            own_weight = tl.load(facts + OWN * n + at)
            share = tl.load(facts + SHARE * n + at)
            own_class = 1.0
            if class_weights is not None:
                own_class = tl.load(class_weights + target, mask=here, other=0.0).to(tl.float32)
            apart = along - mass * highest + own_class * (own - highest)
            loss = own_weight * loss + share * ((mass + own_class) * tl.log(denominator) - apart)
        tl.store(losses + at, tl.where(target == ILLEGAL, float("nan"), loss))
        if GRADIENT:
            own_p = tl.zeros((1, 1), tl.float32) - own_weight * (rest / denominator)
            if SMOOTH:
                own_p += share * ((mass + own_class) * (tl.exp(own - highest) / denominator) - own_class)
            own_along = tl.sum(tl.reshape(own_p, (1,)), 0) * (own - highest)
            own_g, r, q = CHAIN(own_p, own_dot, hot, x_length, w_length, head)
            own_g, r, q = tl.sum(tl.reshape(own_g, (1,)), 0), tl.sum(r, 0), tl.sum(tl.reshape(q, (1,)), 0)
            if APART:
                tl.store(coefficients + at, tl.where(here, own_g, 0.0))
                tl.store(coefficients + n + at, tl.where(here, r, 0.0))
                tl.store(coefficients + 2 * n + at, tl.where(here, q, 0.0))
                own_g = 0.0
            along = _write_gradient(
                row, bias, class_weights, highest, weight / denominator, share, x_length, num_classes, row_stride, head,
                LOGITS, CHAIN, SMOOTH, along_logits is not None, BLOCK, VECTOR,
            )  # fmt: skip
            if along_logits is not None:
                tl.store(along_logits + at, along + own_along)
            tl.debug_barrier()  # another thread wrote there
            tl.store(row + target, own_g, mask=here)
    else:
        tl.store(statistics + place, largest)
        tl.store(statistics + rows + place, total)
        tl.store(statistics + 2 * rows + place, own)
