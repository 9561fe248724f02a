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
    checks.label_range(y, len(centers))
    return run_engine(backend, "primitives", "anti_center_distances", x, y, centers)


@custom_op("fer_fast::anti_center_distances_backward", mutates_args=())
def anti_center_distances_backward(grad: Tensor, x: Tensor, y: Tensor, centers: Tensor, backend: str) -> Tensor:
    return run_engine(backend, "primitives", "anti_center_distances_backward", grad, x, y, centers)


@custom_op("fer_fast::contrastive_log_denominator", mutates_args=())
def contrastive_log_denominator(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: float,
    mode: str,
    backend: str,
) -> Tensor:
    args = (z, y, bank_z, bank_y, temperature, mode)
    return run_engine(backend, "contrastive", "contrastive_log_denominator", *args)


@custom_op("fer_fast::contrastive_log_denominator_backward", mutates_args=())
def contrastive_log_denominator_backward(
    grad: Tensor,
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: float,
    mode: str,
    log_denominator: Tensor,
    backend: str,
) -> Tensor:
    args = (grad, z, y, bank_z, bank_y, temperature, mode, log_denominator)
    return run_engine(backend, "contrastive", "contrastive_log_denominator_backward", *args)


def _register(operator, backward, shape, saves_output: bool = False) -> None:
    """Fake and autograd of an operator whose first argument alone is differentiated.

    `shape(*inputs)` is the output's; `backward(grad, *inputs but the backend[, output], backend)` its vector-Jacobian
    product.
    """

    @operator.register_fake
    def _(x, *rest):
        return torch.empty(shape(x, *rest), dtype=loss_dtype(x), device=x.device)

    @backward.register_fake
    def _(grad, x, *rest):
        return torch.empty(x.shape, dtype=x.dtype, device=x.device)

    def setup_context(ctx, inputs, output):
        # Tensors go through save_for_backward; everything else keeps its place in the list.
        saved = [*inputs[:-1], output] if saves_output else list(inputs[:-1])
        ctx.save_for_backward(*(t for t in saved if isinstance(t, Tensor)))
        ctx.places = [None if isinstance(t, Tensor) else (t,) for t in saved]
        ctx.backend = inputs[-1]
        ctx.arguments = len(inputs)

    def formula(ctx, grad):
        tensors = iter(ctx.saved_tensors)
        arguments = [next(tensors) if place is None else place[0] for place in ctx.places]
        gradient = backward(grad, *arguments, ctx.backend)
        return gradient, *(None,) * (ctx.arguments - 1)

    operator.register_autograd(formula, setup_context=setup_context)


_register(correlation_matrix, correlation_matrix_backward, lambda x, _: (x.shape[0], x.shape[0]))
_register(center_distances, center_distances_backward, lambda x, centers, _: (x.shape[0], centers.shape[0]))
_register(anti_center_distances, anti_center_distances_backward, lambda x, *_: (x.shape[0],))
_register(
    contrastive_log_denominator, contrastive_log_denominator_backward, lambda z, *_: (z.shape[0],), saves_output=True
)
