"""What the contrastive kernels share: one peak for all rows, and the other view of each."""

import triton
import triton.language as tl


@triton.jit
def common_peak(bound, SHIFT: tl.constexpr, MOST: tl.constexpr):
    """Whether the bound b on all logits may stand for every row's maximum, the peak that is subtracted then, and how
    far peaks follow below maxima.

    No weight leaves [2^(shift - 2b), 2^shift], which for b <= MOST is well within the range of their dtype. In float32
    (SHIFT 0) the shift is b and the peak 0: the logits of a row may all lie far below b, and less it they would lose
    the digits that plain PyTorch keeps.
    """
    b = tl.load(bound)
    plain = b <= MOST
    shift = tl.full((), SHIFT, tl.float32)
    if SHIFT == 0:
        shift = tl.where(plain, b, shift)
    return plain, b - shift, shift


@triton.jit
def partner_of(rows, n):
    """The row of the other view: rows i and i + n/2 are two views of one image."""
    return (rows + n // 2) % n


@triton.jit
def load_partners(z, partners, valid, z_stride, columns, width):
    """The other view of each row, zero where not `valid`, which also a row that is left out is not."""
    at = z + partners.to(tl.int64)[:, None] * z_stride + columns[None, :]
    return tl.load(at, mask=valid[:, None] & (columns < width)[None, :], other=0.0)
