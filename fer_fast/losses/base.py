"""What every loss module shares: its row in the registry, its reduction, its backend, and a state that has a version
and, where it counts, loads whole."""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import get_args

import torch
from torch import Tensor, nn

from .. import checks, functional
from ..checks import Empty, Reduction
from ..dispatch import BACKENDS, Backend
from ..functional.whole import Gradients, peers_of
from ..params import by_field
from ..registry import LossSpec, find
from ..suggest import one_of
from ..terms import Group, Peers


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


def no_weights(loss: nn.Module) -> ValueError:
    """What a loss that has no weights of rows answers to them."""
    return ValueError(f"sample_weights: {type(loss).__name__} does not sum over rows and takes none")


def _or_zero(forward: Callable) -> Callable:
    """A `forward` that does not run for a batch without rows where the loss has `empty="zero"`, and that names weights
    of rows which it has no place for."""
    names = list(signature(forward).parameters)[1:]

    @wraps(forward)
    def run(self, *args, **keywords):
        if "sample_weights" in keywords and "sample_weights" not in names:
            raise no_weights(self)
        if self.empty == "zero" and self._group is None:  # else it has a part in what others wait for
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


class OfGroup:
    """What has a process group."""

    _group: str | None = None  # its name: modules are copied

    @property
    def process_group(self) -> Group:
        """The processes whose rows together are the batch, None for this one alone."""
        if self._group is None:
            return None
        from ..distributed.collectives import group_of

        return group_of(self._group)

    @process_group.setter
    def process_group(self, group: Group) -> None:
        self._join(peers_of(group, "mean", type(self).__name__).group or None)

    def _join(self, group: str | None) -> None:
        self._group = group


class Loss(OfGroup, Versioned):
    """Base of all losses. A class with a `name` is that row of the registry.

    Its constructor takes the row's hyper-parameters one by one, which become its attributes, and the common keywords of
    this class's `__init__`. Where a class states `takes`, a NamedTuple, it takes its fields instead (a schedule, say).

    A batch without rows is an error, or with `empty="zero"` a loss of 0 (of (0,) where nothing is reduced) that moves
    nothing and whose backward gives features and parameters gradients of zeros: DDP waits for every process's.

    With a `process_group` the loss is that of all rows of all its processes (:mod:`fer_fast.distributed`), and
    `gradients` says what is done to those of all processes afterwards: DDP takes the "mean", others the "sum".

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
        self,
        *,
        params: tuple,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        empty: Empty = "error",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ):
        super().__init__()
        self.process_group, self.gradients = process_group, one_of(gradients, get_args(Gradients), "gradients")
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
        shared = {"process_group": self._group, "gradients": self.gradients}
        return {"reduction": self.reduction, "backend": self.backend, **shared}

    @property
    def peers(self) -> Peers:
        """The same for what a loss does beside its function."""
        return peers_of(self._group, self.gradients, self.name)

    def function(self, *tensors: Tensor | int | None, **keywords: Tensor | bool | None) -> Tensor:
        """The row's function of :mod:`fer_fast.functional` with this loss's settings."""
        return getattr(functional, self.row.function)(*tensors, **keywords, **self.params._asdict(), **self.common)

    @_or_zero
    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar, of features (n, d) and their labels (n,).

        Its equation, and shapes where they are others, stand with the class.

        Raises:
            ValueError: for what does not fit, by name.
        """
        return self.function(features, labels)

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
        if "process_group" in taken:
            shown["process_group"] = repr(self._group)  # its name
        for name, tensor in (self._parameters | self._buffers).items():
            if name in taken:
                shown[name] = " ".join(repr(tensor).split())
        return ", ".join(f"{name}={value}" for name, value in shown.items())


class WholeState(Versioned):
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
        faults, refused = [], self._refused(prefix, local_metadata)
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
        errors += [*refused, *[prefix + fault for fault in faults]]
        missing += absent
        if not (refused or faults or absent):
            super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)
            self.take_state()
