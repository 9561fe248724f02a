"""What every loss module shares: its row in the registry, its reduction, its backend, the version of its state, and
integers in it."""

from collections.abc import Callable, Hashable
from functools import wraps
from inspect import signature
from typing import get_args

import torch
from torch import Tensor, nn

from .. import checks, functional
from ..checks import Empty, Reduction
from ..dispatch import BACKENDS, Backend
from ..params import by_field
from ..registry import LossSpec, find
from ..suggest import one_of


def _as_signed(init: Callable, name: str) -> Callable:
    """A constructor that says by the name of its class what it takes, where it is given something else."""
    signed = signature(init)

    @wraps(init)
    def bound(*args, **keywords):
        try:
            signed.bind(*args, **keywords)
        except TypeError as error:
            places = [p.name for p in signed.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
            names = [p.name for p in signed.parameters.values() if p.kind is p.KEYWORD_ONLY]
            raise TypeError(f"{name}: {error}; it takes ({', '.join([*places, '*', *names])})") from None
        init(*args, **keywords)

    return bound


def _or_zero(forward: Callable) -> Callable:
    """A `forward` that does not run for a batch without rows where the loss has `empty="zero"`."""
    names = list(signature(forward).parameters)[1:]

    @wraps(forward)
    def run(self, *args, **keywords):
        if self.empty == "zero":
            batch = dict(zip(names, args, strict=False)) | keywords
            features, labels = batch.get(names[0]), batch.get(names[1])
            if self.without_rows(features, labels):
                return self._zero(features)
        return forward(self, *args, **keywords)

    return run


class Versioned(nn.Module):
    """A module whose `state_dict` carries the version of what is in it, in PyTorch's own metadata."""

    _version = 2  # since which `class_weights` are in it

    def _refused(self, prefix: str, local_metadata: dict) -> list[str]:
        """What is wrong with the version of a state; files that keep no metadata have none."""
        version = local_metadata.get("version") or 0
        if version <= self._version:
            return []
        name = f"{prefix.removesuffix('.')}: " if prefix else ""
        return [
            f"{name}state of version {version} of {type(self).__name__}; this fer-fast reads up to {self._version}, "
            "and a later one is needed"
        ]

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
        faults = self._refused(prefix, local_metadata)
        errors += faults
        if not faults:
            weights = self._buffers.get("class_weights")
            present = {} if weights is None else {f"{prefix}class_weights": weights}
            super()._load_from_state_dict(
                present | state_dict, prefix, local_metadata, strict, missing, unexpected, errors
            )


class Loss(Versioned):
    """Base of all losses. A class with a `name` is that row of the registry.

    Its constructor takes the row's hyper-parameters one by one, which become its attributes, and the common keywords of
    this class's `__init__`. Where a class states `takes`, a NamedTuple, it takes its fields instead (a schedule, say).

    A batch without rows is an error, or with `empty="zero"` a loss of 0 (of (0,) where nothing is reduced) that moves
    nothing and whose backward gives features and parameters gradients of zeros: DDP waits for every process's.

    `state_dict` carries a version. An older state is read, as is one without (safetensors keep none): `class_weights`
    that it lacks stay as they are. A later one is refused by name, and nothing of it is loaded.
    """

    name: str
    row: LossSpec
    takes: type | None = None
    reduction: Reduction
    backend: Backend
    empty: Empty

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        if "name" in vars(cls):
            cls.row = find(cls.name)
            fields = by_field(cls.takes or cls.row.params, positional=True, common=cls.shared)
            cls.__init__ = _as_signed(fields(cls.__init__), cls.__name__)
        if "forward" in vars(cls):
            cls.forward = _or_zero(cls.forward)

    def __init__(
        self, *, params: tuple, reduction: Reduction = "mean", backend: Backend = "auto", empty: Empty = "error"
    ):
        super().__init__()
        self.reduction = checks.reduction(reduction, self.row.reductions)
        self.backend = one_of(backend, BACKENDS, "backend")
        self.empty = one_of(empty, get_args(Empty), "empty")
        for name, value in params._asdict().items():
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    shared = __init__  # whose keywords those of a class's own `**common` are

    @property
    def params(self) -> tuple:
        """The row's hyper-parameters as they are now, a NamedTuple."""
        kind = self.row.params
        return kind(*[getattr(self, name) for name in kind._fields])

    @property
    def common(self) -> dict[str, str]:
        """The keywords every function of :mod:`fer_fast.functional` takes."""
        return {"reduction": self.reduction, "backend": self.backend}

    def function(self, *tensors: Tensor | int | None, **keywords: Tensor | bool | None) -> Tensor:
        """The row's function of :mod:`fer_fast.functional` with this loss's settings."""
        return getattr(functional, self.row.function)(*tensors, **keywords, **self.params._asdict(), **self.common)

    @_or_zero
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss, a scalar, of features or embeddings (n, d) and their labels (n,).

        Its equation, and shapes where they are others, stand with the class.

        Raises:
            ValueError: for what does not fit, by name.
        """
        return self.function(x, y)

    def without_rows(self, features: Tensor, labels: Tensor | None = None) -> bool:
        """Whether a batch is one of no rows, and right but for that."""
        place = int(self.row.family == "correlation")  # of the dimension that counts rows
        if not (isinstance(features, Tensor) and features.ndim == place + 2 and features.shape[place] == 0):
            return False
        *before, _, width = features.shape
        return (
            features.dtype in checks.FLOATS
            and 0 not in (*before, width)
            and width == getattr(self, "feature_dim", width)
            and (labels is None or (isinstance(labels, Tensor) and labels.shape[:1] == (0,)))
        )

    def _zero(self, features: Tensor) -> Tensor:
        """The loss of no rows, on the graph of the features and of every tensor of this loss that is learnt."""
        dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
        learnt = [t for t in (*self.parameters(), *self.buffers()) if t.requires_grad]
        loss = sum([t.flatten()[:0].sum(dtype=dtype) for t in (features, *learnt)])  # of nothing, whatever they hold
        return loss.expand(0) if self.reduction == "none" else loss

    def extra_repr(self) -> str:
        taken = signature(type(self)).parameters
        shown = {k: repr(v) for k, v in vars(self).items() if not k.startswith("_") and k != "training"}
        for name, tensor in (self._parameters | self._buffers).items():
            if name in taken:
                shown[name] = " ".join(repr(tensor).split())
        return ", ".join(f"{name}={value}" for name, value in shown.items())


class HostState(Versioned):
    """A module some of whose state is plain integers on the host, kept in `state_dict` as one int64 tensor.

    Integers on the host steer slices and schedules without asking the device; as a tensor they travel through
    safetensors like everything else. Subclasses give `host_state` and take it back.
    """

    @property
    def host_state(self) -> list[int]:
        raise NotImplementedError

    @host_state.setter
    def host_state(self, values: list[int]) -> None:
        raise NotImplementedError

    @property
    def replay_key(self) -> Hashable:
        """What of it the kernels of a step depend on: a step can be replayed from the CUDA graph of another step of the
        same key. All of it, unless a subclass knows that less will do."""
        return tuple(self.host_state)

    def replayed(self, rows: int) -> None:
        """Count a batch of `rows` whose step was replayed, which the host did not see."""

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "host_state"] = torch.tensor(self.host_state, dtype=torch.int64)

    def refuse_host_state(self, values: list[int]) -> None:
        """Raise `ValueError` for integers that this module cannot have."""

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
        """All of the state or none: a count that is not that of its tensors would be wrong from then on."""
        values: Tensor | None = state_dict.get(prefix + "host_state")
        rest = {key: value for key, value in state_dict.items() if key != prefix + "host_state"}
        own = {prefix + name: t for name, t in self._parameters.items() if t is not None}
        own |= {prefix + n: t for n, t in self._buffers.items() if n not in self._non_persistent_buffers_set}
        absent = [key for key in own if key not in rest] + [prefix + "host_state"] * (values is None)
        faults = self._refused(prefix, local_metadata) + [
            f"{key}: shape {tuple(rest[key].shape)} given, {tuple(t.shape)} expected"
            for key, t in own.items()
            if key in rest and rest[key].shape != t.shape
        ]
        if values is not None:
            try:
                if values.ndim != 1 or values.is_floating_point():
                    raise ValueError(f"expected integers (k,), got {values.dtype} {tuple(values.shape)}")
                self.refuse_host_state(values.tolist())
            except ValueError as fault:
                faults.append(f"{prefix}host_state: {fault}")
        errors += faults
        missing += absent if strict else []
        if faults or (absent and strict):
            return
        super()._load_from_state_dict(rest, prefix, local_metadata, strict, missing, unexpected, errors)
        if not absent:
            self.host_state = values.tolist()
