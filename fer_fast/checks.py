"""What every public loss asks of its arguments. A `ValueError` names the argument, what was given, what is allowed."""

import math
from operator import index
from typing import Literal

import torch
from torch import Tensor
from torch._C import _current_graph_task_id
from torch._C._functorch import get_interpreter_stack

from .replay import looked
from .terms import Share

REDUCTIONS = ("mean", "sum")
Reduction = Literal["mean", "sum", "none"]  # the last where a loss is a sum over rows
Empty = Literal["error", "zero"]  # what a batch without rows is
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64)


def features(x: Tensor, name: str, shape: str = "(n, d)", *, rows: bool = True) -> Tensor:
    """A non-empty floating-point tensor with as many dimensions as `shape` names; without `rows` it may lack them."""
    expected = shape.count(",") + 1
    dense(x, name, shape)
    floating(x.dtype, name)
    if x.ndim != expected:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(x.shape)}")
    if 0 in (x.shape if rows else (*x.shape[:-2], x.shape[-1])):
        raise ValueError(f"{name}: expected at least one row and one column, got shape {tuple(x.shape)}")
    return x


def dense(t: Tensor, name: str, shape: str) -> None:
    """A tensor whose every value lies in memory."""
    if not isinstance(t, Tensor):
        raise ValueError(f"{name}: expected a tensor {shape}, got {type(t).__name__}")
    if t.layout != torch.strided or t.is_nested:
        raise ValueError(f"{name}: expected a dense tensor {shape}, got {'nested' if t.is_nested else t.layout}")
    if t.is_meta:
        raise ValueError(f"{name}: expected a tensor {shape} with values, got one on the meta device")


def floating(dtype: torch.dtype, name: str) -> torch.dtype:
    """A dtype that features, tables and banks may have; the 8-bit ones are for storage."""
    if dtype not in FLOATS:
        raise ValueError(f"{name}: expected a dtype of {', '.join(map(str, FLOATS))}, got {dtype}")
    return dtype


def beside(t: Tensor, name: str, device: torch.device | None) -> None:
    """On the device of the features; None allows any."""
    if device is not None and t.device != device:
        raise ValueError(f"{name}: on {t.device}, but the features are on {device}")


def weight_range(w: Tensor, name: str = "sample_weights") -> None:
    """Refuse a weight that is negative or not finite where looking waits for no device, outside of a compiled graph."""
    if readable(w) and not torch.compiler.is_compiling() and w.numel():
        low, high = map(float, torch.aminmax(w))
        if not (low >= 0 and high < math.inf):
            raise ValueError(f"{name}: {low if not low >= 0 else high:g} given; allowed are finite values >= 0")


def constant(t: Tensor | None, name: str) -> None:
    """Refuse by name a tensor that no backend gives a gradient."""
    if t is not None and t.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name}: requires a gradient, which it does not get; give it detached")


def soft_labels(y: Tensor, count: int, num_classes: int, device: torch.device) -> Tensor:
    """Shares of every class (n, C)."""
    dense(y, "labels", "(n, C)")
    floating(y.dtype, "labels")
    if y.shape != (count, num_classes):
        raise ValueError(f"labels: expected shape ({count}, {num_classes}) of soft labels, got {tuple(y.shape)}")
    beside(y, "labels", device)
    return y


def labels(y: Tensor, count: int, device: torch.device | None, name: str = "labels") -> Tensor:
    """Integer labels (n,), widened by :func:`wide_labels`. Their range is checked by :func:`label_range`."""
    dense(y, name, "(n,)")
    if y.dtype not in INTEGERS:
        raise ValueError(f"{name}: expected an integer dtype, got {y.dtype}")
    if y.shape != (count,):
        raise ValueError(f"{name}: expected shape ({count},) to match the features, got {tuple(y.shape)}")
    beside(y, name, device)
    return wide_labels(y)


def wide_labels(y: Tensor) -> Tensor:
    """Labels as int64 or int32 as they come, widened where they are narrower."""
    return y if y.dtype in INTEGERS[:2] else y.to(torch.int32 if y.dtype.itemsize < 4 else torch.int64)


def readable(t: Tensor) -> bool:
    """Whether looking at values, as the caller is about to, waits for no device."""
    if t.is_cpu:
        looked()
    return t.is_cpu


def moves(what: str) -> None:
    """Refuse to move `what` in a forward pass that is not the only one of its step: activation checkpointing runs it
    again inside the backward, where it would move twice and give the gradient of what has moved."""
    if torch.compiler.is_compiling():
        return
    if _current_graph_task_id() != -1:
        raise RuntimeError(
            f"{what}: moved by the forward pass, which torch.utils.checkpoint runs a second time; call the loss outside"
        )
    if get_interpreter_stack():
        raise RuntimeError(f"{what}: cannot move under torch.func; call the loss in eval mode, or with update=False")


def label_range(y: Tensor, num_classes: int, name: str = "labels") -> None:
    """Refuse a label outside [0, C) where that costs nothing: on the CPU, outside of a compiled graph.

    On a GPU the check would wait for the device. There the Triton kernels see a bad label, make the loss NaN, and the
    next call raises; plain PyTorch indexing stops with a device-side assertion.
    """
    if readable(y) and not torch.compiler.is_compiling() and y.numel():
        low, high = map(int, torch.aminmax(y))
        if low < 0 or high >= num_classes:
            raise ValueError(f"{name}: class {low if low < 0 else high} is outside [0, {num_classes})")


