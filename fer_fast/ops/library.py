"""How a loss becomes an opaque operator: schema, fake, autograd, and the engine its backend names."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from .. import checks
from ..blocked.tiles import gradient_dtype
from ..kinds import Kind, Kinds, watched
from ..replay import Call, noted
from ..terms import ALONE, Peers
from .arguments import Arguments
from .autograd import Direct, Dispatched, Kept
from .bad_labels import bad_label_flag
from .engines import run_engine
from .shared import run_shared, times_of

_LIBRARY = torch.library.Library("fer_fast", "FRAGMENT")


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

    Where the last argument is :class:`Peers` the batch may lie on several processes (:mod:`.shared`): with `rows_meet`
    each row meets those of all of them. Inputs that are `owned` other processes have other rows of: their gradients are
    whole where they are.

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
        rows_meet: bool = False,
        owned: tuple[str, ...] = (),
    ):
        self.name, self.engine, self.check = function.__name__, engine, function
        self.labelled, self.weights, self.rows_meet = labelled, weights, rows_meet
        self.owned = [argument in owned for argument in differentiable]
        self.arguments, self.kinds = Arguments(function), Kinds()
        self.positions = [self.arguments.names.index(argument) for argument in differentiable]
        self.moved = [self.arguments.names.index(argument) for argument in mutates]
        self.inputs = [self.arguments.places[argument] for argument in differentiable]
        self.buffers = [self.arguments.places[argument] for argument in mutates]
        self.reduction = self.arguments.places["reduction"] if weights else None
        schema = self.arguments.schema(1 + len(differentiable), mutates)
        _LIBRARY.define(self.name + schema, tags=torch.Tag.pt2_compliant_tag)
        _LIBRARY.impl(self.name, _opaque(self._run_flat), "CompositeExplicitAutograd")
        _LIBRARY.impl(self.name, lambda *flat: Dispatched.apply(self, *flat), "Autograd")
        torch.library.register_fake(f"fer_fast::{self.name}", self.fake, lib=_LIBRARY)
        self.overload = getattr(torch.ops.fer_fast, self.name).default

    def __call__(self, *args, backend: str) -> Tensor:
        kind, unreduced = self.kinds.of(args), self.unreduced(args)
        if (
            unreduced
            and self.moved
            and args[self.arguments.places["update"].argument]
            and torch.compiler.is_compiling()
        ):
            # The backward goes over the rows again, and a compiler hands it the buffers as they are after the move.
            raise ValueError(f'update: {self.name} cannot move centers inside torch.compile beside reduction="none"')
        inputs = [place.of(args) for place in self.inputs]
        gradient = wants_gradient(inputs) and not unreduced
        if kind is None or unreduced or watched():  # by who has to see the operator, as a tensor's subclass may
            return self.overload(*self.arguments.flat(args), gradient, backend)[0]
        given = [place for place, t in enumerate(inputs) if t is not None]
        kept = Kept(self, backend, range(Direct.INPUTS, Direct.INPUTS + len(given)))
        return noted(Call(Direct.apply, (kept, given, gradient, kind), args, [inputs[place] for place in given]))

    def unreduced(self, args: Sequence) -> bool:
        """Whether the losses of the rows are asked for."""
        return self.reduction is not None and self.reduction.of(args) == "none"

    def peers(self, args: Sequence) -> Peers:
        """The processes among which the batch lies."""
        return args[-1] if self.arguments.kinds[-1] is Peers else ALONE

    def times(self, args: Sequence) -> int:
        """What gradients are multiplied by on their way back, with what has come in; where some are whole, they have
        been."""
        peers = self.peers(args)
        return times_of(peers) if peers.group and not any(self.owned) else 1

    def run(self, args: Sequence, gradient: bool, backend: str, kind: Kind | None) -> tuple[Tensor, ...]:
        told, readable, peers = {}, checks.readable(args[1]), self.peers(args)
        if readable:
            self.check(*args)
        if backend == "triton":
            told["kind"] = kind
            if self.labelled:  # the flag raises for an earlier call, unless one may look
                told["status"] = bad_label_flag(args[0].device)
        if peers.group:
            results = run_shared(self, args, gradient, backend, told, kind)
        else:
            of_engine = args[:-1] if self.arguments.kinds[-1] is Peers else args
            results = run_engine(backend, self.engine, self.engine, *of_engine, gradient, told=told)
        if readable and "status" in told:
            bad_label_flag(args[0].device)
        for place in self.buffers:
            if (buffer := place.of(args)) is not None:
                increment_version(buffer)  # whoever saved the old values for a backward is told
        return results

    def _run_flat(self, *flat) -> tuple[Tensor, ...]:
        args = self.arguments.grouped(flat)
        return self.run(args, *flat[-2:], self.kinds.of(args))

    def fake(self, *flat) -> tuple[Tensor, ...]:
        """Results of a call, without what is in them."""
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
        if self.moved:  # a buffer counts as written to even where nothing moves, and another backward may follow
            given["update"] = False
            buffers = [self.arguments.names[at] for at in self.moved]
            given |= {name: given[name].clone() for name in buffers if given[name] is not None}
        with torch.no_grad():
            _, *gradients = self.overload(*given.values())
        inputs = [flat[position] for position in self.positions]
        return [g if t is None else g.to(t.dtype) for g, t in zip(gradients, inputs, strict=True)]


def _opaque(function: Callable) -> Callable:
    """The function, which torch.compile does not look into. Its compiler is imported by the first call, not here."""

    @cache
    def hidden() -> Callable:
        return torch.compiler.disable(function)

    return lambda *args: hidden()(*args)


def wants_gradient(inputs: Iterable[Tensor | None]) -> bool:
    """Whether a backward can come: gradients are computed in the forward only then."""
    if torch.is_grad_enabled():
        for t in inputs:
            if t is not None and t.requires_grad:
                return True
    return False
