"""The operators of the primitives, each with a backward operator. A function with `_` behind its name is one's
signature, and what it does."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.library import custom_op

from .. import checks
from ..kinds import Kinds, watched
from ..terms import Setting
from .autograd import RefuseSecondDerivative
from .engines import run_engine
from .library import loss_dtype


def correlation_matrix_(x: Tensor, backend: str) -> Tensor:
    return run_engine(backend, "primitives", "correlation_matrix", x)


def correlation_matrix_backward_(grad: Tensor, x: Tensor, backend: str) -> Tensor:
    return run_engine(backend, "primitives", "correlation_matrix_backward", grad, x)


def center_distances_(x: Tensor, centers: Tensor, backend: str) -> Tensor:
    return run_engine(backend, "primitives", "center_distances", x, centers)


def center_distances_backward_(grad: Tensor, x: Tensor, centers: Tensor, backend: str) -> Tensor:
    return run_engine(backend, "primitives", "center_distances_backward", grad, x, centers)


def anti_center_distances_(x: Tensor, y: Tensor, centers: Tensor, backend: str) -> Tensor:
    checks.label_range(y, centers.shape[0])
    return run_engine(backend, "primitives", "anti_center_distances", x, y, centers)


def anti_center_distances_backward_(grad: Tensor, x: Tensor, y: Tensor, centers: Tensor, backend: str) -> Tensor:
    return run_engine(backend, "primitives", "anti_center_distances_backward", grad, x, y, centers)


def log_denominator_(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: float,
    learnt: Tensor | None,
    mode: str,
    backend: str,
) -> Tensor:
    args = z, y, bank_z, bank_y, Setting(temperature, learnt), mode
    return run_engine(backend, "contrastive", "log_denominator", *args)


def log_denominator_backward_(
    grad: Tensor,
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: float,
    learnt: Tensor | None,
    mode: str,
    backend: str,
) -> tuple[Tensor, Tensor]:
    args = grad, z, y, bank_z, bank_y, Setting(temperature, learnt), mode
    return run_engine(backend, "contrastive", "log_denominator_backward", *args)


def _primitive(
    forward: Callable, backward: Callable, shape: Callable, differentiable: tuple[int, ...] = (0,)
) -> Callable:
    """The function `forward`, whose arguments at the places `differentiable` have a gradient, as an operator: called
    past the dispatcher where nothing has to see it, for its part, and the compiler that it imports first, would be most
    of a small call.

    `shape(*inputs)` is the output's; `backward(grad, *inputs)` its vector-Jacobian product by these arguments, a tensor
    or, where they are several, a tuple, whose tensor for an argument that is None is empty.
    """
    name, several = forward.__name__.removesuffix("_"), len(differentiable) > 1
    operator = custom_op(f"fer_fast::{name}", forward, mutates_args=())
    operator_backward = custom_op(f"fer_fast::{name}_backward", backward, mutates_args=())
    kinds = Kinds()

    @operator.register_fake
    def _(x, *rest):
        return torch.empty(shape(x, *rest), dtype=loss_dtype(x), device=x.device)

    @operator_backward.register_fake
    def _(grad, *inputs):
        given = (inputs[place] for place in differentiable)
        gradients = tuple(grad.new_empty(0) if t is None else torch.empty_like(t) for t in given)
        return gradients if several else gradients[0]

    def setup_context(ctx, inputs, output):
        # Tensors go through save_for_backward; everything else keeps its place in the list.
        ctx.save_for_backward(*(t for t in inputs if isinstance(t, Tensor)))
        ctx.places = [None if isinstance(t, Tensor) else (t,) for t in inputs]

    def product(ctx, grad, backward):
        tensors = iter(ctx.saved_tensors)
        arguments = [next(tensors) if place is None else place[0] for place in ctx.places]
        given = backward(grad, *arguments)
        return arguments, given if several else (given,)

    def placed(arguments, given):
        gradients = [None] * len(arguments)
        for place, gradient in zip(differentiable, given, strict=True):
            gradients[place] = None if arguments[place] is None else gradient
        return tuple(gradients)

    operator.register_autograd(
        lambda ctx, grad: placed(*product(ctx, grad, operator_backward)), setup_context=setup_context
    )

    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            output = forward(*inputs)
            setup_context(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx, grad):
            with torch.no_grad():  # create_graph=True would look into it
                arguments, given = product(ctx, grad, backward)
            if torch.is_grad_enabled():
                inputs = [arguments[place] for place in differentiable]
                given = RefuseSecondDerivative.apply(name, len(given), *given, *inputs)
            return placed(arguments, given)

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
log_denominator = _primitive(
    log_denominator_, log_denominator_backward_, lambda z, *_: (z.shape[0],), differentiable=(0, 5)
)
