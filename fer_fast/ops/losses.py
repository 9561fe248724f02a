"""The operators of the losses: loss and gradients in one forward. What each computes stands with its engine; a body
only checks labels, where that waits for nothing."""

from collections.abc import Sequence

from torch import Tensor

from .. import checks
from ..terms import CenterTerm, Classifier, Draw, Peers, Setting
from .library import loss_operator, wants_gradient


@loss_operator(
    "class_table",
    differentiable=("x", "classifier_weight", "classifier_bias", "classifier_setting"),
    mutates=("auxiliary_centers",),
    labelled=True,
    weights="sample_weights",
)
def class_table(
    x: Tensor,
    y: Tensor,
    classifier: Classifier,
    auxiliary: CenterTerm,
    sample_weights: Tensor | None,
    soft_labels: Tensor | None,
    reduction: str,
    update: bool,
    peers: Peers,
) -> None:
    for table in (classifier.weight, auxiliary.centers):
        if table is not None:
            checks.label_range(y, len(table))
    for group_y in auxiliary.groups_y:
        checks.label_range(group_y, len(auxiliary.centers), "bank labels")


@loss_operator(
    "sharded_classifier",
    differentiable=("x", "classifier_weight", "classifier_bias", "classifier_setting"),
    weights="sample_weights",
    rows_meet=True,
    owned=("classifier_weight", "classifier_bias"),
)
def sharded_classifier(
    x: Tensor,
    y: Tensor,
    classifier: Classifier,
    num_classes: int,
    sample_weights: Tensor | None,
    reduction: str,
    draw: Draw,
    peers: Peers,
) -> None:
    checks.label_range(y, num_classes)


@loss_operator("ad_corre", differentiable=("e",), labelled=True, weights="sample_weights")
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
    peers: Peers,
) -> None:
    checks.label_range(y, num_classes)


@loss_operator("pairwise", differentiable=("x",), rows_meet=True)
def pairwise(
    x: Tensor,
    y: Tensor,
    class_difficulty: Tensor | None,
    epilogue: str,
    params: Sequence[float],
    mean: bool,
    peers: Peers,
) -> None:
    """Any label is a class of its own."""


@loss_operator("range_loss", differentiable=("x",), rows_meet=True)
def range_loss(x: Tensor, y: Tensor, k: int, alpha: float, beta: float, margin: float, peers: Peers) -> None:
    """Any label is a class of its own."""


@loss_operator("contrastive", differentiable=("z", "temperature_learnt"), weights="sample_weights", rows_meet=True)
def contrastive(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: Setting,
    mode: str,
    sample_weights: Tensor | None,
    reduction: str,
    peers: Peers,
) -> None:
    """Any label is a class of its own, but negative ones."""


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
) -> None:
    """Any label is a class of its own."""


def pair_losses(
    z: Tensor, y: Tensor, keys: Tensor, key_y: Tensor, own: Tensor | None, temperature: float, mode: str
) -> Tensor:
    """SupCon or NT-Xent against another tower, by `mode`. There are no kernels: tiles on every device."""
    given = (keys, None) if wants_gradient([keys]) else (None, keys)
    return pair_losses_(z, y, *given, key_y, own, temperature, mode, backend="blocked")
