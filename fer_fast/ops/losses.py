"""The operators of the losses: loss and gradients in one forward. What each computes stands with its engine.

A function with `_` behind its name is an operator's signature, and checks labels where that waits for nothing.
"""

from collections.abc import Sequence

from torch import Tensor

from .. import checks
from ..kinds import Kind
from .by_row import by_row_operator
from .library import given_or_learnt, loss_operator, wants_gradient


def class_table_(
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    class_weights: Tensor | None,
    centers: Tensor | None,
    center_weights: Tensor | None,
    groups_x: Sequence[Tensor],
    groups_y: Sequence[Tensor],
    classifier: str,
    classifier_params: Sequence[float],
    auxiliary: str,
    auxiliary_params: Sequence[float],
    auxiliary_weight: float,
    mean: bool,
    update: bool,
    gradient: bool,
    sample_weights: Tensor | None,
    soft_labels: Tensor | None,
    label_smoothing: float,
    setting: Tensor | None,
    group_rows: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    for table in (weight, centers):
        if table is not None:
            checks.label_range(y, len(table))
    for group_y in groups_y:
        checks.label_range(group_y, len(centers), "bank labels")


_DIFFERENTIABLE = "x", "weight", "bias", "setting"
_class_table = loss_operator("class_table", _DIFFERENTIABLE, mutates=("centers",), labelled=True)(class_table_)
_class_table_by_row = by_row_operator(class_table_, "class_table", _DIFFERENTIABLE)


def class_table(
    x: Tensor,
    y: Tensor,
    classifier,
    auxiliary,
    auxiliary_weight: float,
    sample_weights: Tensor | None,
    soft_labels: Tensor | None,
    reduction: str,
    backend: str,
    kind: Kind | None,
) -> Tensor:
    """Loss of two terms (:class:`fer_fast.functional.Term`), either without a name where there is none; of a `kind` of
    call that says all but weight, backend, smoothing, whether centers move, and what has a gradient."""
    by_row, update, setting = reduction == "none", auxiliary.update, classifier.setting
    if by_row and update:
        before = auxiliary._replace(table=auxiliary.table.clone(), update=False)  # which the backward will read
        losses = class_table(
            x, y, classifier, before, auxiliary_weight, sample_weights, soft_labels, reduction, backend, None
        )
        nothing = classifier._replace(name="", table=None, bias=None, class_weights=None, params=())
        class_table(x.detach(), y, nothing, auxiliary, auxiliary_weight, sample_weights, None, "sum", backend, None)
        return losses
    args = (
        x,
        y,
        classifier.table,
        classifier.bias,
        classifier.class_weights,
        auxiliary.table,
        auxiliary.class_weights,
        [group_x.detach() for group_x, _ in auxiliary.groups],
        [group_y for _, group_y in auxiliary.groups],
        classifier.name,
        classifier.engine_params(),
        auxiliary.name,
        auxiliary.engine_params(),
        auxiliary_weight,
        reduction == "mean",
        update,
        wants_gradient(x, classifier.table, classifier.bias, setting),
        sample_weights,
        soft_labels,
        classifier.label_smoothing,
        setting,
        auxiliary.group_rows,
        backend,
    )
    return _class_table_by_row(*args) if by_row else _class_table(*args, kind=kind)


def ad_corre_(
    e: Tensor,
    y: Tensor,
    class_difficulty: Tensor | None,
    num_classes: int,
    fd: float,
    md: float,
    ed: float,
    mean: bool,
    gradient: bool,
    sample_weights: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    checks.label_range(y, num_classes)


_ad_corre = loss_operator("ad_corre", ("e",), labelled=True)(ad_corre_)
_ad_corre_by_row = by_row_operator(ad_corre_, "ad_corre", ("e",))


def ad_corre(
    e: Tensor,
    y: Tensor,
    class_difficulty: Tensor | None,
    num_classes: int,
    fd: float,
    md: float,
    ed: float,
    sample_weights: Tensor | None,
    reduction: str,
    backend: str,
    kind: Kind | None,
) -> Tensor:
    """fd · FD + md · MD + ed · ED, of a `kind` of call that says all but terms, backend and what has a gradient."""
    mean, gradient = reduction == "mean", wants_gradient(e)
    args = e, y, class_difficulty, num_classes, fd, md, ed, mean, gradient, sample_weights, backend
    return _ad_corre_by_row(*args) if reduction == "none" else _ad_corre(*args, kind=kind)


@loss_operator("pairwise", differentiable=("x",))
def pairwise_(
    x: Tensor,
    y: Tensor,
    class_difficulty: Tensor | None,
    epilogue: str,
    params: Sequence[float],
    mean: bool,
    gradient: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Any label is a class of its own."""


def pairwise(
    x: Tensor,
    y: Tensor,
    class_difficulty: Tensor | None,
    epilogue: str,
    params: Sequence[float],
    mean: bool,
    backend: str,
) -> Tensor:
    """A loss over all pairs of rows, named by its epilogue."""
    return pairwise_(x, y, class_difficulty, epilogue, params, mean, wants_gradient(x), backend)


@loss_operator("range_loss", differentiable=("x",))
def range_loss_(
    x: Tensor, y: Tensor, k: int, alpha: float, beta: float, margin: float, gradient: bool, backend: str
) -> tuple[Tensor, Tensor]:
    """Any label is a class of its own."""


def range_loss(x: Tensor, y: Tensor, k: int, alpha: float, beta: float, margin: float, backend: str) -> Tensor:
    """Range loss."""
    return range_loss_(x, y, k, alpha, beta, margin, wants_gradient(x), backend)


@loss_operator("contrastive", differentiable=("z", "learnt"))
def contrastive_(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: float,
    mode: str,
    mean: bool,
    gradient: bool,
    row_weights: Tensor | None,
    learnt: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Any label is a class of its own, but negative ones."""


def contrastive(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: float | Tensor,
    mode: str,
    mean: bool,
    row_weights: Tensor | None,
    backend: str,
) -> Tensor:
    """SelfCon, SupCon, ESC or ENSC, by `mode`."""
    temperature, learnt = given_or_learnt(temperature)
    gradient = wants_gradient(z, learnt)
    return contrastive_(z, y, bank_z, bank_y, temperature, mode, mean, gradient, row_weights, learnt, backend)


@loss_operator("pair_losses", differentiable=("z", "keys"))
def pair_losses_(
    z: Tensor,
    y: Tensor,
    keys: Tensor | None,
    bank_z: Tensor | None,
    key_y: Tensor,
    own: Tensor | None,
    temperature: float,
    mode: str,
    gradient: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Any label is a class of its own."""


def pair_losses(
    z: Tensor, y: Tensor, keys: Tensor, key_y: Tensor, own: Tensor | None, temperature: float, mode: str
) -> Tensor:
    """SupCon or NT-Xent against another tower, by `mode`. There are no kernels: tiles on every device."""
    given = (keys, None) if wants_gradient(keys) else (None, keys)
    return pair_losses_(z, y, *given, key_y, own, temperature, mode, wants_gradient(z, keys), "blocked")
