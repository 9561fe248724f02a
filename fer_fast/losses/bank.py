"""The memory bank: a ring of the newest embeddings and labels."""

from collections import deque

import torch
from torch import Tensor

from .. import checks, ops
from ..dispatch import resolve
from .base import HostState


class MemoryBank(HostState):
    """The newest `capacity` rows given to :meth:`enqueue`, in any dtype, first in first out (Zhu et al. 2022, ECAN).

    Rows are written in place over the oldest ones: nothing shifts, and no call waits for the device, where the write
    position is. `features` (m, d) and `labels` (m,) are views of the valid rows, in no particular order. A batch is a
    group; a batch larger than the capacity leaves its last rows.

    What was captured in a CUDA graph moves on at every replay. The host, which knows the sizes of the groups, sees no
    replay: replay only where `replay_key` is that of the capture, and call `replayed` after each.
    """

    MOST_GROUPS = 64  # remembered; MVA asks for four

    def __init__(self, capacity: int, feature_dim: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.capacity = checks.at_least(capacity, 1, "capacity")
        self.feature_dim = checks.at_least(feature_dim, 1, "feature_dim")
        self.register_buffer("ring", torch.zeros(capacity, feature_dim, dtype=checks.floating(dtype, "dtype")))
        self.register_buffer("ring_labels", torch.full((capacity,), -1, dtype=torch.int64))
        self.register_buffer("cursor", torch.zeros(1, dtype=torch.int64), persistent=False)
        self._filled = 0
        self._group_sizes: deque[int] = deque(maxlen=self.MOST_GROUPS)  # newest first
        self._asked = 0  # the most groups that were asked for

    @property
    def host_state(self) -> list[int]:
        return [int(self.cursor), self._filled, *self._group_sizes]

    @host_state.setter
    def host_state(self, values: list[int]) -> None:
        cursor, self._filled, *sizes = values
        self.cursor.fill_(cursor)
        self._group_sizes = deque(sizes, maxlen=self.MOST_GROUPS)

    def refuse_host_state(self, values: list[int]) -> None:
        if len(values) < 2:
            raise ValueError(f"write position, rows filled and sizes of groups expected, got {values}")
        cursor, filled, *sizes = values
        if not 0 <= filled <= self.capacity:
            raise ValueError(f"{filled} rows filled of {self.capacity}")
        if not 0 <= cursor < self.capacity or (filled < self.capacity and cursor != filled):
            raise ValueError(f"write position {cursor} with {filled} rows filled of {self.capacity}")
        if len(sizes) > self.MOST_GROUPS or min(sizes, default=1) < 1 or sum(sizes) > filled:
            raise ValueError(f"groups of {sizes} rows in {filled} rows filled")

    @property
    def replay_key(self) -> tuple[int, ...]:
        return self._filled, *list(self._group_sizes)[: self._asked]

    def replayed(self, rows: int) -> None:
        rows = min(rows, self.capacity)
        self._filled = min(self._filled + rows, self.capacity)
        self._group_sizes.appendleft(rows)
        while sum(self._group_sizes) > self._filled:
            self._group_sizes.pop()  # the oldest group has lost rows

    def __len__(self) -> int:
        return self._filled

    @property
    def features(self) -> Tensor:
        return self.ring[: self._filled]

    @property
    def labels(self) -> Tensor:
        return self.ring_labels[: self._filled]

    def labels_before(self, rows: int) -> Tensor:
        """`labels` as if the newest rows, of a batch of so many, had not come: -1 there, which takes them out."""
        labels, newest = self.ring_labels.clone(), self._places(-min(rows, self.capacity), 0)
        return labels.index_fill_(0, newest, -1)[: self._filled]

    @torch.no_grad()
    def enqueue(self, z: Tensor, y: Tensor) -> None:
        """Append a group of embeddings z (n, d) with labels y (n,), converted to the bank's dtype on the way."""
        checks.moves("memory bank")
        checks.table(z, "embeddings", self.feature_dim, None)
        y = checks.labels(y, z.shape[0], None)[-self.capacity :]
        z, y = (t.to(self.ring.device, non_blocking=True) for t in (z[-self.capacity :], y))
        if resolve("auto", self.ring.device) == "triton" and self.ring.dtype != torch.float64:
            ops.enqueue(self.ring, self.ring_labels, self.cursor, z, y)
        else:
            places = self._places(0, len(z))
            self.ring.index_copy_(0, places, z.to(self.ring.dtype))
            self.ring_labels.index_copy_(0, places, y.long())
            self.cursor.add_(len(z)).remainder_(self.capacity)
        self.replayed(len(z))

    def groups(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """The newest `count` groups that are still whole, newest first, as features (n_v, d) and labels (n_v,)."""
        self._asked = max(self._asked, count)
        sizes = list(self._group_sizes)[:count][::-1]
        places = self._places(-sum(sizes), 0)
        return list(zip(self.ring[places].split(sizes), self.ring_labels[places].split(sizes), strict=True))[::-1]

    def _places(self, start: int, end: int) -> Tensor:
        """Rows of the ring from `start` to `end`, counted from the write position."""
        return (self.cursor + torch.arange(start, end, device=self.ring.device)) % self.capacity

    @classmethod
    def refuse_others(cls, bank: object) -> None:
        """Raise `ValueError` for what is given in place of a bank."""
        if not isinstance(bank, cls):
            raise ValueError(
                f"bank: expected a {cls.__name__}, got {type(bank).__name__}; a miner's indices are not supported"
            )

    def extra_repr(self) -> str:
        return (
            f"capacity={self.capacity}, feature_dim={self.feature_dim}, dtype={self.ring.dtype}, filled={self._filled}"
        )
