"""Classifier losses as functions of the features, the labels and the class weights."""

from torch import Tensor

from .class_table import Term, joint_loss


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
    term = Term("softmax", {"weight": weight, "bias": bias, "class_weights": class_weights})
    return joint_loss(x, y, term, reduction=reduction, backend=backend)


def lmcl_loss(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    *,
    s: float = 30.0,
    m: float = 0.35,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """Cross-entropy of s·(cos θ_j - m·[j = y]); see :func:`fer_fast.reference.lmcl`.   x (n, d), weight (C, d)."""
    return joint_loss(x, y, Term("lmcl", {"weight": weight}, {"s": s, "m": m}), reduction=reduction, backend=backend)


def a_softmax_loss(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    *,
    m: int = 4,
    lambda_: float = 5.0,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """Cross-entropy with the target logit ‖x‖ (λ cos θ + ψ(θ)) / (1 + λ); see :func:`fer_fast.reference.a_softmax`."""
    term = Term("a-softmax", {"weight": weight}, {"m": m, "lambda_": lambda_})
    return joint_loss(x, y, term, reduction=reduction, backend=backend)


def l_softmax_loss(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    *,
    m: int = 4,
    lambda_: float = 5.0,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """As :func:`a_softmax_loss`, the class weights keeping their lengths; see :func:`fer_fast.reference.l_softmax`."""
    term = Term("l-softmax", {"weight": weight}, {"m": m, "lambda_": lambda_})
    return joint_loss(x, y, term, reduction=reduction, backend=backend)
