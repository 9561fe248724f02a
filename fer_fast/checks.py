"""What every public loss asks of its arguments. A `ValueError` names the argument, what was given, what is allowed."""

import torch
from torch import Tensor

REDUCTIONS = ("mean", "sum")


def features(x: Tensor, name: str, shape: str = "(n, d)") -> Tensor:
    """A non-empty floating-point tensor with as many dimensions as `shape` names."""
    expected = shape.count(",") + 1
    if not isinstance(x, Tensor):
        raise ValueError(f"{name}: expected a tensor {shape}, got {type(x).__name__}")
    if not x.dtype.is_floating_point:
        raise ValueError(f"{name}: expected a floating-point dtype, got {x.dtype}")
    if x.ndim != expected:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(x.shape)}")
    if 0 in x.shape:
        raise ValueError(f"{name}: expected at least one row and one column, got shape {tuple(x.shape)}")
    return x


def labels(y: Tensor, count: int, name: str = "labels") -> Tensor:
    """Integer labels (n,), as int64. Their range is checked by :func:`label_range`."""
    if not isinstance(y, Tensor):
        raise ValueError(f"{name}: expected a tensor (n,), got {type(y).__name__}")
    if y.dtype.is_floating_point or y.dtype.is_complex or y.dtype == torch.bool:
        raise ValueError(f"{name}: expected an integer dtype, got {y.dtype}")
    if y.shape != (count,):
        raise ValueError(f"{name}: expected shape ({count},) to match the features, got {tuple(y.shape)}")
    return y.long()


def label_range(y: Tensor, num_classes: int, name: str = "labels") -> None:
    """Refuse a label outside [0, C) where that costs nothing: on the CPU, outside of a compiled graph.

    On a GPU the check would wait for the device. There the Triton kernels see a bad label, make the loss NaN, and the
    next call raises; plain PyTorch indexing stops with a device-side assertion.
    """
    if y.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= num_classes:
            raise ValueError(f"{name}: class {low if low < 0 else high} is outside [0, {num_classes})")


def table(t: Tensor, name: str, feature_dim: int) -> Tensor:
    """A per-class table (C, d) whose width is the features'."""
    features(t, name, "(C, d)")
    if t.shape[1] != feature_dim:
        raise ValueError(f"{name}: expected (C, {feature_dim}) to match the features, got {tuple(t.shape)}")
    return t


def per_class(t: Tensor, name: str, num_classes: int) -> Tensor:
    """A floating-point value for each class, (C,)."""
    if not isinstance(t, Tensor) or not t.dtype.is_floating_point or t.shape != (num_classes,):
        given = f"{t.dtype} {tuple(t.shape)}" if isinstance(t, Tensor) else type(t).__name__
        raise ValueError(f"{name}: expected a floating-point tensor ({num_classes},), got {given}")
    return t


def class_weights(weights, num_classes: int) -> Tensor | None:
    """Class weights of a module, given as a tensor or a sequence: finite, not negative, one for each class."""
    if weights is None:
        return None
    weights = torch.as_tensor(weights, dtype=torch.get_default_dtype()).detach().clone()
    per_class(weights, "class_weights", num_classes)
    bad = torch.nonzero(~torch.isfinite(weights) | (weights < 0)).flatten().tolist()
    if bad:
        raise ValueError(f"class_weights: {weights[bad[0]]:g} for class {bad[0]}; allowed are finite values >= 0")
    return weights


def positive(value: float, name: str, *, zero: bool = False) -> float:
    """A finite number above zero (or `zero` itself, where allowed)."""
    if not (0 <= value < float("inf")) or (value == 0 and not zero):
        raise ValueError(f"{name}: {value!r} given; allowed are finite values {'>=' if zero else '>'} 0")
    return float(value)


def at_least(value: int, low: int, name: str) -> int:
    """An integer not below `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name}: {value!r} given; allowed are integers >= {low}")
    return value


def reduction(name: str) -> str:
    if name not in REDUCTIONS:
        raise ValueError(f"reduction: {name!r} given; allowed are {', '.join(REDUCTIONS)}")
    return name
