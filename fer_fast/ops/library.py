"""How a loss becomes an opaque operator: schema, fake, autograd, and the engine its backend names."""

import inspect
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib import import_module

import torch
from torch import Tensor
from torch._C import _AutoDispatchBelowAutograd
from torch._C._autograd import _get_current_graph_task_keep_graph
from torch.autograd.graph import increment_version

from .. import checks
from ..blocked.tiles import gradient_dtype
from ..kinds import Kind, Kinds, watched
from .bad_labels import bad_label_flag

_LIBRARY = torch.library.Library("fer_fast", "FRAGMENT")
MODULES = {"triton": "fer_fast.kernels.{}.launch", "blocked": "fer_fast.blocked.{}"}


def run_engine(
    backend: str, module: str, function: str, *args, labelled: bool = False, kind: Kind | None = None
) -> Tensor | tuple[Tensor, ...]:
    """Call a function of an engine: `fer_fast.kernels.<module>.launch` or `fer_fast.blocked.<module>`.

    What the kernels do not take (float64, centers too wide for a tile, MVA of many classes) they refuse before
    touching anything, and the blocked engine computes on the same device. Where labels are classes (`labelled`), the
    kernels' launcher is also told where to report a wrong one, and the kind of the call.
    """
    if args[0].dtype == torch.float64:
        backend = "blocked"
    engine = _engine(backend, module, function)
    if backend == "blocked":
        return engine(*args)
    device = args[0].device
    if labelled:  # the flag raises for an earlier call: this one's are known when it has run
        engine = partial(engine, status=bad_label_flag(device), kind=kind)
    try:
        result = on_device(device, engine, *args)
    except NotImplementedError:
        return run_engine("blocked", module, function, *args)
    if labelled and checks.readable(args[1]):
        bad_label_flag(device)
    return result


def on_device(device: torch.device, function: Callable, *args):
    """Call a function that launches. Triton launches on the current device: it is made the tensors' own where it is
    another."""
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            return function(*args)
    return function(*args)


@cache
def _engine(backend: str, module: str, function: str) -> Callable:
    return getattr(import_module(MODULES[backend].format(module)), function)


