"""What a CUDA graph does, on a CPU: operations recorded once, and run again on the same memory."""

from typing import ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# What a capture does not survive, or would freeze: a number the host reads, a size that depends on values, a constant
# that the host makes.
FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "unique", "bincount", "repeat_interleave")


class Tape(TorchDispatchMode):
    """Stands in for `fer_fast.train.step.Graph`. Like it, a capture leaves everything as it was; a replay computes
    every operation from the recorded tensors into the recorded tensors, and knows nothing else."""

    made: ClassVar = []  # every tape, for tests to look at

    def __init__(self, generator):
        super().__init__()
        self.generators = (generator, torch.default_generator)
        self.operations = []
        self.own = set()  # addresses of memory that the work itself allocates
        self.outer = {}  # of memory it was given: the tensor, and what it held
        self.made.append(self)

    def capture(self, work):
        states = [generator.get_state() for generator in self.generators]
        with self:
            work()
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state)
        with torch.no_grad():
            for whole, before in self.outer.values():
                whole.copy_(before)

    def replay(self):
        with torch.no_grad():
            for function, args, kwargs, recorded in self.operations:
                for old, new in zip(recorded, _tensors(function(*args, **kwargs)), strict=True):
                    if _address(old) != _address(new):  # neither a view nor in place
                        old.copy_(new)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):
            if _address(tensor) not in self.own | self.outer.keys():
                whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
                self.outer[_address(tensor)] = whole, whole.clone()
        results = function(*args, **kwargs)
        self.own |= {_address(tensor) for tensor in _tensors(results)} - self.outer.keys()
        self.operations.append((function, args, kwargs, _tensors(results)))
        return results

    def forbidden(self):
        """Names of the recorded operations that no graph may hold."""
        names = {str(function) for function, *_ in self.operations}
        return sorted(name for name in names if any(word in name for word in FORBIDDEN))


def _tensors(values):
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _address(tensor):
    return tensor.untyped_storage()._cdata
