"""Classifier losses and the center family: rows against a small per-class table, one or both in one pass."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from .. import checks, ops
from ..dispatch import resolve
from ..kinds import once_a_kind
from ..params import by_field
from ..reference.variant import FeatureGradient
from ..registry import call, find

SWITCHES = {name: place for place, name in enumerate(get_args(FeatureGradient))}  # as the engine takes them


class Term(NamedTuple):
    """One loss of the class-table engine: its row in the registry and what it needs besides features and labels."""

    name: str
    table: Tensor | None = None  # class weights or centers (C, d)
    bias: Tensor | None = None
    class_weights: Tensor | None = None
    params: tuple[float | int | str, ...] = ()  # the row's NamedTuple
    groups: Sequence[tuple[Tensor, Tensor]] = ()
    update: bool = False

    def engine_params(self) -> tuple[float, ...]:
        """The hyper-parameters as engines take them."""
        return tuple([float(SWITCHES.get(value, value)) for value in self.params])

    def reference(self, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        """The loss in plain PyTorch, its centers moved afterwards."""
        if self.update and torch.compiler.is_compiling():
            # The compiled backward would recompute from the centers as they are after the move.
            raise ValueError('update: backend="reference" cannot move centers inside torch.compile; the others can')
        checks.label_range(y, len(self.table))
        for _, group_y in self.groups:
            checks.label_range(group_y, len(self.table), "bank labels")
        spec = find(self.name)
        given = {"weight": self.table, "centers": self.table, "bias": self.bias, "class_weights": self.class_weights}
        given |= dict(zip(spec.params._fields, self.params, strict=True))
        if self.groups:
            given["groups"] = self.groups
        loss = call(spec.reference, x=x, y=y, reduction=reduction, **given)
        if self.update:
            with torch.no_grad():
                self.table.copy_(call(spec.update, x=x, y=y, **given))
        return loss


_ABSENT = Term("")


def joint_loss(
    x: Tensor,
    y: Tensor,
    classifier: Term | None = None,
    auxiliary: Term | None = None,
    weight: float = 1.0,
    *,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """classifier(x, y) + weight · auxiliary(x, y), either left out, in one pass over the features x (n, d).

    One read of the features gives the loss, all gradients and the moved centers. Each term is averaged (or summed)
    as it is alone.
    """
    classifier, auxiliary = classifier or _ABSENT, auxiliary or _ABSENT
    kind = _check(x, y, reduction, auxiliary.groups or None, *classifier[:4], *auxiliary[:4])
    y = checks.wide_labels(y)
    if auxiliary.update:
        checks.moves("centers")
    if auxiliary.groups:
        groups = [(rows, checks.wide_labels(group_y)) for rows, group_y in auxiliary.groups]
        auxiliary = auxiliary._replace(groups=groups)
    backend = resolve(backend, x.device)
    if backend != "reference":
        return ops.class_table(x, y, classifier, auxiliary, float(weight), reduction == "mean", backend, kind)
    loss = classifier.reference(x, y, reduction) if classifier.name else 0
    return loss + weight * auxiliary.reference(x, y, reduction) if auxiliary.name else loss


@once_a_kind
def _check(x: Tensor, y: Tensor, reduction: str, groups: Sequence | None, *terms: str | Tensor | None) -> None:
    """That features, labels, MVA's groups and two terms fit each other, of each its name, table, bias and class
    weights."""
    checks.features(x, "features")
    checks.labels(y, x.shape[0], x.device)
    checks.reduction(reduction)
    for rows, group_y in groups or ():
        checks.table(rows, "bank features", x.shape[1], x.device)
        checks.labels(group_y, rows.shape[0], x.device, "bank labels")
    for place, (name, table, bias, class_weights) in zip(("weight", "centers"), (terms[:4], terms[4:]), strict=True):
        if name:
            checks.table(table, place, x.shape[1], x.device)
            for of, tensor in (("bias", bias), ("class_weights", class_weights)):
                if tensor is not None:
                    checks.per_class(tensor, of, len(table), x.device)


def loss_function(name: str) -> Callable[..., Tensor]:
    """The function of a loss that needs x, y and its table alone; its docstring is the formula's."""
    row = find(name)

    def classifier(
        x: Tensor, y: Tensor, weight: Tensor, *, params, reduction: str = "mean", backend: str = "auto"
    ) -> Tensor:
        return joint_loss(x, y, Term(name, weight, params=params), reduction=reduction, backend=backend)

    def center(
        x: Tensor,
        y: Tensor,
        centers: Tensor,
        *,
        params,
        update: bool = False,
        reduction: str = "mean",
        backend: str = "auto",
    ) -> Tensor:
        term = Term(name, centers, params=params, update=update)
        return joint_loss(x, y, auxiliary=term, reduction=reduction, backend=backend)

    function = {"classifier": classifier, "center": center}[row.family]
    function.__name__ = function.__qualname__ = row.function
    function.__module__, function.__doc__ = __package__, row.reference.__doc__
    return by_field(row.params)(function)
