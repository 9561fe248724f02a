"""The primitives and their gradients, launched."""

import torch
from torch import Tensor

from ..directions.launch import chain_rule, normalise
from ..host.chips import chip, pick_tile
from ..host.launch import cdiv, columns_first, dense_rows, product_kind
from .anti_center import anti_center
from .center_spreads import center_spreads
from .distance_gradient import distance_gradient
from .distance_matrix import distance_matrix
from .settings import ANTI_CENTER_ROWS as ROWS
from .settings import DIFFERENCES, MATRIX_GRADIENT_TILES, MATRIX_TILES
from .similarity_gradient import similarity_gradient
from .similarity_matrix import similarity_matrix

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
    similarity_matrix[grid](u, matrix, n, d, **blocks, **tile.options)
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
    similarity_gradient[grid](u, grad, gradients, n, d, grad.stride(0), **blocks, **tile.options)
    return chain_rule(x, gradients, None, True, 1.0, 1.0)[1].to(x.dtype)


def center_distances(x: Tensor, centers: Tensor) -> Tensor:
    """‖x_i - c_j‖² of x (n, d) and centers (C, d): (n, C) in float32. 2·n·C·d operations, n·C numbers written."""
    (n, d), num_classes, tile = x.shape, len(centers), DIFFERENCES
    distances = _empty((n, num_classes), dtype=torch.float32, device=x.device)
    tables = (columns_first(rows, tile.block_k, tile.block_n) for rows in (x, centers))
    distance_matrix[cdiv(n, tile.block_m), cdiv(num_classes, tile.block_n)](
        *tables, distances, n, num_classes, d,
        BLOCK_M=tile.block_m, BLOCK_N=tile.block_n, CHUNK=tile.block_k, **tile.options,
    )  # fmt: skip
    return distances


def center_distances_backward(grad: Tensor, x: Tensor, centers: Tensor) -> Tensor:
    """dx (n, d) = 2 Σ_j g_ij (x_i - c_j) from grad (n, C); the centers are constants."""
    x, grad, centers = dense_rows(x), dense_rows(grad), dense_rows(centers)
    (n, d), tile = x.shape, DIFFERENCES
    dx = _empty(x.shape, dtype=x.dtype, device=x.device)
    distance_gradient[cdiv(n, tile.block_m), cdiv(d, tile.block_d)](
        grad, x, centers, dx, n, len(centers), d, grad.stride(0), x.stride(0), centers.stride(0),
        BLOCK_M=tile.block_m, BLOCK_D=tile.block_d, CHUNK=tile.block_k, **tile.options,
    )  # fmt: skip
    return dx


def anti_center_distances(x: Tensor, y: Tensor, centers: Tensor) -> Tensor:
    """S_i = Σ_{j≠y_i} ‖x_i - c_j‖² (n,) in float32, of x (n, d), y (n,), centers (C, d), in O(d) a sample:

    through the outlier among the centers and the mean and spread of the others, see :mod:`..large_centers`. Nothing of
    size (n, C) exists. An unknown label gives NaN.
    """
    if len(centers) == 1:
        return torch.zeros(len(x), dtype=torch.float32, device=x.device)
    output = _empty((len(x),), dtype=torch.float32, device=x.device)
    return _anti_center_pass(x, y, centers, output, grad=None)


def anti_center_distances_backward(grad: Tensor, x: Tensor, y: Tensor, centers: Tensor) -> Tensor:
    """dx (n, d) = 2 g_i Σ_{j≠y_i} (x_i - c_j) from grad (n,); the centers are constants."""
    if len(centers) == 1:
        return torch.zeros_like(x, memory_format=torch.contiguous_format)
    return _anti_center_pass(x, y, centers, _empty(x.shape, dtype=x.dtype, device=x.device), grad.contiguous())


def _anti_center_pass(x: Tensor, y: Tensor, centers: Tensor, output: Tensor, grad: Tensor | None) -> Tensor:
    x, y, centers = dense_rows(x), y.contiguous(), dense_rows(centers)
    (n, d), num_classes = x.shape, len(centers)
    blocks = {"BLOCK": ROWS.block_m, "BLOCK_D": ROWS.block_d, **ROWS.options}

    def squared_from(mean: Tensor) -> Tensor:
        squared = _empty((num_classes,), dtype=torch.float64, device=x.device)
        grid = (cdiv(num_classes, ROWS.block_m),)
        center_spreads[grid](centers, mean, squared, num_classes, d, centers.stride(0), **blocks)
        return squared

    outlier = squared_from(centers.sum(0, dtype=torch.float64) / num_classes).argmax()[None]
    another = centers.index_select(0, (outlier == 0).long())
    # In the outlier's place another: to take a far one off their sum would cost the digits of all others.
    total = centers.index_copy(0, outlier, another).sum(0, dtype=torch.float64) - another[0]
    mean = total / (num_classes - 1)
    rest = squared_from(mean).index_fill_(0, outlier, 0).sum() if grad is None else mean
    anti_center[cdiv(n, ROWS.block_m),](
        x, y, centers, outlier, mean, rest, output if grad is None else grad, output, n, num_classes, d,
        x.stride(0), centers.stride(0), GRADIENT=grad is not None, **blocks,
    )  # fmt: skip
    return output
