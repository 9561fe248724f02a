"""How a loss becomes an opaque operator: schema, fake, autograd, and the engine its backend names."""

from collections.abc import Callable, Iterable, Sequence
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
from .arguments import Arguments
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


def loss_operator(engine: str, **how) -> Callable[[Callable], "LossOperator"]:
    """Decorator that makes a :class:`LossOperator` of a function."""
    return lambda function: LossOperator(function, engine, **how)


class LossOperator:
    """`fer_fast::<the function's name>(..., gradient: bool, backend: str) -> (loss, *gradients)`, which an engine's
    function of its name computes; a call gives the loss.

    The function has the operator's arguments (:class:`.arguments.Arguments`), and is called with labels on the CPU,
    whose range it may check. The gradients of the inputs named in `differentiable` come out of the forward, in that
    order; the backward multiplies them by the incoming scalar on the device and never waits for the host. The last
    backward of a graph does so in place and hands them out: autograd then holds nothing else. Where the loss is a sum
    over rows, `weights` names what multiplies them, and `reduction` may be "none": the losses of the rows (n,), whose
    backward is that of the sum, each row weighed by what comes in. The engine goes over the rows once more for it.

    It is put together by hand because `custom_op` allows no autograd for operators that move a buffer (`mutates`).
    """

    def __init__(
        self,
        function: Callable,
        engine: str,
        differentiable: tuple[str, ...],
        mutates: tuple[str, ...] = (),
        labelled: bool = False,
        weights: str = "",
    ):
        self.name, self.engine, self.check = function.__name__, engine, function
        self.labelled, self.weights = labelled, weights
        self.arguments, self.kinds = Arguments(function), Kinds()
        self.positions = [self.arguments.names.index(argument) for argument in differentiable]
        self.moved = [self.arguments.names.index(argument) for argument in mutates]
        self.inputs = [self.arguments.places[argument] for argument in differentiable]
        self.buffers = [self.arguments.places[argument] for argument in mutates]
        self.reduction = self.arguments.places["reduction"] if weights else None
        schema = self.arguments.schema(1 + len(differentiable), mutates)
        _LIBRARY.define(self.name + schema, tags=torch.Tag.pt2_compliant_tag)
        _LIBRARY.impl(self.name, _opaque(self._run_flat), "CompositeExplicitAutograd")
        _LIBRARY.impl(self.name, lambda *flat: _Dispatched.apply(self, *flat), "Autograd")
        torch.library.register_fake(f"fer_fast::{self.name}", self._fake, lib=_LIBRARY)
        self.overload = getattr(torch.ops.fer_fast, self.name).default

    def __call__(self, *args, backend: str, kind: Kind | None = None) -> Tensor:
        kind = self.kinds.of(args) if kind is None else kind
        inputs = [place.of(args) for place in self.inputs]
        unreduced = self.unreduced(args)
        gradient = wants_gradient(inputs) and not unreduced
        if kind is None or unreduced or watched():  # by who has to see the operator, as a tensor's subclass may
            return self.overload(*self.arguments.flat(args), gradient, backend)[0]
        return _Direct.apply(self, args, gradient, backend, kind, *inputs)

    def unreduced(self, args: Sequence) -> bool:
        """Whether the losses of the rows are asked for."""
        return self.reduction is not None and self.reduction.of(args) == "none"

    def run(self, args: tuple, gradient: bool, backend: str, kind: Kind | None) -> tuple[Tensor, ...]:
        if checks.readable(args[1]):
            self.check(*args)
        results = run_engine(backend, self.engine, self.engine, *args, gradient, labelled=self.labelled, kind=kind)
        for place in self.buffers:
            if place.of(args) is not None:
                increment_version(place.of(args))  # whoever saved the old values for a backward is told
        return results

    def _run_flat(self, *flat) -> tuple[Tensor, ...]:
        args = self.arguments.grouped(flat)
        return self.run(args, *flat[-2:], self.kinds.of(args))

    def _fake(self, *flat) -> tuple[Tensor, ...]:
        (x, y), inputs = flat[:2], [flat[position] for position in self.positions]
        gradients = [
            torch.empty(t.shape if flat[-2] and given is not None else 0, dtype=gradient_dtype(t), device=t.device)
            for t, given in ((x if t is None else t, t) for t in inputs)
        ]
        rows = y.shape if self.unreduced(self.arguments.grouped(flat)) else ()
        return x.new_empty(rows, dtype=loss_dtype(x)), *gradients

    def run_again(self, flat: Sequence, factor: Tensor) -> list[Tensor]:
        """The gradients of Σ_i factor_i l_i, of losses l (n,) that a call gave."""
        given = dict(zip(self.arguments.names, flat, strict=True))
        weights = factor if given[self.weights] is None else factor * given[self.weights]
        given |= {"reduction": "sum", "gradient": True, self.weights: weights}
        given |= {"update": False} if self.moved else {}
        with torch.no_grad():
            _, *gradients = self.overload(*given.values())
        inputs = [flat[position] for position in self.positions]
        return [g if t is None else g.to(t.dtype) for g, t in zip(gradients, inputs, strict=True)]


