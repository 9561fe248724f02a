"""The memory bank: a ring of the newest embeddings and labels."""

from collections import deque

import torch
from torch import Tensor

from .. import checks, ops
from ..dispatch import resolve
from .base import HostState


class MemoryBank(HostState):
    """The newest `capacity` rows given to :meth:`enqueue`, in any dtype, first in first out (Zhu et al. 2022, ECAN).

    Rows are written in place over the oldest ones: nothing shifts, and the host, which knows every batch's size, keeps
    the write position itself and never waits for the device. `features` (m, d) and `labels` (m,) are views of the
    valid rows, in no particular order. A batch is a group; a batch larger than the capacity leaves its last rows.

    With Triton the position is on the device too, so that an `enqueue` captured in a CUDA graph moves on at every
    replay. The host sees no replay: fill the bank before the capture, and capture no `groups`.
    """

    MOST_GROUPS = 64  # remembered; MVA asks for four

    def __init__(self, capacity: int, feature_dim: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.capacity = checks.at_least(capacity, 1, "capacity")
        self.feature_dim = checks.at_least(feature_dim, 1, "feature_dim")
        self.register_buffer("ring", torch.zeros(capacity, feature_dim, dtype=checks.floating(dtype, "dtype")))
        self.register_buffer("ring_labels", torch.full((capacity,), -1, dtype=torch.int64))
        self.register_buffer("cursor", torch.zeros(1, dtype=torch.int64), persistent=False)
        self._cursor = 0
        self._filled = 0
        self._group_sizes: deque[int] = deque(maxlen=self.MOST_GROUPS)  # newest first

    @property
    def host_state(self) -> list[int]:
        return [int(self.cursor), self._filled, *self._group_sizes]  # the device's own: replays moved it alone

    @host_state.setter
    def host_state(self, values: list[int]) -> None:
        self._cursor, self._filled, *sizes = values
        self.cursor.fill_(self._cursor)
        self._group_sizes = deque(sizes, maxlen=self.MOST_GROUPS)

    def __len__(self) -> int:
        return self._filled

    @property
    def features(self) -> Tensor:
        return self.ring[: self._filled]

    @property
    def labels(self) -> Tensor:
        return self.ring_labels[: self._filled]

    @torch.no_grad()
    def enqueue(self, z: Tensor, y: Tensor) -> None:
        """Append a group of embeddings z (n, d) with labels y (n,), converted to the bank's dtype on the way."""
        checks.table(z, "embeddings", self.feature_dim, None)
        y = checks.labels(y, len(z), None)[-self.capacity :]
        z = z[-self.capacity :]
        if resolve("auto", self.ring.device) == "triton" and self.ring.dtype != torch.float64:
            z, y = (t.to(self.ring.device, non_blocking=True) for t in (z, y))
            ops.enqueue(self.ring, self.ring_labels, self.cursor, z, y)
        else:
            self._write(z, y)
        self._cursor = (self._cursor + len(z)) % self.capacity
        self._filled = min(self._filled + len(z), self.capacity)
        self._group_sizes.appendleft(len(z))
        while sum(self._group_sizes) > self._filled:
            self._group_sizes.pop()  # the oldest group has lost rows

    def _write(self, z: Tensor, y: Tensor) -> None:
        head = min(len(z), self.capacity - self._cursor)  # rows before the ring's end; the rest goes to its start
        for rows, place in ((slice(0, head), self._cursor), (slice(head, len(z)), 0)):
            size = rows.stop - rows.start
            self.ring[place : place + size].copy_(z[rows], non_blocking=True)
            self.ring_labels[place : place + size].copy_(y[rows], non_blocking=True)
        self.cursor.fill_((self._cursor + len(z)) % self.capacity)

    def groups(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """The newest `count` groups that are still whole, newest first, as features (n_v, d) and labels (n_v,)."""
        groups, end = [], self._cursor
        for size in list(self._group_sizes)[:count]:
            start = end - size
            if start >= 0:
                groups.append((self.ring[start:end], self.ring_labels[start:end]))
            else:  # this one wraps around the ring's end
                groups.append(tuple(torch.cat([t[start:], t[:end]]) for t in (self.ring, self.ring_labels)))
            end = start % self.capacity
        return groups

    def extra_repr(self) -> str:
        return (
            f"capacity={self.capacity}, feature_dim={self.feature_dim}, dtype={self.ring.dtype}, filled={self._filled}"
        )
