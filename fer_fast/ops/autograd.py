"""What autograd is told of a loss whose gradients came out of its forward, and what it does with them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch._C import _AutoDispatchBelowAutograd
from torch._C._autograd import _get_current_graph_task_keep_graph

from ..kinds import Kind
from . import engines

if TYPE_CHECKING:
    from .library import LossOperator


class Kept(NamedTuple):
    """What a backward needs beside the saved tensors."""

    operator: "LossOperator"
    backend: str
    places: Sequence[int]  # of the inputs whose gradients there are, in the arguments of the forward
    flat: Sequence[tuple | None] | None = None  # of losses (n,): the operator's arguments, None for the saved tensors


class Direct(torch.autograd.Function):
    """A call that goes past the dispatcher, whose part of it is as long as a launch, and shows autograd no more than it
    needs, the inputs that are `given`: each argument and result costs as long as an operation on it."""

    INPUTS = 5  # the place of the first

    @staticmethod
    def forward(ctx, kept: Kept, given: Sequence[int], gradient: bool, kind: Kind, args: Sequence, *inputs):
        loss, *gradients = kept.operator.run(args, gradient, kept.backend, kind)
        _keep(ctx, kept, [gradients[place] for place in given], inputs, args)
        return loss

    @staticmethod
    def backward(ctx, factor):
        return _backward(ctx, factor)


class Dispatched(torch.autograd.Function):
    """A call that the dispatcher hands on."""

    @staticmethod
    def forward(ctx, operator: "LossOperator", *flat):
        unreduced = operator.unreduced(operator.arguments.grouped(flat))
        if unreduced:
            _keep_call(ctx, operator, flat)
        with _AutoDispatchBelowAutograd():
            loss, *gradients = operator.overload(*flat)
        if not unreduced:
            given = [(g, at) for g, at in zip(gradients, operator.positions, strict=True) if flat[at] is not None]
            kept = Kept(operator, flat[-1], [1 + at for _, at in given])
            _keep(ctx, kept, [g for g, _ in given], [flat[at] for _, at in given], operator.arguments.grouped(flat))
        ctx.mark_non_differentiable(*gradients)
        return loss, *gradients

    @staticmethod
    def backward(ctx, factor, *_):
        return _backward(ctx, factor)


def _keep(ctx, kept: Kept, gradients: Sequence[Tensor], inputs: Sequence[Tensor], args: Sequence) -> None:
    """What the backward of a loss () needs."""
    ctx.save_for_backward(*gradients, *inputs)
    ctx.set_materialize_grads(False)  # or zeros as large as each gradient are written in every backward
    ctx.kept, ctx.times = kept, kept.operator.times(args)


def _keep_call(ctx, operator: "LossOperator", flat: Sequence) -> None:
    """What the backward of losses (n,) needs: all that the engine was given, centers as they are before they move."""
    flat = [value.clone() if at in operator.moved and value is not None else value for at, value in enumerate(flat)]
    ctx.save_for_backward(*[value for value in flat if isinstance(value, Tensor)])
    ctx.set_materialize_grads(False)
    others = [None if isinstance(value, Tensor) else (value,) for value in flat]
    ctx.kept = Kept(operator, flat[-1], [1 + at for at in operator.positions], others)
    ctx.times = operator.times(operator.arguments.grouped(flat))


def _backward(ctx, factor: Tensor | None) -> tuple[Tensor | None, ...]:
    """The gradients, each in its place, times the factor that has come in: () or, of the losses of rows, (n,)."""
    operator, backend, places, flat = ctx.kept
    result: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
    if factor is None:  # what the loss went into has no gradient
        return tuple(result)
    if ctx.times != 1:
        factor = factor * ctx.times
    saved = ctx.saved_tensors  # once: activation checkpointing recomputes the forward to answer
    if flat is None:
        gradients, inputs = saved[: len(places)], saved[len(places) :]
        gradients = scale(gradients, [t.dtype for t in inputs], factor, backend)
    else:
        tensors = iter(saved)
        flat = [next(tensors) if kept is None else kept[0] for kept in flat]
        gradients, inputs = operator.run_again(flat, factor), [flat[at] for at in operator.positions]
    if torch.is_grad_enabled():  # create_graph=True: a constant gradient would be silently wrong
        gradients = RefuseSecondDerivative.apply(operator.name, len(gradients), *gradients, *inputs)
    for at, gradient in zip(places, gradients, strict=True):
        if ctx.needs_input_grad[at]:
            result[at] = gradient
    return tuple(result)


class RefuseSecondDerivative(torch.autograd.Function):
    """Gradients as they are, tied to the inputs they depend on; differentiating them is refused by name."""

    @staticmethod
    def forward(ctx, name: str, count: int, *gradients_and_inputs: Tensor | None):
        ctx.name = name
        return tuple(gradient.view_as(gradient) for gradient in gradients_and_inputs[:count])

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError(f'fer_fast::{ctx.name} has no second derivative; backend="reference" has')


def scale(gradients: Sequence[Tensor], dtypes: Sequence[torch.dtype], factor: Tensor, backend: str) -> list[Tensor]:
    """Gradients times a device scalar, in the dtypes of their inputs, inside a backward.

    In float32, for a loss scale is often more than float16 holds. A graph that is not retained has no further use for
    the gradients: they are multiplied in place, and a factor of one costs nothing, which Triton sees on the device and
    the CPU by looking. A compiled backward leaves the products to the compiler.
    """
    eager = type(factor) is Tensor
    in_place = eager and not _may_run_again(factor)
    if eager and backend == "triton" and factor.dtype != torch.float64:
        return engines.on_device(
            factor.device, engines.engine_function("triton", "scale", "scale"), gradients, dtypes, factor, in_place
        )
    if in_place and factor.is_cpu and factor.item() == 1:
        return [gradient.to(dtype) for gradient, dtype in zip(gradients, dtypes, strict=True)]
    wide = torch.promote_types(factor.dtype, torch.float32)
    return [
        g.mul_(factor) if in_place and g.dtype == dtype == wide else (g.to(wide) * factor).to(dtype)
        for g, dtype in zip(gradients, dtypes, strict=True)
    ]


def _may_run_again(factor: Tensor) -> bool:
    """Whether the saved gradients may be asked for again: by a second backward or derivative, or by a replay."""
    capturing = factor.is_cuda and torch.cuda.is_current_stream_capturing()
    return capturing or torch.is_grad_enabled() or _get_current_graph_task_keep_graph()
