"""Classifier losses and the center family: rows against a small per-class table, one or both in one pass."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from .. import checks, ops
from ..checks import Reduction
from ..dispatch import Backend, resolve
from ..params import by_field
from ..reference.variant import FeatureGradient
from ..registry import call, find
from ..replay import replayed
from ..terms import CenterTerm, Classifier, Draw, Group, Peers
from .whole import Gradients, WholeBatch, aside, peers_of

SWITCHES = {name: place for place, name in enumerate(get_args(FeatureGradient))}  # as the engine takes them


class Term(NamedTuple):
    """One loss of the class-table engine: its row in the registry and what it needs besides features and labels."""

    name: str
    table: Tensor | None = None  # class weights or centers (C, d)
    bias: Tensor | None = None
    class_weights: Tensor | None = None
    params: tuple[Tensor | float | int | str, ...] = ()  # the row's NamedTuple
    groups: Sequence[tuple[Tensor, Tensor]] = ()
    group_rows: Tensor | None = None  # (V,), how many rows of a group are real, the first ones; None for all
    update: bool = False
    label_smoothing: float = 0.0
    ignore_index: int | None = None
    num_classes: int | None = None  # of a classifier of which each process has a block of the classes: of all blocks
    draw: Draw = Draw()

    def as_classifier(self, setting: Tensor | None) -> Classifier:
        """As engines take it, of whose hyper-parameters the `setting` is a tensor."""
        if not self.name:
            return _NO_CLASSIFIER
        tables = self.table, self.bias, self.class_weights
        return Classifier(self.name, *tables, self.engine_params(), setting, self.label_smoothing)

    def as_center_term(self, factor: float) -> CenterTerm:
        """As engines take it, `factor` times."""
        if not self.name:
            return _NO_CENTERS
        groups = [rows.detach() for rows, _ in self.groups], [y for _, y in self.groups]
        params = self.engine_params()
        return CenterTerm(self.name, self.table, self.class_weights, params, factor, *groups, self.group_rows)

    def engine_params(self) -> tuple[float, ...]:
        """The hyper-parameters as engines take them: NaN stands for one that is a tensor."""
        return tuple([math.nan if isinstance(v, Tensor) else float(SWITCHES.get(v, v)) for v in self.params])

    @property
    def setting(self) -> Tensor | None:
        """The hyper-parameter that is a tensor, where one is."""
        for value in self.params:
            if isinstance(value, Tensor):
                return value
        return None

    def reference(self, x: Tensor, y: Tensor, sample_weights: Tensor | None, reduction: str) -> Tensor:
        """The loss in plain PyTorch, its centers moved afterwards."""
        if self.update and torch.compiler.is_compiling():
            # The compiled backward would recompute from the centers as they are after the move.
            raise ValueError('update: backend="reference" cannot move centers inside torch.compile; the others can')
        if not y.is_floating_point():
            checks.label_range(y, len(self.table))
        groups = self.groups
        if self.group_rows is not None:  # waits for the device, as the plain formula may
            groups = [(x[:r], y[:r]) for (x, y), r in zip(groups, self.group_rows.tolist(), strict=True) if r]
        for _, group_y in groups:
            checks.label_range(group_y, len(self.table), "bank labels")
        spec = find(self.name)
        given = {"weight": self.table, "centers": self.table, "bias": self.bias, "class_weights": self.class_weights}
        given |= dict(zip(spec.params._fields, self.params, strict=True))
        given |= {"sample_weights": sample_weights, "label_smoothing": self.label_smoothing}
        if groups:
            given["groups"] = groups
        loss = call(spec.reference, x=x, y=y, reduction=reduction, **given)
        if self.update:
            with torch.no_grad():
                self.table.copy_(call(spec.update, x=x, y=y, **given))
        return loss


_ABSENT, _NO_CLASSIFIER, _NO_CENTERS = Term(""), Classifier(), CenterTerm()


@replayed
def joint_loss(
    features: Tensor,
    labels: Tensor,
    classifier: Term | None = None,
    auxiliary: Term | None = None,
    weight: float = 1.0,
    *,
    sample_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor:
    """classifier(x, y) + weight · auxiliary(x, y), either left out, of features x (n, d) and labels y (n,).

    One pass over the features gives the loss, all gradients and the moved centers. Each term is averaged (or summed)
    as it is alone, and so are sample_weights (n,), finite and >= 0, which multiply the rows in both and in the move of
    the centers: a row of weight 0 is absent, whatever it holds, as is one whose label is the classifier's
    `ignore_index`. `reduction="none"` gives the losses of the rows (n,); its backward goes over them once more.
    """
    x, y = features, labels
    classifier, auxiliary = classifier or _ABSENT, auxiliary or _ABSENT
    setting, ignored = classifier.setting, classifier.ignore_index
    peers = peers_of(process_group, gradients, classifier.name or auxiliary.name)
    asked = not peers.group, reduction, sample_weights, setting, ignored, auxiliary.groups or None, auxiliary.group_rows
    classes, of_both = classifier.num_classes, (classifier[:4], auxiliary[:4])
    if classes is not None and auxiliary.name:
        raise ValueError(f"classifier: sharded by class, it shares no pass with {auxiliary.name} loss; add the two")
    _check(x, y, *asked, classes, *of_both)
    for tensor, name in (
        (y, "labels"),
        (sample_weights, "sample_weights"),
        (classifier.class_weights, "class_weights"),
        (auxiliary.class_weights, "class_weights"),
        (auxiliary.table, "centers"),
    ):
        checks.constant(tensor, name)
    if sample_weights is not None:
        checks.weight_range(sample_weights)
    soft = y if y.is_floating_point() else None
    if soft is None:
        y = checks.wide_labels(y)
    if ignored is not None:
        y, sample_weights = leave_out(y, ignored, sample_weights)
    if auxiliary.update:
        checks.moves("centers")
    if auxiliary.groups:
        groups = [(rows, checks.wide_labels(group_y)) for rows, group_y in auxiliary.groups]
        auxiliary = auxiliary._replace(groups=groups)
    backend = resolve(backend, x.device)
    if backend == "reference":
        if classifier.draw.share < 1:
            raise ValueError('negative_share: backend="reference" takes all classes; the others draw some')
        if peers.group:
            return _of_whole_batch(x, y, classifier, auxiliary, weight, sample_weights, reduction, peers)
        return _reference(x, y, classifier, auxiliary, weight, sample_weights, reduction)
    if classes is not None:
        if sample_weights is None:  # which tell rows from what they are filled up with
            sample_weights = torch.ones(y.shape, dtype=torch.float32, device=x.device)
        sharded = classifier.as_classifier(setting), classes, sample_weights, reduction, classifier.draw, peers
        return ops.sharded_classifier(x, y, *sharded, backend="blocked")
    if soft is not None:
        y = soft.argmax(1)
    terms = classifier.as_classifier(setting), auxiliary.as_center_term(checks.finite(weight, "weight"))
    return ops.class_table(x, y, *terms, sample_weights, soft, reduction, auxiliary.update, peers, backend=backend)


def _reference(
    x: Tensor,
    y: Tensor,
    classifier: Term,
    auxiliary: Term,
    weight: float,
    sample_weights: Tensor | None,
    reduction: str,
) -> Tensor:
    loss = classifier.reference(x, y, sample_weights, reduction) if classifier.name else 0
    return loss + weight * auxiliary.reference(x, y, sample_weights, reduction) if auxiliary.name else loss


@aside
def _of_whole_batch(
    x: Tensor,
    y: Tensor,
    classifier: Term,
    auxiliary: Term,
    weight: float,
    sample_weights: Tensor | None,
    reduction: str,
    peers: Peers,
) -> Tensor:
    """:func:`_reference` of the rows of all processes."""
    sharded = classifier.num_classes is not None
    fixed = classifier._replace(table=None, bias=None) if sharded else classifier  # of a block the rows differ
    rows = {"x": x, "y": y, "sample_weights": sample_weights}
    batch = WholeBatch(peers, len(x), **rows, classifier=fixed, auxiliary=auxiliary, reduction=reduction)
    of_classes = batch.parameter if classifier.num_classes is None else partial(batch.table, classifier.num_classes)
    classifier = classifier._replace(
        table=of_classes(classifier.table),
        bias=of_classes(classifier.bias),
        params=tuple(map(batch.parameter, classifier.params)),
    )
    rows = batch.rows(x), batch.rows(y), classifier, auxiliary, weight, batch.rows(sample_weights)
    return batch.loss(_reference(*rows, reduction), reduction)


def all_classes(num_classes: int | None) -> int | None:
    """Of a table of which each process has a block, None for one that every process has."""
    return None if num_classes is None else checks.at_least(num_classes, 1, "num_classes")


def leave_out(y: Tensor, ignore_index: int, sample_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Labels and weights (n,) with which the rows labelled `ignore_index` are absent."""
    ignored = y == ignore_index
    if sample_weights is None:
        return y.masked_fill(ignored, 0), (~ignored).to(torch.float32)
    return y.masked_fill(ignored, 0), sample_weights.masked_fill(ignored, 0)


