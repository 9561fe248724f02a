"""The losses that meet rows with a table of classes, in the groups that every engine takes them in."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup  # a name even where PyTorch is built without

Group = ProcessGroup | str | None  # or its name; None for this process alone


class Classifier(NamedTuple):
    """A classifier, "" for none."""

    name: str = ""
    weight: Tensor | None = None  # (C, d)
    bias: Tensor | None = None  # (C,)
    class_weights: Tensor | None = None  # (C,)
    params: Sequence[float] = ()  # its hyper-parameters; NaN stands for the one that is `setting`
    setting: Tensor | None = None  # (), which gets a gradient
    label_smoothing: float = 0.0


class Draw(NamedTuple):
    """Which classes of a sharded table take part in a step, beside those of the batch."""

    share: float = 1.0  # of a process's classes
    step: Tensor | None = None  # () int64: other numbers draw other classes


class CenterTerm(NamedTuple):
    """A loss of the center family, "" for none, and what it is multiplied by beside a classifier."""

    name: str = ""
    centers: Tensor | None = None  # (C, d)
    class_weights: Tensor | None = None  # (C,)
    params: Sequence[float] = ()
    factor: float = 1.0
    groups_x: Sequence[Tensor] = ()  # MVA's groups beside the batch (n_v, d), newest first
    groups_y: Sequence[Tensor] = ()  # their labels (n_v,)
    group_rows: Tensor | None = None  # (V,), how many rows of each are real, the first ones; None for all


class Setting(NamedTuple):
    """A hyper-parameter: a number, or in its place a tensor () that gets a gradient."""

    value: float
    learnt: Tensor | None = None

    @classmethod
    def of(cls, value: float | Tensor) -> "Setting":
        return cls(1.0, value) if isinstance(value, Tensor) else cls(value)


class Share(NamedTuple):
    """How the rows of a batch lie on the processes."""

    rank: int
    size: int
    most: int  # rows of the process that has the most, or could have
    counts: tuple[int, ...] | None  # rows of each; None where only the devices know them

    @property
    def own(self) -> slice:
        """The rows of this process in what :meth:`Peers.gather` gives, with those it left out."""
        return self.of(self.rank)

    def of(self, rank: int) -> slice:
        """The same of another process."""
        if self.counts is None:
            return slice(rank * self.most, (rank + 1) * self.most)
        first = sum(self.counts[:rank])
        return slice(first, first + self.counts[rank])

    @classmethod
    def of_table(cls, rows: int, rank: int, size: int) -> "Share":
        """Of a table's rows, cut as `torch.chunk` does: blocks of ⌈rows / R⌉, the last of fewer, or of none."""
        most = -(-rows // size)
        return cls(rank, size, most, tuple(max(min(most, rows - at * most), 0) for at in range(size)))

    def even(self, rows: int) -> "Share":
        """The same processes with as many of so many rows each, as good as."""
        counts = tuple([rows // self.size + (rank < rows % self.size) for rank in range(self.size)])
        return Share(self.rank, self.size, max(counts), counts)


class Peers(NamedTuple):
    """The processes whose rows together are the batch of a loss; none but this one by default.

    Engines sum what they have of the loss and of tables over all of them, and give d loss / d own rows; what becomes of
    gradients afterwards, by `gradients`, is the operator's affair.
    """

    group: str = ""  # a process group's name
    gradients: str = "mean"  # what is done to those of all processes: DDP takes the mean, others may take the sum
    loss: str = ""  # who asks, for errors
    sharded: bool = False  # whether the rows of a bank lie on them in parts

    def total(self, dtype: torch.dtype, *tensors: Tensor) -> list[Tensor]:
        """Σ over the processes of each, in one buffer of a dtype; of one process what is given."""
        if not self.group:
            return list(tensors)
        from .distributed.collectives import total  # PyTorch may be without

        return total(self, dtype, *tensors)

    def gather(self, share: Share, *columns: Tensor) -> list[Tensor]:
        """Each column (n, ...) as that of all processes, rank after rank, in one buffer."""
        from .distributed.collectives import gather

        return gather(self, share, *columns)

    def maximum(self, t: Tensor) -> Tensor:
        """The largest over the processes, entry by entry; of one process what is given."""
        if not self.group:
            return t
        from .distributed.collectives import maximum

        return maximum(self, t)

    def sum_of_part(self, share: Share, rows: Tensor) -> Tensor:
        """Of rows (R·most, ...), `most` of each process, summed over the processes those of this one."""
        from .distributed.collectives import sum_of_part

        own = share.own
        return sum_of_part(self, rows)[: own.stop - own.start]

    def own_rows(self, share: Share, rows: Tensor) -> Tensor:
        """Of rows of all processes as :meth:`gather` gives them, summed over the processes, those of this one."""
        from .distributed.collectives import filled_up

        return self.sum_of_part(share, filled_up(share, rows))

    def blocks(self, rows: int) -> Share:
        """How a table's rows lie on the processes where each has its own."""
        if not self.group:
            return Share.of_table(rows, 0, 1)
        from .distributed.collectives import place

        return Share.of_table(rows, *place(self))


ALONE = Peers()
