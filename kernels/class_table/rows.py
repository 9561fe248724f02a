"""The sweep over rows: loss, feature gradient, and what is summed over the batch. One read of x, one write of dx.

A program takes tiles of `R` whole rows, (R, D) with D the next power of two, in registers from load to store. While the
sums fit beside them it keeps them too: weightsᵀ x, with the weights of every kind of sum side by side, (R, M):

    kind        weight of row i in class k        what `finish` makes of the sum
    head        G_ik ρ_i                          dW
    members     [y_i = k]                         pull of the centers
    pushes      [y_i = k] p_i                     push of the centers of the other classes

The sum of the weights themselves is taken along: bias gradient, counts n_k, Σ p. A row that is not finite gives its own
class the weight NaN and enters as zeros, so that it spoils no other class (0 · NaN).
"""

import triton
import triton.language as tl

from ..common.products import class_product, float32_product
from ..common.tiles import inverse_or_zero, load_chunk, load_per_class, read_labels, store_chunk
from .arguments import LENGTH, REST, SCALAR, SPREAD, SUMMED_PROGRAMS
from .centers.mva import group_weight
from .table_stats import others_table, unit_weights


@triton.jit
def known_sums(batch, tables, sizes, K: tl.constexpr, SLOTS: tl.constexpr, WEIGHTED: tl.constexpr, MEAN: tl.constexpr):
    """The scale of the classifier's rows, 1/n or 1/Σ W_y, and the factor α_v of MVA."""
    head_scale = 1.0 / sizes.head_divisor
    factor = 1.0
    if SLOTS > 0:
        slots = tl.arange(0, SLOTS)
        programs = tl.arange(0, SUMMED_PROGRAMS)[:, None]
        at = tables.sums + programs * SLOTS + slots[None, :]
        totals = tl.sum(tl.load(at, mask=programs < sizes.summed, other=0.0), 0)
        if WEIGHTED:
            weight = tl.sum(tl.where(slots == 0, totals, 0.0), 0).to(tl.float32)
            head_scale = 1.0 / tl.where(weight == 0, 1.0, weight)
        if len(batch.groups_x) > 0:
            counts = tl.where(slots == 1, sizes.divisor, 1).to(tl.float32)
            for v in tl.static_range(len(batch.groups_x)):
                if MEAN:
                    counts = tl.where(slots == v + 2, sizes.group_sizes[v], counts)
            variance = tl.sum(tl.load(tables.statistics + SPREAD * K + tl.arange(0, K)), 0) / (sizes.num_classes - 1)
            is_group = (slots > 0) & (slots < 2 + len(batch.groups_x))
            factor = group_weight(totals.to(tl.float32) / (variance * counts), is_group)
    return head_scale, factor


@triton.jit
def logits_product(
    x, w, PARTS: tl.constexpr, PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr
):
    """x·w_k of a tile of rows x (R, D) and class weights w (M, D): (R, M).

    As a batch of `PARTS` products of narrow pieces of the columns, which the warps share out: of one product of this few
    rows and classes every warp would hold whole operands.
    """
    M: tl.constexpr = w.shape[0]
    WIDTH: tl.constexpr = x.shape[1] // PARTS
    w = tl.permute(tl.reshape(w, (M, PARTS, WIDTH)), (1, 0, 2))
    rows = tl.permute(tl.reshape(x, (x.shape[0], PARTS, WIDTH)), (1, 2, 0))
    return tl.trans(tl.sum(float32_product(w, rows, PRECISION, TENSOR_CORES), 0))


@triton.jit
def of_class(ptr, y, d, D: tl.constexpr):
    """Each row's own class's row of a table: (R, D) in float32."""
    columns = tl.arange(0, D)[None, :]
    return tl.load(ptr + (y[:, None] * d + columns), mask=columns < d, other=0.0).to(tl.float32)


@triton.jit
def cross_entropy(logits, hot, valid, weight):
    """Loss (R,) of rows of a weight (R,), and p = d loss/d logits (R, M)."""
    largest = tl.max(logits, 1)
    exponentials = tl.exp(logits - largest[:, None])
    total = tl.sum(exponentials, 1)
    own = tl.sum(tl.where(hot, logits, 0.0), 1)
    p = (exponentials / total[:, None] - tl.where(hot, 1.0, 0.0)) * weight[:, None]
    return tl.where(valid, weight * (tl.log(total) + largest - own), 0.0), tl.where(valid[:, None], p, 0.0)