def _check(
    x: Tensor,
    y: Tensor,
    needs_rows: bool,
    reduction: str,
    sample_weights: Tensor | None,
    setting: Tensor | None,
    ignore_index: int | None,
    groups: Sequence | None,
    group_rows: Tensor | None,
    num_classes: int | None,
    *terms: Sequence[str | Tensor | None],
) -> None:
    """That features, labels, weights of rows, MVA's groups and two terms fit each other, of each term its name, table,
    bias and class weights; `num_classes` are those of a table of which this is a block."""
    checks.features(x, "features", rows=needs_rows)
    (classifier, weight, *_), (auxiliary, centers, *_) = terms
    sharded = num_classes is not None
    if classifier and isinstance(y, Tensor) and y.ndim == 2 and y.is_floating_point():
        if auxiliary or ignore_index is not None or sharded:
            what = f"{auxiliary} loss takes one class a row" if auxiliary else "ignore_index is of hard labels"
            what = f"{classifier} loss sharded by class takes one class a row" if sharded else what
            raise ValueError(f"labels: expected classes (n,), for {what}; got soft labels {tuple(y.shape)}")
        checks.features(weight, "weight", "(C, d)")
        checks.soft_labels(y, x.shape[0], weight.shape[0], x.device)
    else:
        checks.labels(y, x.shape[0], x.device)
    for name in filter(None, (classifier, auxiliary)):
        checks.reduction(reduction, find(name).reductions)
    if sample_weights is not None:
        checks.per_class(sample_weights, "sample_weights", x.shape[0], x.device)
    if setting is not None:
        checks.beside(setting, f"hyper-parameter of {classifier}", x.device)
    for rows, group_y in groups or ():
        checks.table(rows, "bank features", x.shape[1], x.device)
        checks.labels(group_y, rows.shape[0], x.device, "bank labels")
    for place, (name, table, bias, class_weights) in zip(("weight", "centers"), terms, strict=True):
        if name:
            checks.features(table, place, "(C, d)", rows=not sharded)
            checks.width(x, "features", table, place)
            checks.beside(table, place, x.device)
            for of, tensor, count in (("bias", bias, None), ("class_weights", class_weights, num_classes)):
                if tensor is not None:
                    checks.per_class(tensor, of, len(table) if count is None else count, x.device)
    if classifier and auxiliary and len(weight) != len(centers):
        raise ValueError(f"centers: {len(centers)} classes, but weight has {len(weight)}")


