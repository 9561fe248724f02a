"""Classifier losses as functions of the features, the labels and the class weights: x (n, d), y (n,), weight (C, d)."""

from torch import Tensor

from .class_table import Term, joint_loss, loss_function

arcface_loss = loss_function("arcface")
lmcl_loss = loss_function("lmcl")
a_softmax_loss = loss_function("a-softmax")
l_softmax_loss = loss_function("l-softmax")


def softmax_loss(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    class_weights: Tensor | None = None,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """-Σ_i W_{y_i} log softmax(x_i Wᵀ + b)_{y_i}; see :func:`fer_fast.reference.softmax`.

    x (n, d), y (n,), weight (C, d), bias (C,), class_weights (C,). The mean divides by Σ_i W_{y_i}.
    """
    term = Term("softmax", weight, bias, class_weights)
    return joint_loss(x, y, term, reduction=reduction, backend=backend)
