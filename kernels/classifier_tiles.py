"""Tile arithmetic of the classifiers: products with the class weights, cross-entropy, and the way back."""

import triton
import triton.language as tl

from .products import float32_product
from .tiles import inverse_or_zero, lengths_of, load_again, load_chunk


@triton.jit
def of_class(hot, values):
    """Each row's own class's entry of `values` (K,): (rows,), 0 for a row without a class."""
    return tl.sum(tl.where(hot, values[None, :], 0.0), 1)


@triton.jit
def row_lengths(
    x, UNIT: tl.constexpr, LENGTHS: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr
):
    """‖x‖ of a tile, and the factor 1/‖x‖ that takes its rows to length one (1 unless `UNIT`)."""
    length = tl.zeros((ROWS,), tl.float32)
    factor = tl.full((ROWS,), 1.0, tl.float32)
    if LENGTHS:
        length = lengths_of(x, ROWS, BLOCK_D, CHUNKS)
    if UNIT:
        factor = inverse_or_zero(length)
    return length, factor


@triton.jit
def class_operand(
    w_ptr, length, num_classes, d, UNIT: tl.constexpr, DTYPE: tl.constexpr,
    chunk, K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """A chunk of the class weights as it enters the products: (K, BLOCK_D), unit rows if `UNIT`."""
    classes = tl.arange(0, K)
    table = load_chunk(w_ptr, classes, classes < num_classes, d, chunk, d, BLOCK_D)
    if UNIT:
        table = table.to(tl.float32) * inverse_or_zero(length)[:, None]
    return table.to(DTYPE)


@triton.jit
def chunk_products(
    x, w_ptr, w_length, num_classes, d, chunk, UNIT: tl.constexpr, PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr,
    K: tl.constexpr, BLOCK_D: tl.constexpr, PARTS: tl.constexpr, FENCED: tl.constexpr,
):  # fmt: skip
    """What a chunk adds to x·w_j: (rows, K), or for PARTS > 1 (PARTS, rows, K)."""
    w = class_operand(w_ptr, w_length, num_classes, d, UNIT, x.dtype, chunk, K, BLOCK_D)
    if PARTS == 1:
        dot = float32_product(x, tl.trans(w), PRECISION, TENSOR_CORES)
    else:
        rows = tl.permute(tl.reshape(x, (x.shape[0], PARTS, BLOCK_D // PARTS)), (1, 0, 2))
        w = tl.permute(tl.reshape(w, (K, PARTS, BLOCK_D // PARTS)), (1, 2, 0))
        dot = float32_product(rows, w, PRECISION, TENSOR_CORES)
    if FENCED:
        tl.debug_barrier()  # else the operands of several chunks wait in registers beside wide rows
    return dot


@triton.jit
def products(
    x, factor, w_ptr, w_length, num_classes, d, UNIT: tl.constexpr, PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr,
    ROWS: tl.constexpr, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr, PARTS: tl.constexpr,
    FENCED: tl.constexpr,
):  # fmt: skip
    """factor · x·w_j for a tile of rows and every class: (ROWS, K).

    As a batch of `PARTS` products of narrow pieces of the columns, which the warps share out: of one product of this
    few rows and classes every warp would hold whole operands.
    """
    dot = tl.zeros((ROWS, K), tl.float32) if PARTS == 1 else tl.zeros((PARTS, ROWS, K), tl.float32)
    if x[0].dtype.is_ptr():
        for chunk in tl.range(CHUNKS, disable_licm=True):
            dot += chunk_products(
                load_again(x, chunk, BLOCK_D), w_ptr, w_length, num_classes, d, chunk, UNIT, PRECISION, TENSOR_CORES,
                K, BLOCK_D, PARTS, FENCED,
            )  # fmt: skip
    else:
        for chunk in tl.static_range(CHUNKS):
            dot += chunk_products(
                x[chunk], w_ptr, w_length, num_classes, d, chunk, UNIT, PRECISION, TENSOR_CORES,
                K, BLOCK_D, PARTS, FENCED,
            )  # fmt: skip
    if PARTS > 1:
        # Every warp holds all of this sum. Carried on, its layout would put whole rows of x into every warp; a gather
        # is where the compiler lets go of it.
        classes = tl.zeros((ROWS, K), tl.int32) + tl.arange(0, K)[None, :]
        dot = tl.gather(tl.sum(dot, 0), classes, 1)
    return dot * factor[:, None]


@triton.jit
def own_products(x, y, valid, w_ptr, d, ROWS: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr):
    """x·w_y in float32: (ROWS,). An angle's margin stands on it, and half-precision weights would tilt the angle."""
    dot = tl.zeros((ROWS,), tl.float32)
    if x[0].dtype.is_ptr():
        for chunk in tl.range(CHUNKS, disable_licm=True):
            own = load_chunk(w_ptr, y, valid, d, chunk, d, BLOCK_D).to(tl.float32)
            dot += tl.sum(load_again(x, chunk, BLOCK_D).to(tl.float32) * own, 1)
    else:
        for chunk in tl.static_range(CHUNKS):
            own = load_chunk(w_ptr, y, valid, d, chunk, d, BLOCK_D).to(tl.float32)
            dot += tl.sum(x[chunk].to(tl.float32) * own, 1)
    return dot


@triton.jit
def cross_entropy(dot, hot, valid, x_length, w_length, bias, weights, num_classes, LOGITS: tl.constexpr, a):
    """Loss (rows,) and p = d loss/d logits (rows, K) of a tile from its products with the class weights."""
    real = (tl.arange(0, hot.shape[1]) < num_classes)[None, :]
    logits = tl.where(real, LOGITS(dot, hot, x_length, w_length, bias, a), -float("inf"))
    largest = tl.max(logits, 1)
    exponentials = tl.exp(logits - largest[:, None])
    total = tl.sum(exponentials, 1)
    weight = of_class(hot, weights)
    own = tl.sum(tl.where(hot, logits, 0.0), 1)
    p = (exponentials / total[:, None] - tl.where(hot, 1.0, 0.0)) * weight[:, None]
    return tl.where(valid, weight * (tl.log(total) + largest - own), 0.0), tl.where(valid[:, None], p, 0.0)


@triton.jit
def classify(
    x, y, valid, hot, w_ptr, w_length, bias, weights, num_classes, d, a,
    LOGITS: tl.constexpr, CHAIN: tl.constexpr, UNIT_X: tl.constexpr, UNIT_W: tl.constexpr, LENGTHS: tl.constexpr,
    EXACT_OWN: tl.constexpr, PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr,
    ROWS: tl.constexpr, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr, PARTS: tl.constexpr,
    FENCED: tl.constexpr,
):  # fmt: skip
    """Loss (rows,) of a tile, p = d loss/d logits, what the chain rule makes of it (G, R, Q), ‖x‖ and ρ."""
    x_length, factor = row_lengths(x, UNIT_X, LENGTHS, ROWS, BLOCK_D, CHUNKS)
    dot = products(
        x, factor, w_ptr, w_length, num_classes, d, UNIT_W, PRECISION, TENSOR_CORES, ROWS, K, BLOCK_D, CHUNKS, PARTS,
        FENCED,
    )  # fmt: skip
    if EXACT_OWN:
        own = own_products(x, y, valid, w_ptr, d, ROWS, BLOCK_D, CHUNKS)[:, None]
        if UNIT_W:
            own *= inverse_or_zero(w_length)[None, :]
        dot = tl.where(hot, own, dot)
    losses, p = cross_entropy(dot, hot, valid, x_length, w_length, bias, weights, num_classes, LOGITS, a)
    return losses, p, CHAIN(p, dot, hot, x_length, w_length, a), x_length, factor