def loss_function(name: str) -> Callable[..., Tensor]:
    """The function of a loss that needs features, labels and its table alone; its docstring is the formula's."""
    row = find(name)

    def classifier(
        features: Tensor,
        labels: Tensor,
        weight: Tensor,
        *,
        params,
        sample_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
        num_classes: int | None = None,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ) -> Tensor:
        smoothing = checks.fraction(label_smoothing, "label_smoothing")
        ignored = None if ignore_index is None else checks.integer(ignore_index, "ignore_index")
        of_rows = {"label_smoothing": smoothing, "ignore_index": ignored}
        term = Term(name, weight, params=params, num_classes=all_classes(num_classes), **of_rows)
        return joint_loss(
            features,
            labels,
            term,
            sample_weights=sample_weights,
            reduction=reduction,
            backend=backend,
            process_group=process_group,
            gradients=gradients,
        )

    def center(
        features: Tensor,
        labels: Tensor,
        centers: Tensor,
        *,
        params,
        update: bool = False,
        sample_weights: Tensor | None = None,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
        process_group: Group = None,
        gradients: Gradients = "mean",
    ) -> Tensor:
        term = Term(name, centers, params=params, update=update)
        return joint_loss(
            features,
            labels,
            auxiliary=term,
            sample_weights=sample_weights,
            reduction=reduction,
            backend=backend,
            process_group=process_group,
            gradients=gradients,
        )

    function = {"classifier": classifier, "center": center}[row.family]
    function.__name__ = function.__qualname__ = row.function
    function.__module__, function.__doc__ = __package__, row.reference.__doc__
    return replayed(by_field(row.params)(function))