@triton.jit
def classify(
    x, y, valid, w, bias, tables, head, num_classes, d, K: tl.constexpr, M: tl.constexpr, PARTS: tl.constexpr,
    PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr,
):  # fmt: skip
    """Loss (R,), and for the chain rule G (R, M), R (R,), Q (R, M), ‖x‖ (R,) and ρ (R,)."""
    classes = tl.arange(0, M)
    hot = (classes[None, :] == y[:, None]) & valid[:, None]
    x_length = tl.zeros(y.shape, tl.float32)
    w_length = tl.zeros((M,), tl.float32)
    rho = tl.full(y.shape, 1.0, tl.float32)
    if head.lengths:
        wide = x.to(tl.float32)
        x_length = tl.sqrt(tl.sum(wide * wide, 1))
        w_length = tl.load(tables.statistics + LENGTH * K + classes, mask=classes < num_classes, other=0.0)
    if head.unit_x:
        rho = inverse_or_zero(x_length)
    dot = logits_product(x, w, PARTS, PRECISION, TENSOR_CORES) * rho[:, None]
    if head.exact_own and x.dtype != tl.float32:
        # An angle's margin stands on it, and half-precision weights would tilt the angle.
        at = unit_weights(tables, head, K)
        own = tl.sum(x.to(tl.float32) * of_class(at, y, d, x.shape[1]), 1)
        dot = tl.where(hot, own[:, None], dot)
    weight = tl.full(y.shape, 1.0, tl.float32)
    if tables.class_weights is not None:
        weight = tl.load(tables.class_weights + y, mask=valid, other=0.0).to(tl.float32)
    logits = head.logits(dot, hot, x_length, w_length, bias, head.a)
    losses, p = cross_entropy(tl.where((classes < num_classes)[None, :], logits, -float("inf")), hot, valid, weight)
    g, r, q = head.chain(p, dot, hot, x_length, w_length, head.a)
    return losses, g, r, q, x_length, rho


@triton.jit
def attract(x, y, valid, tables, head, rule, scale, factor, spread_total, num_classes, d, K: tl.constexpr):
    """Loss (R,) of the center term, its gradient (R, D), whether a row is finite and its push p, (R,) both."""
    D: tl.constexpr = x.shape[1]
    others = (num_classes - 1).to(tl.float32)
    scale = tl.where(valid, scale, 0.0)
    x = x.to(tl.float32)
    c = of_class(tables.c, y, d, D)
    offset = x - c
    own = tl.sum(offset * offset, 1)
    anti = tl.zeros_like(own)
    scalar = anti
    push = anti
    if rule.anti:
        means_ptr = others_table(tables, head, num_classes, d, K)
        high = of_class(means_ptr, y, d, D)
        low = of_class(means_ptr + num_classes * d, y, d, D)
        away = x - high - low
        anti = others * tl.sum(away * away, 1) + tl.load(tables.statistics + REST * K + y, mask=valid, other=0.0)
    if rule.scalar is not None:
        scalar = factor * tl.load(tables.statistics + SCALAR * K + y, mask=valid, other=0.0)
    losses, d_own, d_anti = rule.loss(own, anti, scalar, rule.a)
    dx = (2 * scale * d_own)[:, None] * offset
    if rule.anti:
        dx += (2 * scale * others * d_anti)[:, None] * away
    if rule.paper_slope is not None:
        dx += (rule.paper_slope(spread_total, rule.a) * others * scale)[:, None] * (c - high - low)
    finite = own - own == 0
    if rule.push is not None:
        push = rule.push(anti, rule.a)
    return tl.where(valid, losses, 0.0), dx, finite, push


@triton.jit
def row_weights(g, y, valid, finite, push, HEAD: tl.constexpr, UPDATE: tl.constexpr, PUSH: tl.constexpr, K: tl.constexpr, M: tl.constexpr):
    """The weights of a tile's rows in every sum: (R, M), kind by kind K columns each."""
    columns = tl.arange(0, M)[None, :]
    weights = tl.zeros((y.shape[0], M), tl.float32)
    if HEAD:
        weights = tl.where(columns < K, g, 0.0)
    if UPDATE:
        at = tl.where(valid, HEAD * K + y, -1)[:, None]
        spoilt = tl.where(finite, 1.0, float("nan"))[:, None]
        weights = tl.where(columns == at, spoilt, weights)
        if PUSH:
            weights = tl.where(columns == at + K, push[:, None] * spoilt, weights)
    return weights


