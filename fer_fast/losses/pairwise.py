"""Marginal and range loss: modules called as `loss(x, y)` with features x (n, d) and labels y (n,)."""

from torch import Tensor

from .. import checks, functional
from .base import Loss


class MarginalLoss(Loss):
    """1/(n²-n) Σ_{i≠j} [ξ - y_ij (θ - ‖x̂_i - x̂_j‖²)]₊; see :func:`fer_fast.reference.marginal`."""

    name = "marginal"

    def __init__(self, theta: float = 1.2, xi: float = 0.3, **common):
        super().__init__(**common)
        self.theta = checks.positive(theta, "theta", zero=True)
        self.xi = checks.positive(xi, "xi", zero=True)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return functional.marginal_loss(x, y, theta=self.theta, xi=self.xi, **self.common)


class RangeLoss(Loss):
    """α Σ_c harmonic mean of the k widest pairs of class c + β [M - nearest class means]₊.

    See :func:`fer_fast.reference.range_loss`. No term runs over samples: `reduction` changes nothing.
    """

    name = "range"

    def __init__(self, k: int = 2, alpha: float = 5e-5, beta: float = 1e-4, margin: float = 2e4, **common):
        super().__init__(**common)
        self.k = checks.at_least(k, 1, "k")
        self.alpha = checks.positive(alpha, "alpha", zero=True)
        self.beta = checks.positive(beta, "beta", zero=True)
        self.margin = checks.positive(margin, "margin", zero=True)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        params = {"k": self.k, "alpha": self.alpha, "beta": self.beta, "margin": self.margin}
        return functional.range_loss(x, y, **params, **self.common)