def loss_dtype(x: Tensor) -> torch.dtype:
    """The dtype of a loss: float32, or float64 for float64 features."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def loss_operator(
    engine: str, differentiable: tuple[str, ...], mutates: tuple[str, ...] = (), labelled: bool = False
) -> Callable:
    """Register an operator `(..., gradient: bool, backend: str) -> (loss, *gradients)`, which an engine's function of
    its name computes, as `fer_fast::<the function's name>`; calling the result gives the loss, sooner where the kind of
    the call is already known.

    The function is the operator's signature, and called with labels on the CPU, whose range it may check. The gradients
    of the inputs named in `differentiable` come out of the forward, in that order, when `gradient` is set; the backward
    multiplies them by the incoming scalar on the device and never waits for the host. The last backward of a graph does
    so in place and hands them out: autograd then holds nothing else. The operator is put together by hand because
    `custom_op` allows no autograd for operators that move a buffer (the centers).
    """

    def register(function: Callable):
        name = function.__name__
        names = list(inspect.signature(function).parameters)
        positions = [names.index(argument) for argument in differentiable]
        moved = [names.index(argument) for argument in mutates]
        schema = torch.library.infer_schema(function, mutates_args=mutates)
        _LIBRARY.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
        overload, kinds = getattr(torch.ops.fer_fast, name).default, Kinds()

        def run(args: tuple, kind: Kind | None) -> tuple[Tensor, ...]:
            if checks.readable(args[1]):
                function(*args)
            return run_engine(args[-1], engine, engine, *args[:-1], labelled=labelled, kind=kind)

        _LIBRARY.impl(name, _opaque(lambda *args: run(args, kinds.of(args))), "CompositeExplicitAutograd")

        @torch.library.register_fake(f"fer_fast::{name}", lib=_LIBRARY)
        def _(*args):
            inputs = [args[position] for position in positions]
            wanted = args[names.index("gradient")]
            gradients = [
                torch.empty(t.shape if wanted and given is not None else 0, dtype=gradient_dtype(t), device=t.device)
                for t, given in ((args[0] if t is None else t, t) for t in inputs)
            ]
            return args[0].new_empty((), dtype=loss_dtype(args[0])), *gradients

        def keep(ctx, args: tuple, gradients: Sequence[Tensor]) -> None:
            for position in moved:
                if args[position] is not None:
                    increment_version(args[position])  # whoever saved the old values for a backward is told
            ctx.save_for_backward(*gradients, *[args[position] for position in positions])
            ctx.set_materialize_grads(False)  # or zeros as large as each gradient are written in every backward
            ctx.backend = args[-1]

        def scaled(ctx, grad_loss: Tensor | None) -> Sequence[Tensor | None]:
            if grad_loss is None:  # what the loss went into has no gradient
                return (None,) * len(positions)
            saved = ctx.saved_tensors  # once: activation checkpointing recomputes the forward to answer
            gradients, inputs = saved[: len(positions)], saved[len(positions) :]
            gradients = scale(gradients, inputs, grad_loss, ctx.backend)
            if torch.is_grad_enabled():  # create_graph=True: a constant gradient would be silently wrong
                gradients = RefuseSecondDerivative.apply(name, len(gradients), *gradients, *inputs)
            return gradients

        class Loss(torch.autograd.Function):
            @staticmethod
            def forward(ctx, *args):
                with _AutoDispatchBelowAutograd():
                    loss, *gradients = overload(*args)
                keep(ctx, args, gradients)
                ctx.mark_non_differentiable(*gradients)
                return loss, *gradients

            @staticmethod
            def backward(ctx, grad_loss, *_):
                result = [None] * len(names)
                for position, gradient in zip(positions, scaled(ctx, grad_loss), strict=True):
                    if ctx.needs_input_grad[position]:
                        result[position] = gradient
                return tuple(result)

        class Direct(torch.autograd.Function):
            """Goes past the dispatcher, whose part of a call is as long as a launch, and shows autograd no more than it
            needs: each argument and result costs as long as an operation on it."""

            @staticmethod
            def forward(ctx, args, kind, *_):
                loss, *gradients = run(args, kind)
                keep(ctx, args, gradients)
                return loss

            @staticmethod
            def backward(ctx, grad_loss):
                wanted = zip(ctx.needs_input_grad[2:], scaled(ctx, grad_loss), strict=True)
                return None, None, *[gradient if needed else None for needed, gradient in wanted]

        _LIBRARY.impl(name, Loss.apply, "Autograd")

        def loss(*args, kind: Kind | None = None) -> Tensor:
            kind = kinds.of(args) if kind is None else kind
            if kind is None or watched():  # by what has to see the operator, as a subclass of a tensor may have to
                return overload(*args)[0]
            return Direct.apply(args, kind, *[args[position] for position in positions])

        return loss

    return register


def _opaque(function: Callable) -> Callable:
    """The function, which torch.compile does not look into. Its compiler is imported by the first call, not here."""

    @cache
    def hidden() -> Callable:
        return torch.compiler.disable(function)

    return lambda *args: hidden()(*args)


class RefuseSecondDerivative(torch.autograd.Function):
    """Gradients as they are, tied to the inputs they depend on; differentiating them is refused by name."""

    @staticmethod
    def forward(ctx, name: str, count: int, *gradients_and_inputs: Tensor | None):
        ctx.name = name
        return tuple(gradient.view_as(gradient) for gradient in gradients_and_inputs[:count])

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError(f'fer_fast::{ctx.name} has no second derivative; backend="reference" has')


def scale(gradients: Sequence[Tensor], inputs: Sequence[Tensor | None], factor: Tensor, backend: str) -> list[Tensor]:
    """Gradients times a device scalar, in the dtypes of their inputs, inside a backward.

    In float32, for a loss scale is often more than float16 holds. A graph that is not retained has no further use for
    the gradients: they are multiplied in place, and a factor of one costs nothing, which Triton sees on the device and
    the CPU by looking. A compiled backward leaves the products to the compiler.
    """
    dtypes = [g.dtype if t is None else t.dtype for g, t in zip(gradients, inputs, strict=True)]
    eager = type(factor) is Tensor
    in_place = eager and not _may_run_again(factor)
    if eager and backend == "triton" and factor.dtype != torch.float64:
        return on_device(factor.device, _engine("triton", "scale", "scale"), gradients, dtypes, factor, in_place)
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


def given_or_learnt(value: float | Tensor) -> tuple[float, Tensor | None]:
    """A hyper-parameter as an operator takes it: a number, in whose place a tensor () may be given."""
    return (1.0, value) if isinstance(value, Tensor) else (value, None)


def wants_gradient(*inputs: Tensor | None) -> bool:
    """Whether a backward can come: gradients are computed in the forward only then."""
    if torch.is_grad_enabled():
        for t in inputs:
            if t is not None and t.requires_grad:
                return True
    return False
