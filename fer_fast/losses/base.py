"""What every loss module shares: its row in the registry, its reduction, its backend, and integers in its state."""

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from .. import checks, functional
from ..checks import Reduction
from ..dispatch import BACKENDS, Backend
from ..params import by_field
from ..registry import LossSpec, find
from ..suggest import one_of


class Loss(nn.Module):
    """Base of all losses. A class with a `name` is that row of the registry.

    Its constructor takes the row's hyper-parameters one by one, which become its attributes, and the common keywords of
    this class's `__init__`. Where a class states `takes`, a NamedTuple, it takes its fields instead (a schedule, say).
    """

    name: str
    row: LossSpec
    takes: type | None = None
    reduction: Reduction
    backend: Backend

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        if "name" in vars(cls):
            cls.row = find(cls.name)
            cls.__init__ = by_field(cls.takes or cls.row.params, positional=True, common=cls.shared)(cls.__init__)

    def __init__(self, *, params: tuple, reduction: Reduction = "mean", backend: Backend = "auto"):
        super().__init__()
        self.reduction = checks.reduction(reduction, self.row.reductions)
        self.backend = one_of(backend, BACKENDS, "backend")
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

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss, a scalar, of features or embeddings (n, d) and their labels (n,).

        Its equation, and shapes where they are others, stand with the class.

        Raises:
            ValueError: for what does not fit, by name.
        """
        return self.function(x, y)

    def extra_repr(self) -> str:
        shown = {k: v for k, v in vars(self).items() if not k.startswith("_") and k != "training"}
        return ", ".join(f"{k}={v!r}" for k, v in shown.items())


class HostState(nn.Module):
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
        faults = [
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
