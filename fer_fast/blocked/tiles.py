"""What every blocked engine is built from: spans of rows, unit rows and their chain rule, classes of a batch."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

SUMMED_ROWS = 32  # one after another before their sum is taken to more digits, where places are few


def work_dtype(*tensors: Tensor | None) -> torch.dtype:
    """The dtype of products and tiles: float32, or float64 when an input is."""
    return torch.float64 if any(t is not None and t.dtype == torch.float64 for t in tensors) else torch.float32


def gradient_dtype(x: Tensor) -> torch.dtype:
    """The dtype a gradient waits in for the backward: float16 would lose it before the loss scale comes."""
    return torch.float32 if x.dtype == torch.float16 else x.dtype


def wide_dtype(device: torch.device) -> torch.dtype:
    """The dtype of sums over a whole batch: float64, or float32 on a device that has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def spans(count: int, size: int, first: int = 0) -> Iterator[slice]:
    """Consecutive slices of at most `size` rows that cover the rows from `first` up to `count`."""
    return (slice(start, min(start + size, count)) for start in range(first, count, size))


def even(count: int, size: int) -> int:
    """At most `size`, so that spans of a count are as good as equal: a product with few rows adds its terms in another
    way than one with many, and loses digits."""
    return -(-count // -(-count // size)) if count else size


def shaped(buffer: Tensor, rows: int, columns: int) -> Tensor:
    """The first entries of a flat buffer as a matrix: one allocation serves every tile, ragged ones too."""
    return buffer[: rows * columns].view(rows, columns)


def take(x: Tensor, rows: slice | Tensor, dtype: torch.dtype) -> Tensor:
    """Some rows of `x` in `dtype`, side by side in memory: the same bits come out whatever the strides of `x` are."""
    return part(x, rows).to(dtype).contiguous()


def take_present(x: Tensor, rows: slice, dtype: torch.dtype, absent: Tensor | None) -> Tensor:
    """:func:`take`, with zeros in place of rows that are absent (n, 1), whatever they hold."""
    taken = take(x, rows, dtype)
    return taken if absent is None else taken.masked_fill(part(absent, rows), 0)


def total_weight(weights: Tensor) -> Tensor:
    """What a mean of weighted rows divides by: where nothing weighs anything, nothing is lost."""
    total = weights.sum()
    return total.where(total != 0, 1)


def part(x: Tensor, rows: slice | Tensor) -> Tensor:
    """Some rows of `x`; all of them are `x` itself, for a view takes as long as an operation on few numbers."""
    return x if rows == slice(0, x.shape[0]) else x[rows]


def row_products(a: Tensor, b: Tensor) -> Tensor:
    """Dot products of the rows of two matrices (n, d): (n,). Into memory of their dtype: autocast would round them."""
    return torch.bmm(a[:, None], b[:, :, None], out=a.new_empty(len(a), 1, 1))[:, 0, 0]


def rows_per_block(width: int, elements: int = 2**18) -> int:
    """How many rows of `width` make a block whose few temporaries stay in cache.

    2¹⁸ was best of 2¹⁷ to 2²¹ for most losses on two cores with 1 MiB of second-level cache each: smaller blocks pay
    for calls, and at 2²¹ the variant loss takes four times as long.
    """
    return max(elements // max(width, 1), 1)


def rows_per_sweep(x: Tensor, width: int, elements: int = 2**18) -> int:
    """How many rows of `width` a sweep over x takes at a time: more where every operation waits for other threads.

    Where another program keeps one of two cores busy, each such wait was as long as its turn, some 12 ms: center loss
    took five times eager's time in blocks of 2¹⁸, A-softmax twice in those of 2¹⁹. Alone, 2²¹ takes variant loss and
    A-softmax 1.6 times as long as 2²⁰.
    """
    alone = x.is_cpu and torch.get_num_threads() == 1
    return rows_per_block(width, elements) * (1 if alone else 4)


def may_hold(condition: Tensor) -> bool:
    """Whether some entry may be true. Looked up on the CPU only: elsewhere looking would wait for the device."""
    return not condition.is_cpu or bool(condition.any())


def taking_part(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rows x (n, d), labels y (n,), and which rows a negative label takes out (n,), None where it is none: those are
    zero, with labels, still negative, that no other row has."""
    out = y < 0
    if not may_hold(out):
        return x, y, None
    own = -1 - torch.arange(len(y), device=y.device)
    return x.masked_fill(out[:, None], 0), torch.where(out, own, y), out


def add_rows(table: Tensor, index: Tensor, rows: Tensor) -> None:
    """`table[..., index, :] += rows`, (..., s, d) and (..., r, d), the same bits on every run.

    A row that is not finite spoils its own place only, which a one-hot product would not grant; it costs twice as much
    besides. Rows are summed in their own precision, few of them one after another, then taken to the table's.
    """
    # A table larger than the block would cost more to add than the block's rows in the table's precision.
    size, count, sums = table.shape[-2], rows.shape[-2], table
    apart = rows.dtype != table.dtype and size < count
    if apart:
        pieces = min(-(-count // SUMMED_ROWS), count // size)
        sums = rows.new_zeros((*table.shape[:-2], pieces * size, table.shape[-1]))
        if pieces > 1:
            place = torch.arange(count, device=index.device).mul_(pieces).div_(count, rounding_mode="floor")
            index = index + place.mul_(size)
    rows = rows.to(sums.dtype)
    if table.is_cuda:  # where index_add_ uses float atomics
        sums.transpose(0, -2).index_put_((index,), rows.transpose(0, -2), accumulate=True)
    else:
        sums.index_add_(-2, index, rows)
    if apart:
        table += sums.unflatten(-2, (pieces, size)).sum(-3, dtype=table.dtype)


class Directions(NamedTuple):
    """Unit rows u = x / ‖x‖ over the last dimension, and what their chain rule needs."""

    unit: Tensor  # (..., d)
    inverse: Tensor  # (..., 1), 1 / ‖x‖; 0 for a zero row, which has no direction and passes no gradient
    centred: bool

    def backward_(self, grad: Tensor) -> Tensor:
        """d/dx = (g - u (u·g)) / ‖x‖, less its mean where the rows were centred. Overwrites and returns `grad`."""
        turn_(grad, self.unit).mul_(self.inverse)
        return grad.sub_(grad.mean(-1, keepdim=True)) if self.centred else grad


def turn_(grad: Tensor, unit: Tensor) -> Tensor:
    """g - u (u·g) for rows of both (..., d): what a gradient by a unit row can turn. Overwrites and returns `grad`."""
    return grad.addcmul_(unit, (grad * unit).sum(-1, keepdim=True), value=-1)


def inverse_lengths(x: Tensor) -> Tensor:
    """1 / ‖x‖ over the last dimension (..., 1), 0 for a zero row."""
    lengths = _lengths(x)
    return lengths.reciprocal().masked_fill_(lengths == 0, 0)


def _lengths(x: Tensor) -> Tensor:
    """‖x‖ over the last dimension (..., 1), NaN for a row whose square is not finite."""
    lengths = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return lengths.add_(lengths - lengths)


def directions(x: Tensor, centred: bool = False) -> Directions:
    """Rows of `x` (..., d) scaled to length one; centred first, a dot product of two is Pearson's correlation.

    Rows are shifted by their first entry before their mean, so that a constant row is exactly zero. NaN, inf and what
    overflows when squared come out as NaN.
    """
    if centred:
        return _of_shifted_(x - x[..., :1])
    lengths, inverse = _lengths_and_inverses(x)
    return Directions(x / lengths, inverse, False)


def centred_directions_(x: Tensor) -> Directions:
    """:func:`directions` of rows centred first, in their place."""
    return _of_shifted_(x.sub_(x[..., :1].clone()))


def _of_shifted_(x: Tensor) -> Directions:
    x.sub_(x.mean(-1, keepdim=True))
    lengths, inverse = _lengths_and_inverses(x)
    return Directions(x.div_(lengths), inverse, True)


def _lengths_and_inverses(x: Tensor) -> tuple[Tensor, Tensor]:
    """What rows (..., d) are divided by to be of length one, 1 for a zero row, and 1 / ‖x‖, 0 for one: (..., 1)."""
    lengths = _lengths(x)
    zero = lengths == 0
    lengths.masked_fill_(zero, 1)
    return lengths, lengths.reciprocal().masked_fill_(zero, 0)


class Classes(NamedTuple):
    """The classes of a batch, numbered from 0 in the order of their labels."""

    labels: Tensor  # (s,) int64, ascending; s is the number of classes, or n where only the device knows it
    index: Tensor  # (n,) int64, the place of each row's label in `labels`
    counts: Tensor  # (s,) int64, rows of each; 0 for places that stand for no class


def classes_of(y: Tensor, num_classes: int | None = None, numbered: bool = False) -> Classes:
    """The classes of labels y (n,), without waiting for a device.

    Labels known to lie in [0, num_classes), where these are so few or are to be `numbered`, number themselves: no label
    is sorted, and a class absent from the batch has a place too.
    """
    y = y.long()  # places are scattered by
    if num_classes is not None and (numbered or 4 * num_classes <= len(y)):
        labels = torch.arange(num_classes, device=y.device)
        return Classes(labels, y, y.new_zeros(num_classes).scatter_add_(0, y, torch.ones_like(y)))
    ordered, order = y.sort(stable=True)
    starts = torch.ones_like(y)
    starts[1:] = ordered[1:] != ordered[:-1]
    place = starts.cumsum(0) - 1
    slots = int(place[-1]) + 1 if y.is_cpu else len(y)
    index = torch.empty_like(y).scatter_(0, order, place)
    labels = ordered[-1:].repeat(slots).scatter_(0, place, ordered)
    counts = y.new_zeros(slots).scatter_add_(0, place, torch.ones_like(y))
    return Classes(labels, index, counts)
