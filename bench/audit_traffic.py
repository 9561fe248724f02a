"""What a kernel moves and multiplies, counted in Triton's interpreter: bytes by argument, dot operations, launches.

A count needs no GPU and does not depend on one: it holds the algorithm, not the chip. Loads and stores are counted
where their mask is set, but not what the same program loaded a moment ago: that lies in its L1, where this takes the
last RECENT loads to be. A tensor whose size does not grow with the batch (weights, centers, partial sums) stays in a
GPU's caches, so its traffic is reported apart from the streamed tensors'.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from triton.runtime import interpreter

RECENT = 8


@dataclass
class Traffic:
    """Bytes loaded and stored by kernel argument, multiply-add operations in dots (two each), and launches."""

    loaded: Counter = field(default_factory=Counter)
    stored: Counter = field(default_factory=Counter)
    operations: int = 0
    launches: Counter = field(default_factory=Counter)
    sizes: dict[str, int] = field(default_factory=dict)  # bytes of the arguments

    def streamed(self, larger: "Traffic", growth: int) -> dict[str, float]:
        """Bytes an added row, by argument, from the count of a batch of `growth` more rows.

        Arguments that did not grow are left out.
        """
        grown = [name for name, size in larger.sizes.items() if size > self.sizes.get(name, size)]
        return {name: (larger.moved(name) - self.moved(name)) / growth for name in grown}

    def moved(self, name: str) -> int:
        """Bytes of an argument, loaded and stored."""
        return self.loaded[name] + self.stored[name]


class _Ranges:
    """Which argument an address belongs to."""

    def __init__(self, tensors: dict[str, torch.Tensor]):
        storages = {}
        for name, t in tensors.items():
            storage = t.untyped_storage()
            storages.setdefault(storage.data_ptr(), (name, storage.data_ptr() + storage.nbytes()))
        self.starts = np.array(sorted(storages), dtype=np.uint64)
        self.names = [storages[int(start)][0] for start in self.starts]

    def count(self, addresses: np.ndarray, mask: np.ndarray, width: int, into: Counter) -> None:
        places = np.searchsorted(self.starts, addresses[mask].astype(np.uint64), side="right") - 1
        for place, times in zip(*np.unique(places, return_counts=True), strict=True):
            into[self.names[place]] += int(times) * width


def _leaves(given: dict) -> Iterator[tuple[str, object]]:
    """Arguments by name, those in groups by their place in them."""
    for name, value in given.items():
        if isinstance(value, tuple):
            yield from _leaves({f"{name}[{place}]": each for place, each in enumerate(value)})
        else:
            yield name, value


@contextmanager
def counted() -> Iterator[Traffic]:
    """Count what kernels do inside. Triton must interpret: TRITON_INTERPRET=1 before kernels are imported."""
    traffic, ranges = Traffic(), _Ranges({})
    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    load, store, dot, call = (
        builder.create_masked_load,
        builder.create_masked_store,
        builder.create_dot,
        executor.__call__,
    )

    recent, program = deque(maxlen=RECENT), None

    def counting_load(self, ptrs, mask, *rest):
        nonlocal program
        if program != self.grid_idx:
            recent.clear()
            program = self.grid_idx
        addresses, wanted = ptrs.data, mask.data
        given = addresses[wanted]
        span = (given.min(), given.max()) if given.size else (0, 0)
        for before, (low, high) in recent:
            if given.size and before.size and span[0] <= high and low <= span[1]:
                wanted = wanted & ~np.isin(addresses, before)
        recent.append((given, span))
        ranges.count(addresses, wanted, ptrs.get_element_ty().primitive_bitwidth // 8, traffic.loaded)
        return load(self, ptrs, mask, *rest)

    def counting_store(self, ptrs, value, mask, *rest):
        ranges.count(ptrs.data, mask.data, ptrs.get_element_ty().primitive_bitwidth // 8, traffic.stored)
        return store(self, ptrs, value, mask, *rest)

    def counting_dot(self, a, b, d, *rest):
        traffic.operations += 2 * int(np.prod(d.data.shape)) * a.data.shape[-1]
        return dot(self, a, b, d, *rest)

    def counting_call(self, *args, **kwargs):
        nonlocal ranges, program
        program = None
        given = {**dict(zip(self.arg_names, args, strict=False)), **kwargs}
        tensors = {name: value for name, value in _leaves(given) if isinstance(value, torch.Tensor) and value.numel()}
        ranges = _Ranges(tensors)
        traffic.launches[self.fn.__name__] += 1
        for name, t in tensors.items():
            traffic.sizes[name] = max(traffic.sizes.get(name, 0), t.untyped_storage().nbytes())
        return call(self, *args, **kwargs)

    builder.create_masked_load, builder.create_masked_store = counting_load, counting_store
    builder.create_dot, executor.__call__ = counting_dot, counting_call
    try:
        yield traffic
    finally:
        builder.create_masked_load, builder.create_masked_store = load, store
        builder.create_dot, executor.__call__ = dot, call


def count(run: Callable[[], object]) -> Traffic:
    """The traffic of one call."""
    with counted() as traffic:
        run()
    return traffic
