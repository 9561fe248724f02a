"""An operator's call of which every process of a group has its own rows.

Engines that take rows one by one sum over processes between their partial sums and their finish. Where rows meet each
other, those of all processes are gathered before, and an engine answers for its own.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..kinds import Kind
from ..terms import Peers, Share
from .engines import run_engine

if TYPE_CHECKING:
    from .library import LossOperator

OF_ROWS = {"x": 0, "z": 0, "e": 1, "y": 0, "sample_weights": 0, "soft_labels": 0}  # the dimension that counts rows


def times_of(peers: Peers) -> int:
    """What becomes of gradients that sum to the global batch's, where those of all processes are averaged."""
    from ..distributed.collectives import place

    return place(peers).size if peers.gradients == "mean" else 1


def run_shared(
    operator: "LossOperator", args: Sequence, gradient: bool, backend: str, told: dict[str, Any], kind: Kind | None
) -> tuple[Tensor, ...]:
    """The loss of all rows of all processes, d loss / d own rows, and of each parameter's gradient this process's
    part: all parts sum to the gradient."""
    from ..distributed import collectives

    name, (*of_engine, peers) = operator.engine, args
    facts = (kind or {}).get(("facts", gradient)) or _facts(operator, args, gradient)
    if kind is not None:
        kind["facts", gradient] = facts
    shared: dict[str, Any] = {"peers": peers}
    if operator.rows_meet:
        share = shared["share"] = collectives.shares(peers, len(args[1]), facts)
        of_engine = _gathered(operator, of_engine, peers, share)
        if not len(of_engine[1]):
            return tuple(map(torch.zeros_like, operator.fake(*operator.arguments.flat(args), gradient, backend)))
        if "kind" in told:  # which is of the rows that this process has
            told = told | {"kind": None}
    else:
        collectives.same_facts(peers, facts)
    loss, *gradients = run_engine(backend, name, name, *of_engine, gradient, told=told, **shared)
    size = collectives.place(peers).size
    if operator.rows_meet and share.counts is None:  # behind own rows there are those it was filled up with
        rows = slice(len(args[1]))
        loss, gradients[0] = loss[rows] if loss.ndim else loss, gradients[0][rows]
    # A factor of all gradients waits for the backward, unless one has none: a parameter's whose owner knows all of it.
    times = times_of(peers) if any(operator.owned) else 1
    factors = [1 if own else times / size for own in operator.owned]
    for of, factor in zip(gradients, [times, *factors[1:]], strict=True):
        if factor != 1 and of.numel():
            of.mul_(factor)
    return loss, *gradients


def _gathered(operator: "LossOperator", args: Sequence, peers: Peers, share: Share) -> list:
    """The arguments with the rows of all processes."""
    names = operator.arguments.parameters[: len(args)]
    at = [argument for argument, name in enumerate(names) if name in OF_ROWS and args[argument] is not None]
    result = list(args)
    for argument, whole in zip(at, peers.gather(share, *[args[argument] for argument in at]), strict=True):
        result[argument] = whole
    return result


def _facts(operator: "LossOperator", args: Sequence, gradient: bool) -> str:
    """What calls of all processes must have in common: all but values and numbers of rows."""
    named = zip(operator.arguments.parameters, args[:-1], strict=False)
    owned = zip(operator.positions, operator.owned, strict=True)
    differ = OF_ROWS | {operator.arguments.names[at]: 0 for at, own in owned if own}
    return ", ".join([operator.name, *described(named, differ), f"gradient={gradient}"])


def described(named: Iterable[tuple[str, Any]], differ: dict[str, int], gradients: bool = False) -> Iterator[str]:
    """What is given by name, but for numbers of rows: tensors by dtype and shape, without the dimension in which they
    `differ`, and with `gradients` whether they need one."""
    for name, value in named:
        if isinstance(value, Tensor):
            shape = list(value.shape)
            if name in differ:
                del shape[differ[name]]
            needs = "*" if gradients and value.requires_grad else ""
            yield f"{name}{needs} {str(value.dtype).removeprefix('torch.')}{shape}"
        elif isinstance(value, list | tuple):
            fields = getattr(value, "_fields", range(len(value)))
            of = ((f"{name}_{field}", part) for field, part in zip(fields, value, strict=True))
            yield from described(of, differ, gradients)
        elif value not in (None, "") and not isinstance(value, float):  # which may change from step to step
            yield f"{name}={value}"
