"""Classifier losses as functions of the features, the labels and the class weights (C, d).

Labels may also be soft, shares of every class (n, C). `label_smoothing` as in PyTorch's cross_entropy. Rows labelled
`ignore_index` are absent; None, the default, looks for none. `sample_weights`: see :func:`joint_loss`.

With `num_classes` the weight and bias are the block that this process has of so many classes, cut among the processes
of the group as `torch.chunk` does, and `class_weights` are of all classes. Each process gets all of its block's
gradient, whatever is done to `gradients` of others: nothing may average or sum it.
"""

from torch import Tensor

from .. import checks
from ..checks import Reduction
from ..dispatch import Backend
from ..replay import replayed
from ..terms import Group
from .class_table import Term, all_classes, joint_loss, loss_function
from .whole import Gradients

arcface_loss = loss_function("arcface")
lmcl_loss = loss_function("lmcl")
a_softmax_loss = loss_function("a-softmax")
l_softmax_loss = loss_function("l-softmax")


@replayed
def softmax_loss(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    class_weights: Tensor | None = None,
    sample_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    num_classes: int | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
    process_group: Group = None,
    gradients: Gradients = "mean",
) -> Tensor:
    """-Σ_i W_{y_i} log softmax(x_i wᵀ + b)_{y_i}; see :func:`fer_fast.reference.softmax`.

    features x (n, d), labels y (n,) or (n, C), weight w (C, d), bias b (C,), class_weights W (C,). The mean
    divides by Σ_i W_{y_i}.
    """
    smoothing = checks.fraction(label_smoothing, "label_smoothing")
    of_rows = {"label_smoothing": smoothing, "ignore_index": ignore_index}
    term = Term("softmax", weight, bias, class_weights, num_classes=all_classes(num_classes), **of_rows)
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
