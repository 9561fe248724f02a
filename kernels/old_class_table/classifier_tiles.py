"""Tile arithmetic of the classifiers: products with the class weights, cross-entropy, and the way back."""

import triton
import triton.language as tl

from ..ad_corre.tiles import in_turn
from ..common.products import float32_product
from ..common.tiles import inverse_or_zero, load_chunk
from .chunks import held_chunk, lengths_of, load_again


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
def class_operand(w_ptr, num_classes, d, DTYPE: tl.constexpr, chunk, K: tl.constexpr, BLOCK_D: tl.constexpr):
    """A chunk of the class weights as it enters the products: (K, BLOCK_D)."""
    classes = tl.arange(0, K)
    return load_chunk(w_ptr, classes, classes < num_classes, d, chunk, d, BLOCK_D).to(DTYPE)


@triton.jit
def chunk_products(
    x, w_ptr, num_classes, d, chunk, PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr,
    K: tl.constexpr, BLOCK_D: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """What a chunk adds to w_j·x: (K, rows), or for PARTS > 1 (PARTS, K, rows)."""
    w = class_operand(w_ptr, num_classes, d, x.dtype, chunk, K, BLOCK_D)
    if PARTS == 1:
        dot = float32_product(w, tl.trans(x), PRECISION, TENSOR_CORES)
    else:
        w = tl.permute(tl.reshape(w, (K, PARTS, BLOCK_D // PARTS)), (1, 0, 2))
        rows = tl.permute(tl.reshape(x, (x.shape[0], PARTS, BLOCK_D // PARTS)), (1, 2, 0))
        dot = float32_product(w, rows, PRECISION, TENSOR_CORES)
    return dot


@triton.jit
def products(
    x, factor, w_ptr, num_classes, d, PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr, ROWS: tl.constexpr,
    K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """factor · x·w_j for a tile of rows and every class: (ROWS, K).

    As a batch of `PARTS` products of narrow pieces of the columns, which the warps share out: of one product of this
    few rows and classes every warp would hold whole operands. Classes by rows: the matrix unit takes 16 of the first
    and 8 of the second, and a tile may have no more than 8 rows.
    """
    dot = tl.zeros((K, ROWS), tl.float32) if PARTS == 1 else tl.zeros((PARTS, K, ROWS), tl.float32)
    if x[0].dtype.is_ptr():
        for chunk in tl.range(CHUNKS, disable_licm=True):
            part = load_again(x, chunk, BLOCK_D)
            dot += chunk_products(part, w_ptr, num_classes, d, chunk, PRECISION, TENSOR_CORES, K, BLOCK_D, PARTS)
    else:
        for chunk in tl.static_range(CHUNKS):
            if in_turn(chunk, num_classes, CHUNKS):
                part = held_chunk(x, chunk, num_classes, CHUNKS)
                dot += chunk_products(part, w_ptr, num_classes, d, chunk, PRECISION, TENSOR_CORES, K, BLOCK_D, PARTS)
    if PARTS > 1:
        # Every warp holds all of this sum. Carried on, its layout would put whole rows of x into every warp; a gather
        # is where the compiler lets go of it.
        classes = tl.zeros((K, ROWS), tl.int32) + tl.arange(0, K)[:, None]
        dot = tl.gather(tl.sum(dot, 0), classes, 0)
    return tl.trans(dot) * factor[:, None]


@triton.jit
def own_products(x, y, valid, w_ptr, d, ROWS: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr):
    """x·w_y in float32: (ROWS,). An angle's margin stands on it, and half-precision weights would tilt the angle."""
    dot = tl.zeros((ROWS, BLOCK_D), tl.float32)
    if x[0].dtype.is_ptr():
        for chunk in tl.range(CHUNKS, disable_licm=True):
            own = load_chunk(w_ptr, y, valid, d, chunk, d, BLOCK_D).to(tl.float32)
            dot += load_again(x, chunk, BLOCK_D).to(tl.float32) * own
    else:
        for chunk in tl.static_range(CHUNKS):
            own = load_chunk(w_ptr, y, valid, d, chunk, d, BLOCK_D).to(tl.float32)
            dot += x[chunk].to(tl.float32) * own
    return tl.sum(dot, 1)


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
    LOGITS: tl.constexpr, CHAIN: tl.constexpr, UNIT_X: tl.constexpr, LENGTHS: tl.constexpr,
    EXACT_OWN: tl.constexpr, PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr,
    ROWS: tl.constexpr, K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Loss (rows,) of a tile, p = d loss/d logits, what the chain rule makes of it (G, R, Q), ‖x‖ and ρ."""
    x_length, factor = row_lengths(x, UNIT_X, LENGTHS, ROWS, BLOCK_D, CHUNKS)
    dot = products(
        x, factor, w_ptr, num_classes, d, PRECISION, TENSOR_CORES, ROWS, K, BLOCK_D, CHUNKS, PARTS
    )  # fmt: skip
    if EXACT_OWN:
        own = own_products(x, y, valid, w_ptr, d, ROWS, BLOCK_D, CHUNKS)
        dot = tl.where(hot, own[:, None], dot)
    losses, p = cross_entropy(dot, hot, valid, x_length, w_length, bias, weights, num_classes, LOGITS, a)
    return losses, p, CHAIN(p, dot, hot, x_length, w_length, a), x_length, factor