def _keep(ctx, operator: LossOperator, inputs: Sequence[Tensor | None], gradients: Sequence[Tensor], backend: str):
    """What the backward of a loss () needs."""
    ctx.save_for_backward(*gradients, *inputs)
    ctx.set_materialize_grads(False)  # or zeros as large as each gradient are written in every backward
    ctx.operator, ctx.backend, ctx.flat = operator, backend, None


def _keep_call(ctx, operator: LossOperator, flat: Sequence) -> None:
    """What the backward of losses (n,) needs: all that the engine was given, centers as they are before they move."""
    flat = [value.clone() if at in operator.moved and value is not None else value for at, value in enumerate(flat)]
    ctx.save_for_backward(*[value for value in flat if isinstance(value, Tensor)])
    ctx.set_materialize_grads(False)
    ctx.operator, ctx.flat = operator, [None if isinstance(value, Tensor) else (value,) for value in flat]


def _gradients(ctx, factor: Tensor | None) -> Sequence[Tensor | None]:
    """Those of the loss, times the factor that has come in: () or, of the losses of rows, (n,)."""
    operator = ctx.operator
    if factor is None:  # what the loss went into has no gradient
        return (None,) * len(operator.positions)
    saved = ctx.saved_tensors  # once: activation checkpointing recomputes the forward to answer
    if ctx.flat is None:
        gradients, inputs = saved[: len(operator.positions)], saved[len(operator.positions) :]
        gradients = scale(gradients, inputs, factor, ctx.backend)
    else:
        tensors = iter(saved)
        flat = [next(tensors) if kept is None else kept[0] for kept in ctx.flat]
        gradients, inputs = operator.run_again(flat, factor), [flat[position] for position in operator.positions]
    if torch.is_grad_enabled():  # create_graph=True: a constant gradient would be silently wrong
        gradients = RefuseSecondDerivative.apply(operator.name, len(gradients), *gradients, *inputs)
    return gradients


class _Dispatched(torch.autograd.Function):
    """A call that the dispatcher hands on."""

    @staticmethod
    def forward(ctx, operator: LossOperator, *flat):
        unreduced = operator.unreduced(operator.arguments.grouped(flat))
        if unreduced:
            _keep_call(ctx, operator, flat)
        with _AutoDispatchBelowAutograd():
            loss, *gradients = operator.overload(*flat)
        if not unreduced:
            _keep(ctx, operator, [flat[position] for position in operator.positions], gradients, flat[-1])
        ctx.mark_non_differentiable(*gradients)
        return loss, *gradients

    @staticmethod
    def backward(ctx, factor, *_):
        result = [None] * (1 + len(ctx.operator.arguments.names))
        for position, gradient in zip(ctx.operator.positions, _gradients(ctx, factor), strict=True):
            if ctx.needs_input_grad[1 + position]:
                result[1 + position] = gradient
        return tuple(result)


class _Direct(torch.autograd.Function):
    """A call that goes past the dispatcher, whose part of it is as long as a launch, and shows autograd no more than it
    needs: each argument and result costs as long as an operation on it."""

    @staticmethod
    def forward(ctx, operator: LossOperator, args: tuple, gradient: bool, backend: str, kind: Kind, *inputs):
        loss, *gradients = operator.run(args, gradient, backend, kind)
        _keep(ctx, operator, inputs, gradients, backend)
        return loss

    @staticmethod
    def backward(ctx, factor):
        wanted = zip(ctx.needs_input_grad[5:], _gradients(ctx, factor), strict=True)
        return None, None, None, None, None, *[gradient if needed else None for needed, gradient in wanted]


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


def wants_gradient(inputs: Iterable[Tensor | None]) -> bool:
    """Whether a backward can come: gradients are computed in the forward only then."""
    if torch.is_grad_enabled():
        for t in inputs:
            if t is not None and t.requires_grad:
                return True
    return False
