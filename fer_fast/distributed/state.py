"""States of modules of whose tables each process has some rows, as one."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..losses.by_class import ByClass

_BLOCK = "class_block"


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module as one process would have it, tables sharded by class whole: every process calls for it,
    and gets it. It loads on any number of processes, and in a loss that is not sharded."""
    state = module.state_dict()
    for name, of in module.named_modules(remove_duplicate=False):
        prefix = f"{name}." if name else ""
        if isinstance(of, ByClass) and state.pop(f"{prefix}{_BLOCK}", None) is not None:
            state |= {prefix + parameter: of.whole(parameter).detach() for parameter in of.owned}
    return state


def join(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """One whole state of those that all processes have saved, in any order; what they all have is the first's.

    Raises:
        ValueError: where classes are missing or come twice.
    """
    whole = dict(states[0])
    for key in [key for key in whole if key.split(".")[-1] == _BLOCK]:
        prefix = key.removesuffix(_BLOCK)
        ordered = sorted(states, key=lambda state: state[key].tolist()[:2])
        blocks = [state[key].tolist() for state in ordered]
        stops = [0, *[stop for _, stop, _ in blocks]]
        if [first for first, _, _ in blocks] != stops[:-1] or stops[-1] != blocks[0][2]:
            shown = ", ".join(f"{first} to {stop - 1}" for first, stop, _ in blocks if first < stop)
            raise ValueError(f"{key}: classes {shown} of {blocks[0][2]}; the states of all processes make one")
        del whole[key]
        for name in ByClass.by_class:
            if prefix + name in whole:
                whole[prefix + name] = torch.cat([state[prefix + name] for state in ordered])
    return whole
