"""The operators of the primitives, each with a backward operator.

A second derivative is refused by PyTorch: the backward operators have no autograd formula.
"""

import torch
from torch import Tensor
from torch.library import custom_op

from .. import checks
from .library import loss_dtype, run_engine


@custom_op("fer_fast::correlation_matrix", mutates_args=())
def correlation_matrix(x: Tensor, backend: str) -> Tensor:
    return run_engine(backend, "primitives", "correlation_matrix", x)


@custom_op("fer_fast::correlation_matrix_backward", mutates_args=())
def correlation_matrix_backward(grad: Tensor, x: Tensor, backend: str) -> Tensor:
    return run_engine(backend, "primitives", "correlation_matrix_backward", grad, x)


@custom_op("fer_fast::center_distances", mutates_args=())
def center_distances(x: Tensor, centers: Tensor, backend: str) -> Tensor:
    return run_engine(backend, "primitives", "center_distances", x, centers)


@custom_op("fer_fast::center_distances_backward", mutates_args=())
def center_distances_backward(grad: Tensor, x: Tensor, centers: Tensor, backend: str) -> Tensor:
    return run_engine(backend, "primitives", "center_distances_backward", grad, x, centers)


@custom_op("fer_fast::anti_center_distances", mutates_args=())
def anti_center_distances(x: Tensor, y: Tensor, centers: Tensor, backend: str) -> Tensor:
    checks.label_range(y, centers.shape[0])
    return run_engine(backend, "primitives", "anti_center_distances", x, y, centers)


@custom_op("fer_fast::anti_center_distances_backward", mutates_args=())
def anti_center_distances_backward(grad: Tensor, x: Tensor, y: Tensor, centers: Tensor, backend: str) -> Tensor:
    return run_engine(backend, "primitives", "anti_center_distances_backward", grad, x, y, centers)


@custom_op("fer_fast::contrastive_rows", mutates_args=())
def contrastive_rows(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: float,
    mode: str,
    positives: bool,
    learnt: Tensor | None,
    backend: str,
) -> Tensor:
    """Losses l_i (n,), or without `positives` log D_i."""
    args = (z, y, bank_z, bank_y, temperature, mode, positives, learnt)
    return run_engine(backend, "contrastive", "contrastive_rows", *args)


@custom_op("fer_fast::contrastive_rows_backward", mutates_args=())
def contrastive_rows_backward(
    grad: Tensor,
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: float,
    mode: str,
    positives: bool,
    learnt: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    args = (grad, z, y, bank_z, bank_y, temperature, mode, positives, learnt)
    return run_engine(backend, "contrastive", "contrastive_rows_backward", *args)


def _register(operator, backward, shape, differentiable: tuple[int, ...] = (0,)) -> None:
    """Fake and autograd of an operator, whose arguments at the places `differentiable` have a gradient.

    `shape(*inputs)` is the output's; `backward(grad, *inputs)` its vector-Jacobian product by these arguments, a tensor
    or, where they are several, a tuple, whose tensor for an argument that is None is empty.
    """
    several = len(differentiable) > 1

    @operator.register_fake
    def _(x, *rest):
        return torch.empty(shape(x, *rest), dtype=loss_dtype(x), device=x.device)

    @backward.register_fake
    def _(grad, *inputs):
        given = (inputs[place] for place in differentiable)
        gradients = tuple(grad.new_empty(0) if t is None else torch.empty_like(t) for t in given)
        return gradients if several else gradients[0]

    def setup_context(ctx, inputs, output):
        # Tensors go through save_for_backward; everything else keeps its place in the list.
        ctx.save_for_backward(*(t for t in inputs if isinstance(t, Tensor)))
        ctx.places = [None if isinstance(t, Tensor) else (t,) for t in inputs]

    def formula(ctx, grad):
        tensors = iter(ctx.saved_tensors)
        arguments = [next(tensors) if place is None else place[0] for place in ctx.places]
        given = backward(grad, *arguments)
        gradients = [None] * len(arguments)
        for place, gradient in zip(differentiable, given if several else (given,), strict=True):
            gradients[place] = None if arguments[place] is None else gradient
        return tuple(gradients)

    operator.register_autograd(formula, setup_context=setup_context)


_register(correlation_matrix, correlation_matrix_backward, lambda x, _: (x.shape[0], x.shape[0]))
_register(center_distances, center_distances_backward, lambda x, centers, _: (x.shape[0], centers.shape[0]))
_register(anti_center_distances, anti_center_distances_backward, lambda x, *_: (x.shape[0],))
_register(contrastive_rows, contrastive_rows_backward, lambda z, *_: (z.shape[0],), differentiable=(0, 7))
