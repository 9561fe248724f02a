"""The sweep over rows: loss, feature gradient, and what is summed over the batch. One read of x, one write of dx.

A program takes tiles of `R` whole rows, folded as in :mod:`.tiles`, in registers from load to store. While the
sums fit beside them it keeps them too: weightsᵀ x, with the weights of every kind of sum side by side, (R, M):

    kind        weight of row i in class k        what `finish` makes of the sum
    head        G_ik ρ_i                          dW
    members     [y_i = k] w_i                     pull of the centers
    pushes      [y_i = k] w_i p_i                 push of the centers of the other classes

The sum of the weights themselves is taken along: bias gradient, counts n_k, Σ p. A row that is not finite gives its own
class the weight NaN and enters as zeros, so that it spoils no other class (0 · NaN).
"""

import triton
import triton.language as tl

from ..common.products import class_product, float32_product
from ..common.tiles import inverse_or_zero, is_finite, load_per_class, read_labels, scales_of, value_of
from .arguments import LENGTH, REST, SCALAR, SPREAD, SUMMED_PROGRAMS, VARYING, Sizes
from .centers.mva import group_weight
from .table_stats import others_table, rows_of_group, unit_weights
from .tiles import along_rows, by_parts, folded, load_tile, row_sums, store_tile, table_rows, two_row_sums, unfolded


@triton.jit
def known_sums(tables, summed, SLOTS: tl.constexpr):
    """The sums known before the first row: (SLOTS,) in float64."""
    programs = tl.arange(0, SUMMED_PROGRAMS)[:, None]
    at = tables.sums + programs * SLOTS + tl.arange(0, SLOTS)[None, :]
    return tl.sum(tl.load(at, mask=programs < summed, other=0.0), 0)


@triton.jit
def scale_of_head(tables, head_divisor, summed, SLOTS: tl.constexpr, WEIGHTED: tl.constexpr):
    """The scale of the classifier's rows: 1/n, or 1/Σ W_y, or what the divisor leads to."""
    scale = 1.0 / value_of(head_divisor)
    if WEIGHTED:
        totals = known_sums(tables, summed, SLOTS)
        weight = tl.sum(tl.where(tl.arange(0, SLOTS) == 0, totals, 0.0), 0).to(tl.float32)
        scale = 1.0 / tl.where(weight == 0, 1.0, weight)
    return scale


@triton.jit
def weight_of_batch(batch, tables, sizes, K: tl.constexpr, SLOTS: tl.constexpr, MEAN: tl.constexpr):
    """The factor α_v of MVA."""
    slots = tl.arange(0, SLOTS)
    held = tl.full((SLOTS,), 1.0, tl.float64)
    for v in tl.static_range(len(batch.groups_x)):
        held = tl.where(slots == v + 2, rows_of_group(batch, sizes.group_sizes, v).to(tl.float64), held)
    is_group = (slots > 0) & (slots < 2 + len(batch.groups_x)) & (held > 0)
    counts = tl.full((SLOTS,), 1.0, tl.float64)
    if MEAN:
        counts = tl.where(slots == 1, value_of(sizes.divisor), held)
    spread = tl.sum(tl.load(tables.statistics + SPREAD * K + tl.arange(0, K)).to(tl.float64), 0)
    # In float64: α_v squares differences of these.
    losses = known_sums(tables, sizes.summed, SLOTS) * (sizes.num_classes - 1) / (spread * counts)
    return group_weight(losses, is_group).to(tl.float32)


@triton.jit
def logits_product(x, w, PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr):
    """x·w_k of tiles of rows x and of class weights w: (R, H)."""
    parts = float32_product(by_parts(x), tl.permute(by_parts(w), (0, 2, 1)), PRECISION, TENSOR_CORES)
    return tl.sum(parts, 0)


@triton.jit
def cross_entropy(logits, hot, valid, weight):
    """Loss (R,) of rows of a weight (R,), and p = d loss/d logits (R, M)."""
    largest = tl.max(logits, 1)
    exponentials = tl.exp(logits - largest[:, None])
    total = tl.sum(exponentials, 1)
    own = tl.sum(tl.where(hot, logits, 0.0), 1)
    p = (exponentials / total[:, None] - tl.where(hot, 1.0, 0.0)) * weight[:, None]
    return weight * (tl.log(total) + largest - own), tl.where(valid[:, None], p, 0.0)


