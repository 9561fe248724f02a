"""The losses that meet rows with a table of classes, in the groups that every engine takes them in."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Classifier(NamedTuple):
    """A classifier, "" for none."""

    name: str = ""
    weight: Tensor | None = None  # (C, d)
    bias: Tensor | None = None  # (C,)
    class_weights: Tensor | None = None  # (C,)
    params: Sequence[float] = ()  # its hyper-parameters; NaN stands for the one that is `setting`
    setting: Tensor | None = None  # (), which gets a gradient
    label_smoothing: float = 0.0


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
