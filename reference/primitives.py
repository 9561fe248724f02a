"""What every reference loss is built from: directions, class sums, distances, correlations, log-denominators."""

import torch
from torch import Tensor


def accumulate(x: Tensor) -> Tensor:
    """`x` in the precision sums are taken in: float32 at least, float64 when it already is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def reduce(total: Tensor, count: int | Tensor, reduction: str) -> Tensor:
    """A sum over samples as it stands (`"sum"`) or divided by their number (`"mean"`)."""
    return total / count if reduction == "mean" else total


def reduce_rows(losses: Tensor, sample_weights: Tensor | None, reduction: str, total: Tensor | None = None) -> Tensor:
    """Losses of rows (n,) times their weights: as they are (`"none"`), their sum, or the sum over the `total` weight.

    The total is n, or the sum of the weights, unless given. Where nothing weighs anything, or there is no row, the mean
    is 0.
    """
    if sample_weights is not None:
        sample_weights = sample_weights.to(losses.dtype)
        losses = sample_weights * losses
        total = sample_weights.sum() if total is None else total
    if reduction == "none":
        return losses
    if total is None:
        return reduce(losses.sum(), max(losses.shape[0], 1), reduction)
    return reduce(losses.sum(), total.where(total != 0, 1), reduction)


def present(x: Tensor, sample_weights: Tensor | None) -> Tensor:
    """Rows `x` (n, d), those of weight 0 zeroed: they are absent whatever they hold, and get no gradient."""
    return x if sample_weights is None else x.masked_fill((sample_weights == 0)[:, None], 0)


def unit(x: Tensor) -> Tensor:
    """Rows scaled to length one, x / ‖x‖, over the last dimension.

    A zero row has no direction: it stays zero and passes no gradient. Rows are first divided by their largest
    entry, so no magnitude overflows or vanishes in the square; NaN and inf come out as NaN.
    """
    largest = x.detach().abs().amax(-1, keepdim=True)
    scaled = x / torch.where(largest == 0, 1, largest)
    squared = scaled.square().sum(-1, keepdim=True)
    return torch.where(largest == 0, 0, scaled * torch.where(largest == 0, 1, squared).rsqrt())


def standardised(x: Tensor) -> Tensor:
    """Rows centred and scaled to length one, so that a dot product of two of them is Pearson's correlation.

    Rows are shifted by their first entry before their mean: correlation does not see a shift, a large common offset
    costs no digits, and a constant row becomes exactly zero, which has no direction (see :func:`unit`).
    """
    shifted = x - x[..., :1]
    return unit(shifted - shifted.mean(-1, keepdim=True))


def taking_part(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of `x` (n, d) and `y` (n,) whose label is not negative."""
    return x[y >= 0], y[y >= 0]


def class_counts(y: Tensor, num_classes: int, dtype: torch.dtype, sample_weights: Tensor | None = None) -> Tensor:
    """n_k, the samples of each class in the batch, or the sum of their weights: (C,)."""
    weights = torch.ones_like(y, dtype=dtype) if sample_weights is None else sample_weights.to(dtype)
    return torch.zeros(num_classes, dtype=dtype, device=y.device).index_add_(0, y, weights)


def class_sums(x: Tensor, y: Tensor, num_classes: int, sample_weights: Tensor | None = None) -> Tensor:
    """s_k = Σ_{y_i=k} x_i, or Σ w_i x_i, over the rows of `x` (..., n, d): (..., C, d)."""
    if sample_weights is not None:
        x = sample_weights.to(x.dtype)[:, None] * present(x, sample_weights)
    sums = torch.zeros(*x.shape[:-2], num_classes, x.shape[-1], dtype=x.dtype, device=x.device)
    return sums.index_add(-2, y, x)