@triton.jit(do_not_specialize=["sizes"])
def rows(
    batch, tables, out, head, rule, sizes, x_stride, d: tl.constexpr, K: tl.constexpr, M: tl.constexpr,
    R: tl.constexpr, D: tl.constexpr, PARTS: tl.constexpr, KINDS: tl.constexpr, SLOTS: tl.constexpr,
    UPDATE: tl.constexpr, WEIGHTED: tl.constexpr, MEAN: tl.constexpr, FUSED: tl.constexpr,
    PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr,
):  # fmt: skip
    """Every program takes a strided set of tiles and writes one block of partial sums; see :mod:`.finish` for its form."""
    program = tl.program_id(0)
    num_classes = sizes.num_classes
    HEAD: tl.constexpr = out.dw is not None
    head_scale, factor = known_sums(batch, tables, sizes, K, SLOTS, WEIGHTED, MEAN)
    center_scale = sizes.auxiliary_weight / sizes.divisor
    spread_total = 0.0
    if tables.c is not None:
        if rule.paper_slope is not None:
            spread = tl.sum(tl.load(tables.statistics + SPREAD * K + tl.arange(0, K)), 0)
            spread_total = 2 * num_classes.to(tl.float32) * spread
    sums = tl.zeros((M, D), tl.float32)
    weight_sums = tl.zeros((R, M), tl.float32)
    along_sums = weight_sums
    head_loss = tl.zeros((R,), tl.float64)
    center_loss = head_loss
    for tile in range(program, tl.cdiv(sizes.n, R), tl.num_programs(0)):
        at = tile * R + tl.arange(0, R).to(tl.int64)
        in_batch = at < sizes.n
        y, valid = read_labels(batch.y, at, in_batch, num_classes, batch.status)
        unlabelled = tl.where(in_batch & ~valid, float("nan"), 0.0)
        x = load_chunk(batch.x, at, in_batch, x_stride, 0, d, D)
        dx = tl.zeros((R, D), tl.float32)
        g = weight_sums
        finite = valid
        push = unlabelled
        if tables.w is not None:
            classes = tl.arange(0, M)
            w = load_chunk(unit_weights(tables, head, K), classes, classes < num_classes, d, 0, d, D).to(x.dtype)
            bias = load_per_class(tables.bias, num_classes, 0.0, M)
            losses, g, r, q, x_length, rho = classify(
                x, y, valid, w, bias, tables, head, num_classes, d, K, M, PARTS, PRECISION, TENSOR_CORES
            )  # fmt: skip
            head_loss += (losses + unlabelled).to(tl.float64)
            if HEAD:
                along_sums += q
                dx = float32_product(g.to(w.dtype), w, PRECISION, TENSOR_CORES)
                if head.lengths:
                    dx += (r * inverse_or_zero(x_length))[:, None] * x.to(tl.float32)
                dx *= (rho * head_scale)[:, None]
                g *= rho[:, None]
        if tables.c is not None:
            losses, pull, finite, push = attract(
                x, y, valid, tables, head, rule, center_scale, factor, spread_total, num_classes, d, K
            )  # fmt: skip
            center_loss += (losses + unlabelled).to(tl.float64)
            dx = dx + pull if HEAD else pull
        if out.dx is not None:
            store_chunk(out.dx, dx, at, in_batch, d, 0, d, D)
        if KINDS > 0:
            PUSH: tl.constexpr = KINDS > HEAD + UPDATE
            weights = row_weights(g, y, valid, finite, push, HEAD, UPDATE, PUSH, K, M)
            weight_sums += weights
            if FUSED:
                if UPDATE:  # again, from the L1: zeros in place of what is not finite
                    x = load_chunk(batch.x, at, in_batch & finite, x_stride, 0, d, D)
                sums += class_product(tl.trans(weights), x, not (HEAD or PUSH), TENSOR_CORES)
            else:
                columns = tl.arange(0, M)
                to = out.row_weights + at[:, None] * (KINDS * K) + columns[None, :]
                tl.store(to, weights, mask=in_batch[:, None] & (columns < KINDS * K)[None, :])
    write_partials(out, program, sums, weight_sums, along_sums, head_loss, center_loss, d, K, KINDS, FUSED)


@triton.jit
def write_partials(
    out, program, sums, weight_sums, along_sums, head_loss, center_loss, d, K: tl.constexpr, KINDS: tl.constexpr,
    FUSED: tl.constexpr,
):  # fmt: skip
    """One program's block: the two losses, Σ weights (KINDS, K) and Σ Q (K,), then if they are held the sums (KINDS K, d)."""
    M: tl.constexpr = sums.shape[0]
    columns = tl.arange(0, M)
    block = out.partials + program.to(tl.int64) * (block_head(K, KINDS) + FUSED * KINDS * K * d)
    tl.store(block, tl.sum(head_loss, 0).to(tl.float32))
    tl.store(block + 1, tl.sum(center_loss, 0).to(tl.float32))
    tl.store(block + 2 + columns, tl.sum(weight_sums, 0), mask=columns < KINDS * K)
    tl.store(block + 2 + KINDS * K + columns, tl.sum(along_sums, 0), mask=columns < K)
    if FUSED:
        store_chunk(block + block_head(K, KINDS), sums, columns, columns < KINDS * K, d, 0, d, sums.shape[1])


@triton.jit
def block_head(K: tl.constexpr, KINDS: tl.constexpr):
    """Numbers of a block before its sums, a multiple of four so that those are aligned."""
    return (2 + (KINDS + 1) * K + 3) // 4 * 4
