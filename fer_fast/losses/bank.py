"""The memory bank: a ring of the newest embeddings and labels."""

import torch
from torch import Tensor

from .. import checks, ops
from ..dispatch import resolve
from .base import WholeState


class MemoryBank(WholeState):
    """The newest `capacity` rows given to :meth:`enqueue`, in any dtype, first in first out (Zhu et al. 2022, ECAN).

    Rows are written in place over the oldest ones: nothing shifts. What is written and where is known on the device
    alone, so that losses and `enqueue` never wait for it, and a compiled or captured step stays the same while the bank
    fills: losses are given the whole `ring` (capacity, d) and `ring_labels` (capacity,), -1 where not filled. A batch
    is a group; a batch larger than the capacity leaves its last rows.

    `len`, `features` (m, d) and `labels` (m,), the valid rows in no particular order, and :meth:`groups` are for users:
    they wait for the device.
    """

    def __init__(self, capacity: int, feature_dim: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.capacity = checks.at_least(capacity, 1, "capacity")
        self.feature_dim = checks.at_least(feature_dim, 1, "feature_dim")
        self.register_buffer("ring", torch.zeros(capacity, feature_dim, dtype=checks.floating(dtype, "dtype")))
        self.register_buffer("ring_labels", torch.full((capacity,), -1, dtype=torch.int64))
        # Of a row how many had been written before the first of its batch: all rows of a group have one, no other has.
        self.register_buffer("ring_starts", torch.full((capacity,), -1, dtype=torch.int64))
        # Rows so far: modulo the capacity the place of the next.
        self.register_buffer("written", torch.zeros(1, dtype=torch.int64))
        self._largest = 0  # rows of the largest group so far: the length groups are padded to is a shape

    @property
    def replay_key(self) -> int:
        """What the kernels of a step depend on besides shapes: a CUDA graph of another step of this key may be
        replayed."""
        return self._largest

    def refuse_state(self, state: dict[str, Tensor]) -> None:
        written = int(state["written"])
        if written < 0:
            raise ValueError(f"written: {written} rows")
        starts = state["ring_starts"]
        absent, filled = starts < 0, min(written, self.capacity)
        if not torch.equal(absent, torch.arange(self.capacity, device=starts.device) >= filled):
            raise ValueError(f"ring_starts: {int((~absent).sum())} rows filled, but {written} were written")
        if (starts >= max(written, 1)).any():
            raise ValueError(f"ring_starts: a group behind the {written} rows written")

    def take_state(self) -> None:
        if not self.written.is_meta:
            self._largest = max((len(labels) for _, labels in self.groups(self.capacity)), default=0)

    def __len__(self) -> int:
        return min(int(self.written), self.capacity)

    @property
    def features(self) -> Tensor:
        return self.ring[: len(self)]

    @property
    def labels(self) -> Tensor:
        return self.ring_labels[: len(self)]

    def labels_before(self, rows: int) -> Tensor:
        """`ring_labels` as if the newest rows, of a batch of so many, had not come: -1 there, which takes them out."""
        return self.ring_labels.index_fill(0, self._places(-min(rows, self.capacity), 0), -1)

    @torch.no_grad()
    def enqueue(self, embeddings: Tensor, labels: Tensor) -> None:
        """Append a group of embeddings (n, d) with labels (n,), converted to the bank's dtype on the way."""
        checks.moves("memory bank")
        checks.table(embeddings, "embeddings", self.feature_dim, None)
        labels = checks.labels(labels, embeddings.shape[0], None)[-self.capacity :]
        newest = embeddings[-self.capacity :], labels
        embeddings, labels = (t.to(self.ring.device, non_blocking=True) for t in newest)
        rows = embeddings.shape[0]
        if resolve("auto", self.ring.device) == "triton" and self.ring.dtype != torch.float64:
            ops.enqueue(self.ring, self.ring_labels, self.ring_starts, self.written, embeddings, labels)
        else:
            places = self._places(0, rows)
            self.ring.index_copy_(0, places, embeddings.to(self.ring.dtype))
            self.ring_labels.index_copy_(0, places, labels.long())
            self.ring_starts.index_copy_(0, places, self.written.expand(rows))
            self.written.add_(rows)
        if rows > self._largest:
            self._largest = rows

    def groups(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """The newest `count` groups that are still whole, newest first, as features (n_v, d) and labels (n_v,)."""
        places = self._places(-len(self), 0)
        starts, sizes = self.ring_starts[places].unique_consecutive(return_counts=True)
        whole = sizes[starts >= self.written - self.capacity]  # an older one has lost rows
        sizes = whole[max(len(whole) - count, 0) :].tolist()
        places = places[len(places) - sum(sizes) :]
        return list(zip(self.ring[places].split(sizes), self.ring_labels[places].split(sizes), strict=True))[::-1]

    def padded_groups(self, count: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """:meth:`groups` without a wait, each padded to the length L of the largest so far; None where none was.

        Features (count, L, d), labels (count, L), and how many of a group's rows, the first ones, are real (count,): 0
        for a group that the bank does not hold.
        """
        longest = self._largest
        if not count or not longest:
            return None
        reach = min(count * longest, self.capacity)
        starts = self.ring_starts[self._places(-reach, 0)].flip(0)  # newest first
        number = (starts.diff(prepend=starts[:1]) != 0).cumsum(0)
        whole = starts >= (self.written - self.capacity).clamp(min=0)
        of = torch.arange(count, device=starts.device)[:, None]
        rows = ((number == of) & whole).sum(1)
        within = torch.arange(longest, device=starts.device)
        places = (self.written - rows.cumsum(0)[:, None] + within) % self.capacity
        return self.ring[places], self.ring_labels[places].where(within < rows[:, None], 0), rows

    def _places(self, start: int, end: int) -> Tensor:
        """Rows of the ring from `start` to `end`, counted from the write position."""
        return (self.written + torch.arange(start, end, device=self.ring.device)) % self.capacity

    @classmethod
    def refuse_others(cls, bank: object) -> None:
        """Raise `ValueError` for what is given in place of a bank."""
        if not isinstance(bank, cls):
            raise ValueError(
                f"bank: expected a {cls.__name__}, got {type(bank).__name__}; a miner's indices are not supported"
            )

    def extra_repr(self) -> str:
        return f"capacity={self.capacity}, feature_dim={self.feature_dim}, dtype={self.ring.dtype}"