@triton.jit
def targets_of(shares, hot, real, weight, tables, head, num_classes):
    """What rows of a weight (R,) are to be, of `real` classes (R, M): their shares, else the `hot` one, smoothed."""
    if shares is None:
        shares = tl.where(hot, 1.0, 0.0)
    if head.smoothing is not None:
        shares = shares * (1 - head.smoothing) + head.smoothing / num_classes
    of_class = load_per_class(tables.class_weights, num_classes, 1.0, hot.shape[1])
    return tl.where(real, shares * of_class[None, :] * weight[:, None], 0.0)


@triton.jit
def soft_cross_entropy(logits, targets, valid):
    """Loss (R,) of rows that are to be `targets` (R, M), Σ_j t_j (log Σ e^f - f_j), and p = d loss/d logits (R, M)."""
    shifted = logits - tl.max(logits, 1)[:, None]
    exponentials = tl.exp(shifted)
    total = tl.sum(exponentials, 1)
    mass = tl.sum(targets, 1)
    p = exponentials * (mass / total)[:, None] - targets
    losses = mass * tl.log(total) - tl.sum(tl.where(targets == 0, 0.0, targets * shifted), 1)
    return losses, tl.where(valid[:, None], p, 0.0)


@triton.jit
def own_class(x, y, tables, head, d, K: tl.constexpr, P: tl.constexpr, W: tl.constexpr):
    """‖x‖ and x·w_y, (R,) both, in float32: the margin stands on the angle to the own class, which half-precision
    weights would tilt."""
    wide = x.to(tl.float32)
    own_w = table_rows(unit_weights(tables, head, K), y, d, P, W)
    squared, own = two_row_sums(wide * wide, wide * own_w)
    return tl.sqrt(squared), own


@triton.jit
def classify(
    x, y, at, valid, of_row, x_length, own, w, bias, batch, tables, head, num_classes, K: tl.constexpr,
    PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr,
):  # fmt: skip
    """Loss (R,) of rows of weights `of_row`, for the chain rule G (R, H), R (R,), Q (R, H) and ρ (R,), and Σ_j p_j f_j
    (R,); w are H >= C rows, `own` products x·w_y of a head of lengths."""
    H: tl.constexpr = bias.shape[0]
    classes = tl.arange(0, H)
    real = (classes < num_classes)[None, :]
    hot = (classes[None, :] == y[:, None]) & valid[:, None]
    shares = None
    if batch.soft_labels is not None:
        to = batch.soft_labels + at.to(tl.int64)[:, None] * num_classes + classes[None, :]
        shares = tl.load(to, mask=valid[:, None] & real, other=0.0).to(tl.float32)
        alone = (tl.sum(tl.where(shares == 0, 0, 1), 1) == 1) & (tl.sum(tl.where(hot, shares, 0.0), 1) == 1)
        hot = hot & alone[:, None]  # other rows have no margin
    w_length = tl.zeros((H,), tl.float32)
    rho = tl.full(y.shape, 1.0, tl.float32)
    dot = logits_product(x, w, PRECISION, TENSOR_CORES)
    if head.lengths:
        dot = tl.where(hot, own[:, None], dot)
        w_length = tl.load(tables.statistics + LENGTH * K + classes, mask=classes < num_classes, other=0.0)
    if head.unit_x:
        rho = inverse_or_zero(x_length)
    dot *= rho[:, None]
    logits = tl.where(real, head.logits(dot, hot, x_length, w_length, bias, head.a), -float("inf"))
    if shares is None and head.smoothing is None:
        weight = tl.full(y.shape, 1.0, tl.float32)
        if tables.class_weights is not None:
            weight = tl.load(tables.class_weights + y, mask=valid, other=0.0).to(tl.float32)
        if batch.sample_weights is not None:
            weight *= of_row
        losses, p = cross_entropy(logits, hot, valid, weight)
    else:
        targets = targets_of(shares, hot, real, of_row, tables, head, num_classes)
        losses, p = soft_cross_entropy(logits, targets, valid)
    g, r, q = head.chain(p, dot, hot, x_length, w_length, head.a)
    along_logits = tl.sum(tl.where(p == 0, 0.0, p * (logits - tl.max(logits, 1)[:, None])), 1)  # for Σ_j p_j = 0
    return losses, g, r, q, rho, along_logits


