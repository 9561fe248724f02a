"""The memory bank: a ring of the newest embeddings and labels."""

from typing import Any

import torch
from torch import Tensor

from .. import checks, ops
from ..dispatch import resolve
from ..functional.whole import aside
from ..terms import ALONE, Group, Peers, Share
from .base import OfGroup, WholeState


class MemoryBank(OfGroup, WholeState):
    """The newest `capacity` rows given to :meth:`enqueue`, in any dtype, first in first out (Zhu et al. 2022, ECAN).

    Rows are written in place over the oldest ones: nothing shifts. What is written and where is known on the device
    alone, so that losses and `enqueue` never wait for it, and a compiled or captured step stays the same while the bank
    fills: losses are given the whole `ring` (capacity, d) and `ring_labels` (capacity,), -1 where not filled. A batch
    is a group; a batch larger than the capacity leaves its last rows.

    `len`, `features` (m, d) and `labels` (m,), the valid rows in no particular order, and :meth:`groups` are for users:
    they wait for the device.

    With a `process_group` the rows that its R processes enqueue together, each its own or none, are the batch, rank
    after rank, and the bank is that of one process that is given all of them. Every process keeps it whole, or with
    `sharded` one row in R: row p of the ring lies on process p mod R, `ring` (⌈capacity/R⌉, d) is its part, and labels
    and counts are whole everywhere. The losses that a sharded bank is given to have its group. What needs rows of
    others then, `features`, `groups` and `state_dict`, is asked for by all processes at once. A state is always that of
    the whole bank and loads into any: on one process, on other numbers of them, sharded or not.

    Call :func:`fer_fast.distributed.over` on a model that is given to DDP: at every step it would else write the first
    process's buffers over the others', and so its part of a ring over theirs.
    """

    def __init__(
        self,
        capacity: int,
        feature_dim: int,
        dtype: torch.dtype = torch.float32,
        process_group: Group = None,
        sharded: bool = False,
    ):
        super().__init__()
        self.sharded = bool(sharded)
        self.capacity = checks.at_least(capacity, 1, "capacity")
        self.feature_dim = checks.at_least(feature_dim, 1, "feature_dim")
        self.register_buffer("ring", torch.zeros(capacity, feature_dim, dtype=checks.floating(dtype, "dtype")))
        self.register_buffer("ring_labels", torch.full((capacity,), -1, dtype=torch.int64))
        # Of a row how many had been written before the first of its batch: all rows of a group have one, no other has.
        self.register_buffer("ring_starts", torch.full((capacity,), -1, dtype=torch.int64))
        # Rows so far: modulo the capacity the place of the next.
        self.register_buffer("written", torch.zeros(1, dtype=torch.int64))
        self._largest = 0  # rows of the largest group so far: the length groups are padded to is a shape
        self._lies: Share | None = None  # how the rows of the ring lie on the processes, where these have parts of it
        if process_group is not None:
            self.process_group = process_group

    @property
    def peers(self) -> Peers:
        """The processes whose rows the bank takes in."""
        return ALONE if self._group is None else Peers(self._group, loss="memory bank")

    def _join(self, group: str | None) -> None:
        whole = self._whole_ring()
        super()._join(group)
        self._lies = None
        if self.sharded and group is not None:
            from ..distributed.collectives import place

            rank, size = place(self.peers)
            self._lies = Share(rank, size, -(-self.capacity // size), None)
        self.ring = self.part(whole)
        self.take_state()

    @property
    def in_parts(self) -> bool:
        """Whether `ring` is a part."""
        return self._lies is not None

    def part(self, t: Tensor) -> Tensor:
        """Of a tensor with a row for each of the ring the rows beside this process's; behind the last there is -1."""
        if not self.in_parts:
            return t
        rank, size, most, _ = self._lies
        rows = t[rank::size]
        return torch.cat([rows, rows.new_full((most - len(rows), *t.shape[1:]), -1)])

    def _whole_ring(self) -> Tensor:
        if not self.in_parts:
            return self.ring
        parts = self.peers.gather(self._lies, self.ring)[0].view(self._lies.size, self._lies.most, -1)
        return parts.transpose(0, 1).reshape(-1, self.feature_dim)[: self.capacity]

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
            self._largest = max(self._group_places(self.capacity)[1], default=0)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.in_parts:
            destination[f"{prefix}ring"] = self._whole_ring()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest) -> None:
        name = f"{prefix}ring"
        if name in state_dict and state_dict[name].shape == (self.capacity, self.feature_dim):
            state_dict = state_dict | {name: self.part(state_dict[name])}
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def __len__(self) -> int:
        return min(int(self.written), self.capacity)

    @property
    def features(self) -> Tensor:
        return self._whole_ring()[: len(self)]

    @property
    def labels(self) -> Tensor:
        return self.ring_labels[: len(self)]

    def labels_before(self, rows: int) -> Tensor:
        """`ring_labels` as if the newest rows, of a batch of so many, had not come: -1 there, which takes them out.

        With a process group these are the newest batch, whatever this process had of it.
        """
        if self._group is not None:
            newest = self.ring_starts[self._places(-1, 0)]
            return self.ring_labels.masked_fill(self.ring_starts == newest, -1)
        return self.ring_labels.index_fill(0, self._places(-min(rows, self.capacity), 0), -1)

    @torch.no_grad()
    def enqueue(self, embeddings: Tensor, labels: Tensor) -> None:
        """Append a group of embeddings (n, d) with labels (n,), converted to the bank's dtype on the way.

        With a process group every process calls it, with rows of its own or none (0, d).
        """
        checks.moves("memory bank")
        checks.table(embeddings, "embeddings", self.feature_dim, None, rows=self._group is None)
        labels = checks.labels(labels, embeddings.shape[0], None)[-self.capacity :]
        newest = embeddings[-self.capacity :], labels
        embeddings, labels = (t.to(self.ring.device, non_blocking=True) for t in newest)
        real = None
        if self._group is not None:
            embeddings, labels, real = self._gathered(embeddings, labels)
        rows = embeddings.shape[0]
        if not rows:
            return
        plain = real is None and not self.in_parts
        if plain and resolve("auto", self.ring.device) == "triton" and self.ring.dtype != torch.float64:
            ops.enqueue(self.ring, self.ring_labels, self.ring_starts, self.written, embeddings, labels)
        else:
            self._write(embeddings.to(self.ring.dtype), labels.long(), real)
        if rows > self._largest:
            self._largest = rows

    @aside
    def _gathered(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The rows of all processes, at most `capacity`, and how many are real, the first ones; None for all."""
        from ..distributed.collectives import shares

        facts = f"enqueue {self.ring.dtype} {self.feature_dim} into {self.capacity}"
        share = shares(self.peers, len(labels), facts)
        columns = embeddings.to(self.ring.dtype), labels.long()
        if share.counts is not None:
            embeddings, labels = self.peers.gather(share, *columns)
            return embeddings[-self.capacity :], labels[-self.capacity :], None
        there = torch.ones_like(labels, dtype=torch.bool)
        embeddings, labels, there = self.peers.gather(share, *columns, there)
        counts = there.view(share.size, -1).sum(1)
        ends, real = counts.cumsum(0), counts.sum().clamp(max=self.capacity)
        rows = torch.arange(min(len(labels), self.capacity), device=ends.device) + ends[-1] - real
        rank = torch.searchsorted(ends, rows, right=True).clamp(max=share.size - 1)
        rows = (rows - ends[rank] + counts[rank] + rank * share.most).clamp(max=len(labels) - 1)
        return embeddings[rows], labels[rows], real

    def _write(self, embeddings: Tensor, labels: Tensor, real: Tensor | None) -> None:
        """Write a batch over the oldest rows, of which the first `real` are, or all."""
        rows, places = len(labels), self._places(0, len(labels))
        wanted = None if real is None else torch.arange(rows, device=places.device) < real
        if not self.in_parts:
            _put(self.ring, places, embeddings, wanted)
        else:
            rank, size, *_ = self._lies
            # This process's rows of the ring are a ring, too, of which a batch covers consecutive ones.
            length = len(range(rank, self.capacity, size))
            first = (self.written % self.capacity - rank + size - 1) // size
            own = (first + torch.arange(min(-(-rows // size) + 1, length), device=places.device)) % max(length, 1)
            given = (own * size + rank - self.written) % self.capacity
            there = given < (rows if real is None else real)
            _put(self.ring, own, embeddings[given.clamp(max=rows - 1)], there)
        _put(self.ring_labels, places, labels, wanted)
        _put(self.ring_starts, places, self.written.expand(rows), wanted)
        self.written.add_(rows if real is None else real)

    def groups(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """The newest `count` groups that are still whole, newest first, as features (n_v, d) and labels (n_v,)."""
        places, sizes = self._group_places(count)
        rows = self._whole_ring()[places], self.ring_labels[places]
        return list(zip(*(of.split(sizes) for of in rows), strict=True))[::-1]

    def _group_places(self, count: int) -> tuple[Tensor, list[int]]:
        """Where the rows of the newest groups lie, oldest first, and how many each has."""
        places = self._places(-len(self), 0)
        starts, sizes = self.ring_starts[places].unique_consecutive(return_counts=True)
        whole = sizes[starts >= self.written - self.capacity]  # an older one has lost rows
        sizes = whole[max(len(whole) - count, 0) :].tolist()
        return places[len(places) - sum(sizes) :], sizes

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
        features = self._from_parts(places) if self.in_parts else self.ring[places]
        return features, self.ring_labels[places].where(within < rows[:, None], 0), rows

    @aside
    def _from_parts(self, places: Tensor) -> Tensor:
        """Rows of the ring that lie on all processes: the sum of what each has, the others' being zero."""
        from ..distributed.collectives import same_facts

        rank, size, *_ = self._lies
        same_facts(self.peers, f"rows {tuple(places.shape)} of a bank {self.ring.dtype} {self.feature_dim}")
        rows = self.ring[places // size].where((places % size == rank)[..., None], 0)
        return self.peers.total(self.ring.dtype, rows)[0]

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
        shown = f"capacity={self.capacity}, feature_dim={self.feature_dim}, dtype={self.ring.dtype}"
        return f"{shown}, sharded=True" if self.sharded else shown


def _put(table: Tensor, places: Tensor, rows: Tensor, wanted: Tensor | None) -> None:
    """Write rows (r, ...) into a table at their places (r,), all different; None of them for all that are wanted."""
    if wanted is not None:
        rows = rows.where(wanted.view(-1, *[1] * (rows.ndim - 1)), table[places])
    table.index_copy_(0, places, rows)
