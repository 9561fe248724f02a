"""The operators of the primitives, each with a backward operator. A function with `_` behind its name is one's
signature, and what it does."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.library import custom_op

from .. import checks
from ..kinds import Kinds, watched
from .library import RefuseSecondDerivative, loss_dtype, run_engine


def correlation_matrix_(x: Tensor, backend: str) -> Tensor:
    return run_engine(backend, "primitives", "correlation_matrix", x)


def correlation_matrix_backward_(grad: Tensor, x: Tensor, backend: str) -> Tensor:
    return run_engine(backend, "primitives", "correlation_matrix_backward", grad, x)


def center_distances_(x: Tensor, centers: Tensor, backend: str) -> Tensor:
    return run_engine(backend, "primitives", "center_distances", x, centers)


def center_distances_backward_(grad: Tensor, x: Tensor, centers: Tensor, backend: str) -> Tensor:
    return run_engine(backend, "primitives", "center_distances_backward", grad, x, centers)


def anti_center_distances_(x: Tensor, y: Tensor, centers: Tensor, backend: str) -> Tensor:
    checks.label_range(y, len(centers))
    return run_engine(backend, "primitives", "anti_center_distances", x, y, centers)


def anti_center_distances_backward_(grad: Tensor, x: Tensor, y: Tensor, centers: Tensor, backend: str) -> Tensor:
    return run_engine(backend, "primitives", "anti_center_distances_backward", grad, x, y, centers)


def contrastive_log_denominator_(
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


def contrastive_log_denominator_backward_(
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


def _primitive(forward: Callable, backward: Callable, shape: Callable, saves_output: bool = False) -> Callable:
    """The function `forward`, whose first argument alone is differentiated, as an operator: called past the dispatcher
    where nothing has to see it, for its part, and the compiler that it imports first, would be most of a small call.

    `shape(*inputs)` is the output's; `backward(grad, *inputs but the backend[, output], backend)` its vector-Jacobian
    product.
    """
    name = forward.__name__.removesuffix("_")
    operator = custom_op(f"fer_fast::{name}", forward, mutates_args=())
    operator_backward = custom_op(f"fer_fast::{name}_backward", backward, mutates_args=())
    kinds = Kinds()

    @operator.register_fake
    def _(x, *rest):
        return torch.empty(shape(x, *rest), dtype=loss_dtype(x), device=x.device)

    @operator_backward.register_fake
    def _(grad, x, *rest):
        return torch.empty(x.shape, dtype=x.dtype, device=x.device)

    def setup_context(ctx, inputs, output):
        # Tensors go through save_for_backward; everything else keeps its place in the list.
        saved = [*inputs[:-1], output] if saves_output else list(inputs[:-1])
        ctx.save_for_backward(*(t for t in saved if isinstance(t, Tensor)))
        ctx.places = [None if isinstance(t, Tensor) else (t,) for t in saved]
        ctx.backend = inputs[-1]
        ctx.arguments = len(inputs)

    def product(ctx, grad, backward):
        tensors = iter(ctx.saved_tensors)
        arguments = [next(tensors) if place is None else place[0] for place in ctx.places]
        return arguments, (backward(grad, *arguments, ctx.backend), *(None,) * (ctx.arguments - 1))

    def formula(ctx, grad):
        return product(ctx, grad, operator_backward)[1]

    operator.register_autograd(formula, setup_context=setup_context)

    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            output = forward(*inputs)
            setup_context(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx, grad):
            with torch.no_grad():  # create_graph=True would look into it
                (x, *_), (gradient, *rest) = product(ctx, grad, backward)
            if torch.is_grad_enabled():
                (gradient,) = RefuseSecondDerivative.apply(name, 1, gradient, x)
            return gradient, *rest

    def primitive(*args) -> Tensor:
        return operator(*args) if kinds.of(args) is None or watched() else Direct.apply(*args)

    return primitive


correlation_matrix = _primitive(
    correlation_matrix_, correlation_matrix_backward_, lambda x, _: (x.shape[0], x.shape[0])
)
center_distances = _primitive(
    center_distances_, center_distances_backward_, lambda x, centers, _: (x.shape[0], centers.shape[0])
)
anti_center_distances = _primitive(anti_center_distances_, anti_center_distances_backward_, lambda x, *_: (x.shape[0],))
contrastive_log_denominator = _primitive(
    contrastive_log_denominator_, contrastive_log_denominator_backward_, lambda z, *_: (z.shape[0],), saves_output=True
)
