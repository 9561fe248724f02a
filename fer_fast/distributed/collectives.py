"""What processes tell each other: five collectives, all that the losses know of torch.distributed.

Each is called by every process of a group in the same order, with or without rows. None looks at a value on a device;
tensors of any dtypes go as one buffer. Functional collectives by the group's name: no process group is read implicitly.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary
from zlib import crc32

import torch
import torch.distributed._functional_collectives
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.distributed_c10d import _resolve_process_group

from ..terms import Peers, Share

_collective = torch.ops._c10d_functional
_WORD = 8  # bytes: what tensors in a buffer of bytes are aligned to

# Of each group what its processes have agreed on: facts of calls, and how many rows one of them gives at most.
_agreed: WeakKeyDictionary[ProcessGroup, set[str]] = WeakKeyDictionary()
_most_rows: WeakKeyDictionary[ProcessGroup, int] = WeakKeyDictionary()


def total(peers: Peers, dtype: torch.dtype, *tensors: Tensor) -> list[Tensor]:
    """Σ over the processes of each tensor, equal to the bit on all of them: one all-reduce of a buffer of a dtype."""
    buffer = torch.cat([t.detach().reshape(-1).to(dtype) for t in tensors])
    buffer = _wait(peers, lambda group: _collective.all_reduce(buffer, "sum", group))
    parts = buffer.split([t.numel() for t in tensors])
    return [part.view(t.shape).to(t.dtype) for part, t in zip(parts, tensors, strict=True)]


def maximum(peers: Peers, t: Tensor) -> Tensor:
    """The largest over the processes, entry by entry."""
    return _wait(peers, lambda group: _collective.all_reduce(t.contiguous(), "max", group))


def sum_of_part(peers: Peers, rows: Tensor) -> Tensor:
    """Of rows (R·p, ...) summed over R processes the part (p, ...) of this one: a reduce-scatter."""
    size = place(peers).size
    return _wait(peers, lambda group: _collective.reduce_scatter_tensor(rows.contiguous(), "sum", size, group))


def gather(peers: Peers, share: Share, *columns: Tensor) -> list[Tensor]:
    """Each column (n, ...) as that of all processes, rank after rank: one all-gather, of bytes.

    Processes may give different numbers of rows. Where the counts are known (`share.counts`) there are no more rows
    than these; else each process's stand at the beginning of `share.most`, and what is behind them is zero, in signed
    integers, which labels are, -1.
    """
    packed = torch.cat([_as_bytes(_padded(t, share.most)) for t in columns])
    gathered = _wait(peers, lambda group: _collective.all_gather_into_tensor(packed, share.size, group))
    blocks = gathered.view(share.size, -1)
    results, start = [], 0
    for t in columns:
        count = share.most * t.shape[1:].numel() * t.element_size()
        block = blocks[:, start : start + count].reshape(-1).view(t.dtype)
        whole = block.view(share.size * share.most, *t.shape[1:])
        results.append(whole if share.counts is None else _compact(whole, share))
        start += -(-count // _WORD) * _WORD
    return results


def agree(peers: Peers, number: int, facts: str) -> list[int]:
    """The number of every process, told from host to host: devices are only waited for where the group has no backend
    for the CPU.

    Raises:
        RuntimeError: on every process, where their facts differ, which would leave collectives of other sizes waiting.
    """
    group = _group(peers)
    device = torch.device("cpu") if _speaks(group, "cpu") else torch.device("cuda", torch.cuda.current_device())
    mine = torch.tensor([number, crc32(facts.encode())], device=device)
    everyone = _wait(peers, lambda name: _collective.all_gather_into_tensor(mine, group.size(), name))
    told = everyone.view(-1, 2).tolist()
    others = [rank for rank, (_, fact) in enumerate(told) if fact != told[0][1]]
    if others:
        who = "another call or other shapes than rank 0's"
        raise RuntimeError(f"{_who(peers)}: {_ranks(others)} with {who}; here it is {facts}")
    return [count for count, _ in told]


class Place(NamedTuple):
    """Where this process stands in its group."""

    rank: int
    size: int  # R


def place(peers: Peers) -> Place:
    """The rank of this process in the group, and how many there are.

    Raises:
        RuntimeError: where this process is not in it, or it was destroyed.
    """
    group = _group(peers)
    return Place(group.rank(), group.size())


def shares(peers: Peers, rows: int, facts: str) -> Share:
    """How a batch lies of which this process has so many rows; `facts` are what all calls must have in common.

    Counts go from host to host, unless :func:`at_most` says how many rows there may be: then nobody waits for anyone,
    and steps can be captured.
    """
    group = _group(peers)
    most = _most_rows.get(group)
    if most is None:
        counts = agree(peers, rows, facts)
        return Share(group.rank(), group.size(), max(counts), tuple(counts))
    if rows > most:
        raise RuntimeError(f"{_who(peers)}: {rows} rows, but it was said that no process has more than {most}")
    same_facts(peers, facts)
    return Share(group.rank(), group.size(), most, None)


def same_facts(peers: Peers, facts: str) -> None:
    """That all processes make a call of the same facts: asked at the first of them, for asking waits for everyone."""
    known = _agreed.setdefault(_group(peers), set())
    if facts not in known and not _capturing():
        agree(peers, 0, facts)
        known.add(facts)


def at_most(group: ProcessGroup, rows: int) -> None:
    """No process of the group will have more than so many rows in a call."""
    _most_rows[group] = rows


def group_of(name: str) -> ProcessGroup:
    """The process group of a name."""
    return _resolve_process_group(name)


def group_name(group: ProcessGroup | str | None) -> str:
    """The name of a process group, "" for None.

    Raises:
        ValueError: where it is no process group.
    """
    if group is None or isinstance(group, str):
        return group or ""
    if not isinstance(group, ProcessGroup):
        raise ValueError(f"process_group: expected a torch.distributed ProcessGroup, got {type(group).__name__}")
    return group.group_name


def _wait(peers: Peers, start: Callable[[str], Tensor]) -> Tensor:
    try:
        return _collective.wait_tensor(start(peers.group))
    except RuntimeError as fault:
        reason = str(fault).strip().splitlines()[0]
        raise RuntimeError(f"{_who(peers)}: a process was lost or made another call ({reason})") from fault


def _group(peers: Peers) -> ProcessGroup:
    try:
        return _resolve_process_group(peers.group)
    except (RuntimeError, ValueError) as fault:
        raise RuntimeError(f"{peers.loss}: there is no process group {peers.group!r} (any more)") from fault


def _who(peers: Peers) -> str:
    try:
        rank, size = place(peers)
    except RuntimeError:
        return peers.loss
    return f"{peers.loss}: rank {rank} of {size}"


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"


def _speaks(group: ProcessGroup, device: str) -> bool:
    """Whether a group has a backend for a kind of device."""
    return any(of.type == device for of in group._device_types)


def _capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _padded(t: Tensor, rows: int) -> Tensor:
    """A column (n, ...) with so many rows."""
    missing = rows - t.shape[0]
    if not missing:
        return t.contiguous()
    filling = t.new_full((missing, *t.shape[1:]), 0 if t.is_floating_point() or t.dtype == torch.bool else -1)
    return torch.cat([t, filling])


def _as_bytes(t: Tensor) -> Tensor:
    flat = t.detach().reshape(-1).view(torch.uint8)
    missing = -flat.shape[0] % _WORD
    return torch.cat([flat, flat.new_zeros(missing)]) if missing else flat


def filled_up(share: Share, rows: Tensor) -> Tensor:
    """Rows of all processes with `share.most` of each: :func:`_compact` back."""
    if share.counts is None or all(count == share.most for count in share.counts):
        return rows
    return torch.cat([_padded(part, share.most) for part in rows.split(share.counts)])


def _compact(rows: Tensor, share: Share) -> Tensor:
    """Rows of all processes without what some were filled up with."""
    if all(count == share.most for count in share.counts):
        return rows
    starts = range(0, share.size * share.most, share.most)
    return torch.cat([rows[start : start + count] for start, count in zip(starts, share.counts, strict=True)])