@triton.jit
def attract(
    x, y, valid, tables, head, rule, scale, factor, spread_total, num_classes, d, K: tl.constexpr, P: tl.constexpr,
    W: tl.constexpr,
):  # fmt: skip
    """Loss (R,) of the center term, its gradient, a tile, and the weight (R,) of a row among those that push, 1 where a
    loss has none, NaN for a row that is not finite."""
    others = (num_classes - 1).to(tl.float32)
    scale = tl.where(valid, 2 * scale, 0.0)
    x = x.to(tl.float32)
    if rule.anti:
        means_ptr = others_table(tables, head, d, K)
        high = table_rows(means_ptr, y, d, P, W)
        low = table_rows(means_ptr + K * d, y, d, P, W)
        away = x - high - low
    offset = x - table_rows(tables.c, y, d, P, W)
    if rule.anti:
        own, anti = two_row_sums(offset * offset, away * away)
        anti = others * anti + tl.load(tables.statistics + REST * K + y)
    else:
        own = row_sums(offset * offset)
        anti = tl.zeros_like(own)
    scalar = 1.0
    if rule.scalar is not None:
        scalar = tl.load(tables.statistics + SCALAR * K + y)
    losses, d_own, d_anti = rule.loss(own, anti, scalar, rule.a)
    losses *= factor  # behind the distance: with the scalar it may be more than float32 holds
    d_own *= factor
    dx = along_rows(scale * d_own) * offset
    if rule.anti:
        dx += along_rows(scale * others * d_anti) * away
    if rule.paper_slope is not None:
        apart = table_rows(means_ptr + 2 * K * d, y, d, P, W)
        dx += along_rows(0.5 * scale * others * rule.paper_slope(spread_total, rule.a)) * apart
    weight = tl.full(own.shape, 1.0, tl.float32)
    if rule.push is not None:
        weight = rule.push(anti, rule.a)
    return losses, dx, tl.where(is_finite(own), weight, float("nan"))


