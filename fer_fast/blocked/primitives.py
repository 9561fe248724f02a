"""Correlations and distances that callers ask for by themselves, with their backward."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .center_spread import CenterSpread, OtherCenters
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

    3·n·C·d operations on differences, which a product would cancel for near rows.
    """
    result = torch.empty(len(x), len(centers), dtype=work_dtype(x), device=x.device)
    for block, span, differences in _differences(x, centers):
        result[block, span] = differences.square_().sum(-1)
    return result


def center_distances_backward(grad: Tensor, x: Tensor, centers: Tensor) -> Tensor:
    """2 Σ_j g_ij (x_i - c_j) from grad (n, C): (n, d). 3·n·C·d operations, on differences as well."""
    dtype = work_dtype(x, centers)
    dx, grad = torch.zeros(x.shape, dtype=dtype, device=x.device), grad.to(dtype)
    for block, span, differences in _differences(x, centers):
        part = differences.new_empty(len(differences), 1, differences.shape[-1])
        dx[block] += torch.bmm(grad[block, None, span], differences, out=part)[:, 0]  # where autocast rounds nothing
    return dx.mul_(2).to(x.dtype)


def _differences(x: Tensor, centers: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """x_i - c_j of some rows and some centers at a time, (r, c, d): tiles that stay in cache."""
    dtype, (num_classes, d) = work_dtype(x, centers), centers.shape
    columns = min(num_classes, rows_per_block(d))
    for block in spans(len(x), rows_per_block(columns * d)):
        rows = take(x, block, dtype)[:, None]
        for span in spans(num_classes, columns):
            yield block, span, rows - take(centers, span, dtype)


def anti_center_distances(x: Tensor, y: Tensor, centers: Tensor) -> Tensor:
    """S_i = Σ_{j≠y_i} ‖x_i - c_j‖² for x (n, d), y (n,), centers (C, d): (n,), in O(d) a sample."""
    result = torch.empty(len(x), dtype=work_dtype(x), device=x.device)
    for block, anti, _ in _anti(x, y, centers):
        result[block] = anti
    return result


def anti_center_distances_backward(grad: Tensor, x: Tensor, y: Tensor, centers: Tensor) -> Tensor:
    """2 g_i Σ_{j≠y_i} (x_i - c_j) from grad (n,): (n, d), in O(d) a sample."""
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    for block, _, apart in _anti(x, y, centers):
        dx[block] = apart.mul_(2 * grad[block, None])
    return dx


def _anti(x: Tensor, y: Tensor, centers: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """S and half of dS/dx of some samples at a time."""
    others = OtherCenters.of(centers, CenterSpread.of(centers))
    for block in spans(len(x), rows_per_block(x.shape[1])):
        yield block, *others.anti(take(x, block, x.dtype), y[block], centers.index_select(0, y[block]))
