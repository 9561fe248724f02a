"""Correlations and distances that callers ask for by themselves, with their backward."""

import torch
from torch import Tensor

from .center_spread import CenterSpread
from .tiles import directions, rows_per_block, spans, take, work_dtype


def correlation_matrix(x: Tensor) -> Tensor:
    """Pearson's correlation of every two rows of x (n, d): (n, n). One product; the result is the only n×n buffer."""
    unit = directions(x.to(work_dtype(x)).contiguous(), centred=True).unit
    return torch.mm(unit, unit.T, out=unit.new_empty(len(x), len(x)))  # where autocast rounds nothing


def correlation_matrix_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Σ_ij g_ij dcorr_ij/dx from grad (n, n) and x (n, d): (n, d). Two products, no n×n buffer."""
    rows = directions(x.to(work_dtype(x)).contiguous(), centred=True)
    grad = grad.to(rows.unit.dtype)
    return rows.backward_(torch.mm(grad, rows.unit, out=torch.empty_like(rows.unit)).addmm_(grad.T, rows.unit)).to(
        x.dtype
    )


def center_distances(x: Tensor, centers: Tensor) -> Tensor:
    """‖x_i - c_j‖² for x (n, d) and centers (C, d): (n, C).

    3·n·C·d operations on differences, which a product would cancel for near rows; tiles of (r, c, d) stay in cache.
    """
    dtype = work_dtype(x, centers)
    n, (num_classes, d) = len(x), centers.shape
    result = torch.empty(n, num_classes, dtype=work_dtype(x), device=x.device)
    columns = min(num_classes, rows_per_block(d))
    for block in spans(n, rows_per_block(columns * d)):
        rows = take(x, block, dtype)[:, None]
        for span in spans(num_classes, columns):
            result[block, span] = (rows - take(centers, span, dtype)).square_().sum(-1)
    return result


def center_distances_backward(grad: Tensor, x: Tensor, centers: Tensor) -> Tensor:
    """2 Σ_j g_ij (x_i - c_j) from grad (n, C): (n, d). One product, about the mean center: a common offset cancels."""
    dtype = work_dtype(x, centers)
    x, centers = x.contiguous(), centers.to(dtype).contiguous()
    origin = centers.mean(0)
    grad = grad.to(dtype)
    dx = (x - origin).mul_(grad.sum(1, keepdim=True)).addmm_(grad, centers - origin, alpha=-1)
    return dx.mul_(2).to(x.dtype)


def anti_center_distances(x: Tensor, y: Tensor, centers: Tensor) -> Tensor:
    """S_i = Σ_{j≠y_i} ‖x_i - c_j‖² for x (n, d), y (n,), centers (C, d): (n,), in O(d) a sample."""
    spread = CenterSpread.of(centers)
    result = torch.empty(len(x), dtype=work_dtype(x), device=x.device)
    for block in spans(len(x), rows_per_block(x.shape[1])):
        result[block] = spread.anti(take(x, block, x.dtype), centers.index_select(0, y[block]))[0]
    return result


def anti_center_distances_backward(grad: Tensor, x: Tensor, y: Tensor, centers: Tensor) -> Tensor:
    """2 g_i Σ_{j≠y_i} (x_i - c_j) from grad (n,): (n, d), in O(d) a sample."""
    spread = CenterSpread.of(centers)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    for block in spans(len(x), rows_per_block(x.shape[1])):
        _, away = spread.anti(take(x, block, x.dtype), centers.index_select(0, y[block]))
        dx[block] = away.mul_(2 * (spread.count - 1) * grad[block, None])
    return dx
