"""The gradient of a tile of rows, of a classifier's products and of a center loss's distances at once."""

import triton
import triton.language as tl

from ..ad_corre.tiles import in_turn
from ..common.products import float32_product
from ..common.tiles import inverse_or_zero, store_chunk
from .chunks import held_chunk, load_again
from .classifier_tiles import class_operand
from .table_tiles import anti_offset, others_offset, own_offset


@triton.jit
def chunk_gradient(
    x, head, pull, w_ptr, c_ptr, num_classes, d, chunk, LENGTHS: tl.constexpr,
    ANTI: tl.constexpr, PAPER: tl.constexpr, PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One chunk of :func:`write_gradient`, in float32."""
    dx = tl.zeros(x.shape, tl.float32)
    if len(head) > 0:
        g, r, x_length, rho = head
        w = class_operand(w_ptr, num_classes, d, x.dtype, chunk, g.shape[1], BLOCK_D)
        dx = float32_product(g.to(w.dtype), w, PRECISION, TENSOR_CORES)
        if LENGTHS:
            dx += (r * inverse_or_zero(x_length))[:, None] * x.to(tl.float32)
        dx *= rho[:, None]
    if len(pull) > 0:
        y, valid, slopes, without = pull
        own_slope, anti_slope, paper_slope = slopes
        dx += own_slope[:, None] * own_offset(x, y, valid, c_ptr, d, chunk, BLOCK_D)
        if ANTI:
            offset = anti_offset(x, y, valid, c_ptr, num_classes, d, without, chunk, BLOCK_D)
            dx += anti_slope[:, None] * offset
        if PAPER:
            offset = others_offset(y, valid, c_ptr, num_classes, d, without, chunk, BLOCK_D)
            dx += paper_slope[:, None] * offset
    return dx


@triton.jit
def write_gradient(
    dx_ptr, rows, in_batch, x, head, pull, w_ptr, c_ptr, num_classes, d,
    LENGTHS: tl.constexpr, ANTI: tl.constexpr, PAPER: tl.constexpr,
    PRECISION: tl.constexpr, TENSOR_CORES: tl.constexpr, BLOCK_D: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """dx of a tile: ρ (G W + R x̂) of a classifier, plus slopes times offsets from the centers of a center loss.

    `head` is (G, R, ‖x‖, ρ), `pull` (labels, valid, slopes of own, anti and paper's term, what others_mean takes);
    either is empty where a loss has none.
    """
    if x[0].dtype.is_ptr():
        for chunk in tl.range(CHUNKS, disable_licm=True):
            dx = chunk_gradient(
                load_again(x, chunk, BLOCK_D), head, pull, w_ptr, c_ptr, num_classes, d, chunk,
                LENGTHS, ANTI, PAPER, PRECISION, TENSOR_CORES, BLOCK_D,
            )  # fmt: skip
            store_chunk(dx_ptr, dx, rows, in_batch, d, chunk, d, BLOCK_D)
    else:
        for chunk in tl.static_range(CHUNKS):
            if in_turn(chunk, num_classes, CHUNKS):
                dx = chunk_gradient(
                    held_chunk(x, chunk, num_classes, CHUNKS), head, pull, w_ptr, c_ptr, num_classes, d, chunk,
                    LENGTHS, ANTI, PAPER, PRECISION, TENSOR_CORES, BLOCK_D,
                )  # fmt: skip
                store_chunk(dx_ptr, dx, rows, in_batch, d, chunk, d, BLOCK_D)
