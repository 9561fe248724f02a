"""Primitives of their own: the correlation matrix, distances to all centers, and to all but the own, with gradients.

Distances are sums of squared differences, never ‖x‖² + ‖c‖² - 2 x·c: what is close in space stays exact.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..aot import TYPES, aot_case, mark, products_to_compile
from ..configs import ANTI_CENTER_ROWS as ROWS
from ..configs import DIFFERENCES, MATRIX_GRADIENT_TILES, MATRIX_TILES, chip, pick_tile
from ..directions import chain_rule, normalise
from ..launch import cdiv, columns_first, dense_rows, product_kind
from ..pair_tiles import chunked_similarities, compensated, load_rows, squared_distances, store_rows


@triton.jit(do_not_specialize=["n"])
def _similarity_matrix(
    u, matrix, n, d, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr
):
    """One tile of U Uᵀ (n, n)."""
    first_row, first_key = tl.program_id(0) * BLOCK_M, tl.program_id(1) * BLOCK_N
    rows, keys = first_row + tl.arange(0, BLOCK_M), first_key + tl.arange(0, BLOCK_N)
    s = chunked_similarities(
        u, first_row, rows < n, d, u, first_key, keys < n, d, d, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION
    )  # fmt: skip
    store_rows(matrix, first_row, n, keys, n, n, s)


@triton.jit(do_not_specialize=["n"])
def _similarity_gradient(
    u, grad, gradients, n, d, grad_stride,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dU_i = Σ_j (g_ij + g_ji) u_j. In float32 or TF32: an incoming gradient may leave the range of float16."""
    first_row = tl.program_id(0) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for start in range(0, n, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        g = load_rows(grad, first_row, rows < n, grad_stride, keys, n)
        g += tl.trans(load_rows(grad, start, keys < n, grad_stride, rows, n))
        key_tile = load_rows(u, start, keys < n, d, columns, d).to(tl.float32)
        total = tl.dot(g, key_tile, total, input_precision=PRECISION)
    store_rows(gradients, first_row, d, columns, d, n, total)


@triton.jit(do_not_specialize=["n", "num_classes"])
def _distance_matrix(
    x, centers, distances, n, num_classes, d, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CHUNK: tl.constexpr
):
    """One tile of ‖x_i - c_j‖² (n, C) from tables laid out columns first."""
    first_row = tl.program_id(0) * BLOCK_M
    rows, keys = first_row + tl.arange(0, BLOCK_M), tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    tile = squared_distances(x, rows, centers, keys, d, CHUNK)
    store_rows(distances, first_row, num_classes, keys, num_classes, n, tile)


@triton.jit(do_not_specialize=["n", "num_classes"])
def _distance_gradient(
    grad, x, centers, dx, n, num_classes, d, grad_stride, x_stride, center_stride,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """dx_i = 2 Σ_j g_ij (x_i - c_j)."""
    first_row = tl.program_id(0) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    own = load_rows(x, first_row, rows < n, x_stride, columns, d).to(tl.float32)
    total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    error = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    grad += rows.to(tl.int64) * grad_stride
    centers += columns
    for start in range(0, num_classes, CHUNK):
        part = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        for place in tl.static_range(CHUNK):
            left = num_classes - start - place
            g = tl.load(grad + start + place, mask=(rows < n) & (left > tl.zeros_like(rows)), other=0.0)
            center = tl.load(centers, mask=(columns < d) & (left > tl.zeros_like(columns)), other=0.0).to(tl.float32)
            part += g[:, None] * (own - center[None, :])
            centers += center_stride
        total, error = compensated(total, error, part)
    store_rows(dx, first_row, d, columns, d, n, 2 * total)


@triton.jit(do_not_specialize=["num_classes"])
def _center_spreads(centers, mean, spreads, num_classes, d, center_stride, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr):
    """‖c_j - c̄‖² (C,) in float64."""
    first = tl.program_id(0) * BLOCK
    rows = first + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, d, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        center = load_rows(centers, first, rows < num_classes, center_stride, columns, d).to(tl.float64)
        difference = center - tl.load(mean + columns, mask=columns < d, other=0.0)[None, :]
        total += tl.sum(difference * difference, 1)
    tl.store(spreads + rows, total, mask=rows < num_classes)


@triton.jit(do_not_specialize=["n", "num_classes"])
def _anti_center(
    x, y, centers, mean, spreads, spread, grad, output, n, num_classes, d, x_stride, center_stride,
    GRADIENT: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """S_i (n,), or with GRADIENT dx (n, d), through the mean c̄₋ and the spread V₋ of the other centers."""
    first = tl.program_id(0) * BLOCK
    rows = first + tl.arange(0, BLOCK)
    label = tl.load(y + rows, mask=rows < n, other=0).to(tl.int64)  # times a stride
    known = (label >= 0) & (label < num_classes)
    others = (num_classes - 1).to(tl.float64)
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, d, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        inside = known[:, None] & (columns < d)[None, :]
        own = tl.load(centers + (label * center_stride)[:, None] + columns[None, :], mask=inside, other=float("nan"))
        middle = tl.load(mean + columns, mask=columns < d, other=0.0)[None, :]
        row = load_rows(x, first, rows < n, x_stride, columns, d).to(tl.float64)
        # x - c̄₋: in float64, since next to the only other center the two terms all but cancel.
        difference = (row - middle) + (own.to(tl.float64) - middle) / others
        if GRADIENT:
            g = tl.load(grad + rows, mask=rows < n, other=0.0).to(tl.float64)
            dx = (2 * others * g)[:, None] * difference
            store_rows(output, first, d, columns, d, n, dx)
        else:
            total += tl.sum(tl.where((columns < d)[None, :], difference * difference, 0.0), 1)
    if not GRADIENT:
        own_spread = tl.load(spreads + label, mask=known, other=float("nan"))
        rest = tl.load(spread) - own_spread * (others + 1) / others
        s = others * total + tl.where(rest < 0, 0.0, rest)
        tl.store(output + rows, s.to(tl.float32), mask=rows < n)


_empty = torch.empty


def correlation_matrix(x: Tensor) -> Tensor:
    """Pearson's correlation of every two rows of x (n, d): (n, n) in float32. Two launches, n² numbers written."""
    x = dense_rows(x)
    n, d = x.shape
    u, _ = normalise(x, None, None, standardise=True)
    matrix = _empty((n, n), dtype=torch.float32, device=x.device)
    tile = pick_tile(MATRIX_TILES, chip(x.device), product_kind(x.dtype), d)
    blocks = {name: tile.constexprs[name] for name in ("BLOCK_M", "BLOCK_N", "BLOCK_K", "PRECISION")}
    grid = (cdiv(n, tile.block_m), cdiv(n, tile.block_n))
    _similarity_matrix[grid](u, matrix, n, d, **blocks, **tile.options)
    return matrix


def correlation_matrix_backward(grad: Tensor, x: Tensor) -> Tensor:
    """dx (n, d) from grad (n, n), in three launches: dU = (g + gᵀ) U, then the chain rule through U."""
    x, grad = dense_rows(x), dense_rows(grad.float())
    n, d = x.shape
    u, _ = normalise(x, None, None, standardise=True)
    gradients = _empty((1, n, d), dtype=torch.float32, device=x.device)
    tile = pick_tile(MATRIX_GRADIENT_TILES, chip(x.device), product_kind(x.dtype), d)
    blocks = {name: tile.constexprs[name] for name in ("BLOCK_M", "BLOCK_N", "BLOCK_D", "PRECISION")}
    grid = (cdiv(n, tile.block_m), cdiv(d, tile.block_d))
    _similarity_gradient[grid](u, grad, gradients, n, d, grad.stride(0), **blocks, **tile.options)
    return chain_rule(x, gradients, None, True, 1.0, 1.0)[1].to(x.dtype)


def center_distances(x: Tensor, centers: Tensor) -> Tensor:
    """‖x_i - c_j‖² of x (n, d) and centers (C, d): (n, C) in float32. 2·n·C·d operations, n·C numbers written."""
    (n, d), num_classes, tile = x.shape, len(centers), DIFFERENCES
    distances = _empty((n, num_classes), dtype=torch.float32, device=x.device)
    tables = (columns_first(rows, tile.block_k, tile.block_n) for rows in (x, centers))
    _distance_matrix[cdiv(n, tile.block_m), cdiv(num_classes, tile.block_n)](
        *tables, distances, n, num_classes, d,
        BLOCK_M=tile.block_m, BLOCK_N=tile.block_n, CHUNK=tile.block_k, **tile.options,
    )  # fmt: skip
    return distances


def center_distances_backward(grad: Tensor, x: Tensor, centers: Tensor) -> Tensor:
    """dx (n, d) = 2 Σ_j g_ij (x_i - c_j) from grad (n, C); the centers are constants."""
    x, grad, centers = dense_rows(x), dense_rows(grad), dense_rows(centers)
    (n, d), tile = x.shape, DIFFERENCES
    dx = _empty(x.shape, dtype=x.dtype, device=x.device)
    _distance_gradient[cdiv(n, tile.block_m), cdiv(d, tile.block_d)](
        grad, x, centers, dx, n, len(centers), d, grad.stride(0), x.stride(0), centers.stride(0),
        BLOCK_M=tile.block_m, BLOCK_D=tile.block_d, CHUNK=tile.block_k, **tile.options,
    )  # fmt: skip
    return dx


def anti_center_distances(x: Tensor, y: Tensor, centers: Tensor) -> Tensor:
    """S_i = Σ_{j≠y_i} ‖x_i - c_j‖² (n,) in float32, of x (n, d), y (n,), centers (C, d), in O(d) a sample:

    S_i = (C-1) ‖x_i - c̄₋‖² + V₋ with the mean c̄₋ of the centers but c_{y_i} and V₋ = Σ_{j≠y_i} ‖c_j - c̄₋‖², both from
    the table's own mean and spread. Nothing of size (n, C) exists. An unknown label gives NaN.
    """
    if len(centers) == 1:
        return torch.zeros(len(x), dtype=torch.float32, device=x.device)
    output = _empty((len(x),), dtype=torch.float32, device=x.device)
    return _anti_center_pass(x, y, centers, output, grad=None)


def anti_center_distances_backward(grad: Tensor, x: Tensor, y: Tensor, centers: Tensor) -> Tensor:
    """dx (n, d) = 2 (C-1) g_i (x_i - c̄₋) from grad (n,); the centers are constants."""
    if len(centers) == 1:
        return torch.zeros_like(x, memory_format=torch.contiguous_format)
    return _anti_center_pass(x, y, centers, _empty(x.shape, dtype=x.dtype, device=x.device), grad.contiguous())


def _anti_center_pass(x: Tensor, y: Tensor, centers: Tensor, output: Tensor, grad: Tensor | None) -> Tensor:
    x, y, centers = dense_rows(x), y.contiguous(), dense_rows(centers)
    (n, d), num_classes = x.shape, len(centers)
    blocks = {"BLOCK": ROWS.block_m, "BLOCK_D": ROWS.block_d, **ROWS.options}
    mean = centers.sum(0, dtype=torch.float64) / num_classes
    spreads = _empty((num_classes,), dtype=torch.float64, device=x.device)
    if grad is None:
        _center_spreads[cdiv(num_classes, ROWS.block_m),](
            centers, mean, spreads, num_classes, d, centers.stride(0), **blocks
        )
    spread = spreads.sum() if grad is None else spreads
    _anti_center[cdiv(n, ROWS.block_m),](
        x, y, centers, mean, spreads, spread, output if grad is None else grad, output, n, num_classes, d,
        x.stride(0), centers.stride(0), GRADIENT=grad is not None, **blocks,
    )  # fmt: skip
    return output


def aot_cases(family: str) -> Iterator[tuple]:
    """Every kernel at every dtype, for the audit."""
    ints = dict.fromkeys(("n", "num_classes", "d", "x_stride", "center_stride", "grad_stride"), "i32")
    types = ints | dict.fromkeys(("grad", "matrix", "gradients", "distances"), "*fp32") | {"y": "*i64"}
    types |= dict.fromkeys(("mean", "spreads", "spread"), "*fp64")
    for name, tile, dtype, width in products_to_compile(MATRIX_TILES, family):
        flags, given = tile.constexprs, types | {"u": f"*{TYPES[dtype]}"}
        case = mark(name, dtype == torch.bfloat16)
        yield aot_case(f"similarity-matrix-{case}", _similarity_matrix, given, flags, tile.options)
        backward = pick_tile(MATRIX_GRADIENT_TILES, family, name.split("-")[1], width)
        flags |= backward.constexprs
        yield aot_case(f"similarity-gradient-{case}", _similarity_gradient, given, flags, backward.options)
    blocks = DIFFERENCES.constexprs | {"CHUNK": DIFFERENCES.block_k}
    flat = {"BLOCK": ROWS.block_m, "BLOCK_D": ROWS.block_d}
    sums, visits = DIFFERENCES.options, ROWS.options
    for of in TYPES.values():
        rows = types | {"x": f"*{of}", "centers": "*fp32", "dx": f"*{of}", "output": f"*{of}"}
        yield aot_case(mark(f"distance-gradient-{of}", of == "bf16"), _distance_gradient, rows, blocks, sums)
        yield aot_case(f"anti-center-gradient-{of}", _anti_center, rows, flat | {"GRADIENT": True}, visits)
        summed = rows | {"output": "*fp32"}
        case = mark(f"anti-center-{of}", of == "bf16")
        yield aot_case(case, _anti_center, summed, flat | {"GRADIENT": False}, visits)
    tables = types | {"x": "*fp32", "centers": "*fp32"}
    yield aot_case(mark("distance-matrix", True), _distance_matrix, tables, blocks, sums)
    yield aot_case(mark("center-spreads", True), _center_spreads, tables, flat, visits)