def width(x: Tensor, name: str, table: Tensor, of: str) -> None:
    """Features (n, d) as wide as a table (C, d): they are blamed, which come anew with every call."""
    if x.shape[1] != table.shape[1]:
        raise ValueError(f"{name}: expected (n, {table.shape[1]}) to match {of}, got {tuple(x.shape)}")


def table(t: Tensor, name: str, feature_dim: int, device: torch.device | None, *, rows: bool = True) -> Tensor:
    """A per-class table (C, d) whose width is the features'; without `rows` it may lack them."""
    features(t, name, "(C, d)", rows=rows)
    if t.shape[1] != feature_dim:
        raise ValueError(f"{name}: expected (C, {feature_dim}) to match the features, got {tuple(t.shape)}")
    beside(t, name, device)
    return t


def block(t: Tensor, name: str, classes: Share) -> None:
    """The rows that a process has of a table."""
    own = classes.counts[classes.rank]
    if len(t) != own:
        where = f"rank {classes.rank} of {classes.size} has {own} of {sum(classes.counts)}, as torch.chunk cuts them"
        raise ValueError(f"{name}: {len(t)} classes given, but {where}")


def per_class(t: Tensor, name: str, count: int | None, device: torch.device | None) -> Tensor:
    """A floating-point value for each class (C,), or each row (n,); None allows any number of classes."""
    shape = f"({'C' if count is None else count},)"
    dense(t, name, shape)
    floating(t.dtype, name)
    if t.ndim != 1 or (count is not None and t.shape[0] != count):
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(t.shape)}")
    beside(t, name, device)
    return t


def class_weights(weights, num_classes: int) -> Tensor | None:
    """Class weights of a module, given as a tensor or a sequence: finite, not negative, one for each class."""
    if weights is None:
        return None
    given = isinstance(weights, Tensor)  # or its values are to be looked at, wherever modules are built
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    weights = weights.detach().to(dtype, copy=True) if given else torch.tensor(weights, dtype=dtype, device="cpu")
    per_class(weights, "class_weights", num_classes, None)
    bad = torch.nonzero(~torch.isfinite(weights) | (weights < 0)).flatten().tolist()
    if bad:
        raise ValueError(f"class_weights: {weights[bad[0]]:g} for class {bad[0]}; allowed are finite values >= 0")
    return weights if given else weights.to(device)


def number(value: Tensor | float, name: str) -> Tensor | float:
    """A number, given as one: no backend would give a tensor here a gradient."""
    if isinstance(value, Tensor) and value.requires_grad:
        raise ValueError(f"{name}: a tensor that requires a gradient is given, which it does not get; give a number")
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise ValueError(f"{name}: {value!r} given; expected a number")
    return value


def finite(value: float, name: str) -> float:
    """A finite number."""
    if not -math.inf < number(value, name) < math.inf:
        raise ValueError(f"{name}: {value!r} given; allowed are finite values")
    return float(value)


def learnable(value: Tensor | float, name: str) -> Tensor | float:
    """A finite number above zero, or a tensor () of one, which may require a gradient."""
    if not isinstance(value, Tensor):
        return positive(value, name)
    dense(value, name, "()")
    floating(value.dtype, name)
    if value.shape != ():
        raise ValueError(f"{name}: expected a number or a tensor of shape (), got {tuple(value.shape)}")
    if readable(value) and not torch.compiler.is_compiling():
        positive(float(value.detach()), name)
    return value


def fraction(value: float, name: str) -> float:
    """A number in [0, 1]."""
    if not 0 <= number(value, name) <= 1:
        raise ValueError(f"{name}: {value!r} given; allowed are values from 0 to 1")
    return float(value)


def positive(value: float, name: str, *, zero: bool = False) -> float:
    """A finite number above zero (or `zero` itself, where allowed)."""
    number(value, name)
    if not (0 <= value < float("inf")) or (value == 0 and not zero):
        raise ValueError(f"{name}: {value!r} given; allowed are finite values {'>=' if zero else '>'} 0")
    return float(value)


def angle(value: float, name: str) -> float:
    """An angle in radians, no more than half a turn."""
    number(value, name)
    if not 0 <= value <= math.pi:
        raise ValueError(f"{name}: {value!r} given; allowed are radians from 0 to π")
    return float(value)


def integer(value: int, name: str) -> int:
    """An integer of any size."""
    try:
        return index(None if isinstance(value, bool) else value)  # numpy's integers are some, too
    except TypeError:
        raise ValueError(f"{name}: {value!r} given; expected an integer") from None


def at_least(value: int, low: int, name: str) -> int:
    """An integer not below `low`."""
    whole = integer(value, name)
    if whole < low:
        raise ValueError(f"{name}: {value!r} given; allowed are integers >= {low}")
    return whole


def reduction(name: str, allowed: tuple[str, ...] = REDUCTIONS) -> str:
    if name not in allowed:
        raise ValueError(f"reduction: {name!r} given; allowed are {', '.join(allowed)}")
    return name


def unit_rows(x: Tensor, y: Tensor, name: str) -> None:
    """Rows (n, d) of length one but where labels are negative: looks, and so waits for the device."""
    lengths = torch.linalg.vector_norm(x.detach(), dim=1, dtype=torch.promote_types(x.dtype, torch.float32))
    wrong = torch.nonzero(((lengths - 1).abs() > 8 * torch.finfo(x.dtype).eps) & (y >= 0)).flatten().tolist()
    if wrong:
        raise ValueError(
            f"{name}: row {wrong[0]} has length {lengths[wrong[0]]:.4g}; rows of length one are expected, to which "
            "normalize=True scales them"
        )
