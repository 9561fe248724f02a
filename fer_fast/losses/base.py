"""What every loss module shares: its row in the registry, its reduction, its backend, and state that loads whole."""

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


class WholeState(nn.Module):
    """A module that loads all of its state or none: a count beside the tensors of another would stay wrong."""

    def refuse_state(self, state: dict[str, Tensor]) -> None:
        """Raise `ValueError` for tensors, by name and of the right shapes, that this module cannot have."""

    def take_state(self) -> None:
        """Called when a state was loaded."""

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
        own = {name: t for name, t in self._parameters.items() if t is not None}
        own |= {name: t for name, t in self._buffers.items() if name not in self._non_persistent_buffers_set}
        given = {name: state_dict[prefix + name] for name in own if prefix + name in state_dict}
        absent = [prefix + name for name in own if name not in given]
        faults = []
        for name, t in given.items():
            if t.shape != own[name].shape:
                faults.append(f"{name}: shape {tuple(t.shape)} given, {tuple(own[name].shape)} expected")
            elif t.is_floating_point() != own[name].is_floating_point():
                faults.append(f"{name}: {t.dtype} given, {own[name].dtype} expected")
        if not faults and not absent and not any(t.is_meta for t in given.values()):
            try:
                self.refuse_state(given)
            except ValueError as fault:
                faults.append(str(fault))
        errors += [prefix + fault for fault in faults]
        missing += absent
        if not faults and not absent:
            super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)
            self.take_state()
