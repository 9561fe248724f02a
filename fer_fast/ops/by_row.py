"""The losses of rows, unreduced, of an engine whose loss is a sum over them.

Their backward is that of the sum, each row weighed by what comes in: the engine goes over the rows once more.
"""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor

from .. import checks
from .library import _LIBRARY, RefuseSecondDerivative, _opaque, loss_dtype, run_engine


def by_row_operator(function: Callable, engine: str, differentiable: tuple[str, ...]) -> Callable[..., Tensor]:
    """Register `fer_fast::<name>by_row(...) -> (n,)` with the arguments of a loss's operator, whose signature is
    `function`, and give it. It moves nothing and takes no mean, whatever these arguments say."""
    name, names = f"{function.__name__}by_row", list(inspect.signature(function).parameters)
    arguments = torch.library.infer_schema(function, mutates_args=()).rpartition(" -> ")[0]
    _LIBRARY.define(f"{name}{arguments} -> Tensor", tags=torch.Tag.pt2_compliant_tag)
    positions = [names.index(argument) for argument in differentiable]
    reduced = getattr(torch.ops.fer_fast, function.__name__).default

    def asked(args: tuple, **given) -> list:
        """The arguments, some of them replaced."""
        given = {"mean": False, "update": False, "gradient": False} | given
        return [given.get(of, value) for of, value in zip(names, args, strict=True)]

    def run(*args) -> Tensor:
        if checks.readable(args[1]):
            function(*args)
        return run_engine(args[-1], engine, engine, *asked(args)[:-1], True, labelled=True)[0]

    _LIBRARY.impl(name, _opaque(run), "CompositeExplicitAutograd")

    @torch.library.register_fake(f"fer_fast::{name}", lib=_LIBRARY)
    def _(x: Tensor, y: Tensor, *_) -> Tensor:
        return x.new_empty(y.shape, dtype=loss_dtype(x))

    def keep(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*[value for value in inputs if isinstance(value, Tensor)])
        ctx.others = [None if isinstance(value, Tensor) else (value,) for value in inputs]

    def backward(ctx, grad: Tensor) -> tuple:
        tensors = iter(ctx.saved_tensors)
        args = [next(tensors) if other is None else other[0] for other in ctx.others]
        weights = args[names.index("sample_weights")]
        weights = grad if weights is None else grad * weights
        gradients = reduced(*asked(args, gradient=True, sample_weights=weights))[1:]
        inputs = [args[position] for position in positions]
        gradients = [g if t is None else g.to(t.dtype) for g, t in zip(gradients, inputs, strict=True)]
        if torch.is_grad_enabled():  # create_graph=True: a constant gradient would be silently wrong
            gradients = RefuseSecondDerivative.apply(name, len(gradients), *gradients, *inputs)
        # An empty list counts as one of tensors.
        result = [[] if isinstance(value, list) and not value else None for value in args]
        for position, gradient in zip(positions, gradients, strict=True):
            result[position] = gradient if ctx.needs_input_grad[position] else None
        return tuple(result)

    torch.library.register_autograd(f"fer_fast::{name}", backward, setup_context=keep, lib=_LIBRARY)
    return getattr(torch.ops.fer_fast, name).default