def correlation_matrix(x: Tensor) -> Tensor:
    """Pearson's correlation of every two rows of `x` (n, d): (n, n).

    corr(u, v) = Σ(u-ū)(v-v̄) / √(Σ(u-ū)² · Σ(v-v̄)²). A constant row correlates 0 with everything, itself included,
    and receives no gradient. Source: Fard & Mahoor 2022 (Ad-Corre), eq. 4, whose denominator lost its squares.
    """
    u = standardised(accumulate(x))
    return u @ u.mT


def center_distances(x: Tensor, centers: Tensor) -> Tensor:
    """‖x_i - c_j‖² for every row of `x` (n, d) and `centers` (C, d): (n, C), squared."""
    return (accumulate(x)[:, None] - accumulate(centers)).square().sum(-1)


def anti_center_distances(x: Tensor, y: Tensor, centers: Tensor) -> Tensor:
    """S_i = Σ_{j≠y_i} ‖x_i - c_j‖², the distance of a sample from the centers of all other classes: (n,).

    Source: Pham et al. 2023 (variant loss), eq. 1.
    """
    others = torch.arange(len(centers), device=y.device) != y[:, None]
    return torch.where(others, center_distances(x, centers), 0).sum(-1)


def own_distances(x: Tensor, y: Tensor, centers: Tensor) -> Tensor:
    """‖x_i - c_{y_i}‖²: (n,)."""
    return (accumulate(x) - accumulate(centers)[y]).square().sum(-1)


def center_spread(centers: Tensor) -> Tensor:
    """For each class k, Σ_{j≠k} ‖c_j - c_k‖²: (C,), with no buffer (C, C, d). Its sum is the T of the variant loss."""
    return torch.cdist(centers, centers, compute_mode="donot_use_mm_for_euclid_dist").square().sum(-1)


def unless_spoiled(moved: Tensor, centers: Tensor) -> Tensor:
    """The moved centers (C, d) in the dtype of the old ones; a row with NaN or inf in it stays the old center.

    Such a row comes of samples that overflowed. A gradient scaler skips that step, and no state may be lost by it.
    """
    moved = moved.to(centers.dtype)
    return moved.where(moved.isfinite().all(-1, keepdim=True), centers)


def contrastive_log_denominator(
    z: Tensor,
    y: Tensor,
    bank_z: Tensor | None,
    bank_y: Tensor | None,
    temperature: float | Tensor,
    mode: str,
) -> Tensor:
    """log D_i, the log of the denominator every contrastive loss shares: (n,).

    D_i = Σ_{a≠i} e^{z_i·z_a/τ} + Σ_m e^{z_i·z_m/τ}: a over the batch, m over no bank row (`mode="supcon"`), every
    bank row (`"esc"`) or the bank rows with another label than y_i (`"ensc"`). Source: Zhu et al. 2022 (ECAN),
    eq. 3-6; the printed exp(z_i·(z_a+z_m)/τ) is a union of index sets, not a sum of vectors.

    The bank gets no gradient. Rows with a negative label, of the batch or of the bank (not yet filled), take part in
    nothing, whatever they hold. The denominator of such a row is empty, as that of a single row without a bank: -inf,
    with zero gradient.
    """
    left_out = y < 0
    # Zeroed as well as left out: what lies in such a row must not reach the gradient as 0·NaN.
    z = z.masked_fill(left_out[:, None], 0)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (accumulate(z @ z.mT) / temperature).masked_fill(itself | left_out, -torch.inf)
    if mode != "supcon" and bank_z is not None:
        unfilled = bank_y < 0
        bank_z = bank_z.detach().to(z.dtype).masked_fill(unfilled[:, None], 0)
        bank_logits = accumulate(z @ bank_z.mT) / temperature
        if mode == "ensc":
            unfilled = unfilled | (bank_y == y[:, None])
        logits = torch.cat([logits, bank_logits.masked_fill(unfilled, -torch.inf)], 1)
    return logits.masked_fill(left_out[:, None], -torch.inf).logsumexp(1)