@triton.jit
def row_weights(
    g, y_ptr, at, in_batch, of_row, weight, num_classes, HEAD: tl.constexpr, UPDATE: tl.constexpr, PUSH: tl.constexpr,
    K: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """The weights of a tile's rows in every sum: (M, R), kind by kind K rows each.

    Labels are loaded again, where the product wants its operand: from the layout of x every thread would hold a whole
    row of it.
    """
    places = tl.arange(0, M)[:, None]
    weights = tl.zeros((M, at.shape[0]), tl.float32)
    if HEAD:
        repeated = tl.broadcast_to(tl.trans(g)[None, :, :], (M // g.shape[1], g.shape[1], at.shape[0]))
        weights = tl.where(places < K, tl.reshape(repeated, (M, at.shape[0])), 0.0)
    if UPDATE:
        y, valid = read_labels(y_ptr, at[None, :], in_batch[None, :], num_classes, None)
        y = tl.where(valid, y, -M)  # a row without a class is in no sum
        weight, of_row = weight[None, :], of_row[None, :]
        weights = tl.where(places == HEAD * K + y, of_row + 0.0 * weight, weights)
        if PUSH:
            weights = tl.where(places == (HEAD + 1) * K + y, of_row * weight, weights)
    return weights


@triton.jit(do_not_specialize=VARYING)
def rows(
    batch, tables, out, head, rule, n, num_classes, head_divisor, divisor, auxiliary_weight, programs, splits, summed,
    group_sizes, x_stride, d: tl.constexpr, K: tl.constexpr, M: tl.constexpr, R: tl.constexpr, P: tl.constexpr,
    W: tl.constexpr, KINDS: tl.constexpr, SLOTS: tl.constexpr, UPDATE: tl.constexpr, WEIGHTED: tl.constexpr,
    MEAN: tl.constexpr, FUSED: tl.constexpr, HELD: tl.constexpr, PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr,
):  # fmt: skip
    """Every program takes a strided set of tiles and writes one block of partial sums, :func:`write_partials`'s."""
    sizes = Sizes(n, num_classes, head_divisor, divisor, auxiliary_weight, programs, splits, summed, group_sizes)
    program = tl.program_id(0)
    num_classes = sizes.num_classes
    HEAD: tl.constexpr = out.dw is not None
    head_scale = scale_of_head(tables, sizes.head_divisor, sizes.summed, SLOTS, WEIGHTED)
    factor = 1.0
    if len(batch.groups_x) > 0:
        factor = weight_of_batch(batch, tables, sizes, K, SLOTS, MEAN)
    center_scale = sizes.auxiliary_weight / value_of(sizes.divisor)
    spread_total = 0.0
    if rule.paper_slope is not None:
        spread = tl.sum(tl.load(tables.statistics + SPREAD * K + tl.arange(0, K)), 0)
        spread_total = 2 * num_classes.to(tl.float32) * spread
    sums = tl.zeros((M, P * W), tl.float32)
    weight_sums = tl.zeros((M, R), tl.float32)
    H: tl.constexpr = K if K > 16 else 16  # classes of a product; `max` is no constant within `small` in Triton 3.5
    along_sums = tl.zeros((R, H), tl.float32)
    head_loss = tl.zeros((R,), tl.float32)
    center_loss = head_loss
    if tables.w is not None:
        classes = tl.arange(0, H)
        bias = load_per_class(tables.bias, num_classes, 0.0, H)
        held = load_tile(unit_weights(tables, head, K), 0, classes < num_classes, d, d, P, W)
        held = held.to(batch.x.dtype.element_ty)
    for tile in range(program, tl.cdiv(sizes.n, R), tl.num_programs(0)):
        first = tile * R
        at = first + tl.arange(0, R)
        in_batch = at < sizes.n
        y, valid = read_labels(batch.y, at, in_batch, num_classes, batch.status)
        unlabelled = tl.where(in_batch & ~valid, float("nan"), 0.0)
        of_row = tl.full((R,), 1.0, tl.float32)
        there = in_batch
        row_scale = center_scale
        if batch.sample_weights is not None:  # a row that weighs nothing may hold anything
            of_row = tl.load(batch.sample_weights + at, mask=in_batch, other=0.0)
            there = in_batch & (of_row != 0)
            valid = valid & there
            row_scale *= of_row
        x = load_tile(batch.x, first, there, x_stride, d, P, W)
        row_loss = tl.zeros((R,), tl.float32)
        g = along_sums
        weight = unlabelled
        # What takes a tile beside x comes first, one after the other, and the products last: none waits in registers.
        x_length = tl.zeros((R,), tl.float32)
        own = x_length
        if head.lengths:
            x_length, own = own_class(x, y, tables, head, d, K, P, W)
        if tables.c is not None:
            losses, dx, weight = attract(
                x, y, valid, tables, head, rule, row_scale, factor, spread_total, num_classes, d, K, P, W
            )  # fmt: skip
            if batch.sample_weights is not None:
                losses *= of_row
            losses = tl.where(valid, losses, unlabelled)
            center_loss += losses
            row_loss = sizes.auxiliary_weight * losses
        if tables.w is not None:
            if rule.anti:  # again, from the L1: kept, it would wait in registers beside two offsets
                x = load_tile(batch.x, first, valid, x_stride, d, P, W)
            w = held
            if not HELD:
                w = load_tile(unit_weights(tables, head, K), 0, classes < num_classes, d, d, P, W).to(x.dtype)
            losses, g, r, q, rho, along_logits = classify(
                x, y, at, valid, of_row, x_length, own, w, bias, batch, tables, head, num_classes, K, PRECISION,
                TENSOR_CORES,
            )  # fmt: skip
            losses = tl.where(valid, losses, unlabelled)
            head_loss += losses
            row_loss += losses
            if out.along_logits is not None:
                tl.store(out.along_logits + at, along_logits, mask=in_batch)
            if HEAD:
                along_sums += q
                narrow, back = g, rho * head_scale
                if w.dtype == tl.float16:  # which holds neither a large G nor a small one
                    scale, unscale = scales_of(tl.max(tl.abs(g), 1))
                    narrow, r, back = g * scale[:, None], r * scale, back * unscale
                of_head = folded(float32_product(narrow.to(w.dtype), unfolded(w), PRECISION, TENSOR_CORES), P)
                if head.lengths:
                    of_head += along_rows(r * inverse_or_zero(x_length)) * x.to(tl.float32)
                of_head *= along_rows(back)
                dx = of_head if tables.c is None else dx + of_head
                g *= rho[:, None]
        if out.losses is not None:
            tl.store(out.losses + at, row_loss, mask=in_batch)
        if out.dx is not None:
            store_tile(out.dx, dx, first, in_batch, d, P, W)
        if KINDS > 0:
            PUSH: tl.constexpr = KINDS > HEAD + UPDATE
            weights = row_weights(g, batch.y, at, in_batch, of_row, weight, num_classes, HEAD, UPDATE, PUSH, K, M)
            weight_sums += weights
            if FUSED:
                if UPDATE:  # again, from the L1, which costs less than a choice: zeros in place of what is not finite
                    x = load_tile(batch.x, first, there & (weight == weight), x_stride, d, P, W)
                # G rounded as autocast rounds it; not so of an angle between rows of any length, which it takes in
                # float32, nor what pushes, which may be as small as it likes.
                ROUNDED: tl.constexpr = x.dtype != tl.float32 and (head.unit_x or not head.lengths)
                EXACT: tl.constexpr = not UPDATE or batch.sample_weights is None  # ones and zeros of members
                COARSE: tl.constexpr = EXACT and not PUSH and (not HEAD or ROUNDED)
                sums += class_product(weights, unfolded(x), COARSE, not EXACT, TENSOR_CORES)
            else:
                places = tl.arange(0, M)[:, None]
                to = out.row_weights + at.to(tl.int64)[None, :] * (KINDS * K) + places
                tl.store(to, weights, mask=in_batch[None, :] & (places < KINDS * K))
    write_partials(out, program, sums, weight_sums, along_sums, head_loss, center_loss, d, K, P, W, KINDS, FUSED)


@triton.jit
def write_partials(
    out, program, sums, weight_sums, along_sums, head_loss, center_loss, d, K: tl.constexpr, P: tl.constexpr,
    W: tl.constexpr, KINDS: tl.constexpr, FUSED: tl.constexpr,
):  # fmt: skip
    """One program's block: both losses, Σ weights (KINDS, K), Σ Q (K,), and if they are held the sums (KINDS K, d)."""
    places = tl.arange(0, sums.shape[0])
    classes = tl.arange(0, along_sums.shape[1])
    block = out.partials + program.to(tl.int64) * (block_head(K, KINDS) + FUSED * KINDS * K * d)
    tl.store(block, tl.sum(head_loss, 0))
    tl.store(block + 1, tl.sum(center_loss, 0))
    tl.store(block + 2 + places, tl.sum(weight_sums, 1), mask=places < KINDS * K)
    tl.store(block + 2 + KINDS * K + classes, tl.sum(along_sums, 0), mask=classes < K)
    if FUSED:
        store_tile(block + block_head(K, KINDS), folded(sums, P), 0, places < KINDS * K, d, P, W)


@triton.jit
def block_head(K: tl.constexpr, KINDS: tl.constexpr):
    """Numbers of a block before its sums, a multiple of four so that those are aligned."""
    return (2 + (KINDS + 1) * K + 3) // 4 * 4


def block_size(d: int, k: int, kinds: int, fused: bool) -> int:
    """Numbers of a block, on the host: as :func:`write_partials` lays it out."""
    return (2 + (kinds + 1) * k + 3) // 4 * 4 + fused * kinds * k * d
